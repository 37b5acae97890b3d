"""Keys that change nothing, because another key turns off what they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rltrain.config.override_text import key_of
from rltrain.config.plain import leaves


def idle_keys(config: Mapping[str, Any]) -> dict[str, str]:
    """Each dotted key of a resolved config that changes nothing, with the setting that makes it so."""
    algo = config["algo"]
    found: dict[str, str] = {}
    if algo["name"] == "dqn" and algo["munchausen"] is None:
        found |= dict.fromkeys(("algo.munchausen_temperature", "algo.munchausen_clip"), "algo.munchausen=null")
    if algo["name"] == "reinforce" and algo["baseline"] != "value":
        found |= dict.fromkeys(leaves({"algo": {"value": algo["value"]}}), f"algo.baseline={algo['baseline']}")
    exploration = config.get("exploration")
    if exploration is not None and exploration["name"] == "constant" and exploration["end"] == 0:
        found["exploration.duration"] = "exploration.end=0"
    # The first gradient step after a rollout finds the policy and the values as they were: no ratio or value has moved.
    if algo["name"] in ("ppo", "a2c") and algo["epochs"] == algo["minibatches"] == 1:
        found |= dict.fromkeys(("algo.clip", "algo.value.clip"), "one gradient step per rollout")
    # What it ends are the passes after the one that it looks at.
    if algo["name"] in ("ppo", "a2c") and algo["epochs"] == 1:
        found["algo.target_kl"] = "algo.epochs=1"
    return found | _idle_of_replay(algo.get("prioritized"))


def _idle_of_replay(prioritized: Mapping[str, Any] | None) -> dict[str, str]:
    if prioritized is None:
        return {}
    if prioritized["alpha"] == 0:  # equal priorities, whose importance weights are 1
        keys = [f"algo.prioritized.{key}" for key in ("beta", "beta_steps", "eps")]
        return dict.fromkeys(keys, "algo.prioritized.alpha=0")
    return {"algo.prioritized.beta_steps": "algo.prioritized.beta=1"} if prioritized["beta"] == 1 else {}


def idle_lines(jobs: Iterable[tuple[Mapping[str, Any], Iterable[str]]]) -> list[str]:
    """A line for each key that was typed for nothing: of resolved configs, each with its overrides, none of those for
    which it was typed heeds it."""
    typed: dict[str, list[str | None]] = {}
    for config, overrides in jobs:
        idle = idle_keys(config)
        for key in map(key_of, overrides):
            typed.setdefault(key, []).append(idle.get(key))
    return [f"idle      {key} has no effect with {why[0]}" for key, why in typed.items() if all(why)]
