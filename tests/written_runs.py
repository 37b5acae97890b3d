"""Folders of runs and sweeps as training leaves them, written by hand: nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

CONFIG: dict[str, Any] = {
    "name": None, "seed": 0, "total_steps": 1000, "total_episodes": None, "num_envs": 1, "log_period": 100,
    "stop_at_return": None, "eval": {"period": 200, "episodes": 10}, "checkpoint": {"period": 500, "keep": 3},
    "algo": {"name": "dqn", "gamma": 0.99, "optimizer": {"name": "adam", "lr": 0.001}},
    "network": {"name": "mlp", "hidden": [64, 64]}, "env": {"id": "CartPole-v1", "kwargs": {}},
}  # fmt: skip


def config(**changes: Any) -> dict[str, Any]:
    """CONFIG with other values; `algo__optimizer__lr=1` is algo.optimizer.lr."""
    changed: dict[str, Any] = json.loads(json.dumps(CONFIG))
    for key, value in changes.items():
        *path, last = key.split("__")
        section = changed
        for part in path:
            section = section[part]
        section[last] = value
    return changed


RECORD = {"device": "cpu", "versions": {"rltrain": "1", "torch": "2"}, "started": 1e9, "seconds": 20.0}


def row(
    step: int, training: float | None = None, evaluation: float | None = None, speed: float = 100.0
) -> dict[str, Any]:
    """A row of metrics.jsonl."""
    tags = {"rollout/episode_return": training, "eval/episode_return": evaluation, "time/steps_per_second": speed}
    return {"step": step, **{tag: value for tag, value in tags.items() if value is not None}}


def result(
    mean: float, env_step: int = 1000, threshold: float | None = 475.0, solve_step: int | None = None
) -> dict[str, Any]:
    """The content of result.json."""
    returns = {"mean": mean, "std": 1.0, "min": mean - 2, "max": mean + 2}
    return {
        "env_step": env_step,
        "episodes": 100,
        "episode_return": returns,
        "threshold": threshold,
        "solve_step": solve_step,
    }


def write_run(
    folder: Path,
    rows: Sequence[Mapping[str, Any]] = (),
    final: Mapping[str, Any] | None = None,
    status: str = "completed",
    plain: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A run's folder. Its rows, unless given, rise in a line to `final`, the greedy return at its end."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config(**changes) if plain is None else plain))
    (folder / "run.json").write_text(json.dumps({"status": status, **RECORD}))
    if final is not None and not rows:
        last, mean = final["env_step"], final["episode_return"]["mean"]
        rows = [row(s, mean * s / last, mean * s / last if s % 200 == 0 else None) for s in range(100, last + 1, 100)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    if final is not None:
        (folder / "result.json").write_text(json.dumps(final))
    return folder


def write_sweep(folder: Path, jobs: Mapping[str, tuple[Sequence[str], Mapping[str, Any], float | None]]) -> Path:
    """A sweep's folder: name of a job -> its overrides, the changes of its config, its greedy return (None: no run)."""
    folder.mkdir(parents=True)
    listed = []
    for name, (overrides, changes, mean) in jobs.items():
        listed.append({"folder": name, "config": config(**changes), "overrides": list(overrides)})
        if mean is not None:
            write_run(folder / name, final=result(mean), **changes)
    (folder / "jobs.json").write_text(json.dumps({"jobs": listed, "notes": []}))
    return folder
