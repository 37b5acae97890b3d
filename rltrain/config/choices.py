"""Choices of the config's groups: `algo=dqn`, `env=CartPole-v1`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import OmegaConf

from rltrain.config.contradictions import OPTIONAL_GROUPS
from rltrain.config.env_source import brought_by, left_out
from rltrain.config.plain import at, show
from rltrain.config.schema import GROUP_CONFIGS
from rltrain.config.spelling import closest
from rltrain.errors import RequestError

_OF_ANY_SECTION = {"env", "tuned", "experiment"}
"""Groups of which a key is no choice's own: their files say what is in force elsewhere, or are too many to read."""


def groups_of(loader: Any) -> set[str]:
    """The groups of the config: algo, env, ..."""
    return set(loader.list_groups("")) - {"hydra", "search"}


def check_group(override: Override, line: str, loader: Any) -> None:
    """Refuses a `group=choice` with an unknown choice.

    Raises:
        RequestError: with the choices that there are.
    """
    group = override.key_or_group
    if override.package is not None:
        raise RequestError(f"{line}: a group cannot be moved; write {group}=...")
    if override.is_sweep_override():
        if not override.is_discrete_sweep():
            raise RequestError(f"{line}: {group} takes names, not a range of numbers")
        values: Iterable[Any] = override.sweep_string_iterator()
    else:
        values = [override.value()]
    text = line.partition("=")[2]
    for word in (text, text.strip("'\"")):
        if word != word.strip():
            raise RequestError(f"{group}={word!r}: blanks before or after the name")
    for value in values:
        if value is None and group == "experiment":
            continue
        if not isinstance(value, str) or not value:
            hint = f"{group}=none turns it off" if group == "tuned" else f"{group} needs one of its choices"
            raise RequestError(f"{group}={show(value)}: {hint}; see `rltrain list {_listed(group)}`")
        name = value.strip("'\"")
        if not loader.repository.config_exists(f"{group}/{name}"):
            raise RequestError(unknown_choice(group, name, loader))


OTHER_WORDS = {
    ("algo", "doubledqn"): "algo=dqn (algo.double=true, which is its default)",
    ("algo", "ddqn"): "algo=dqn (algo.double=true, which is its default)",
    ("algo", "duelingdqn"): "algo=dqn network=dueling",
    ("algo", "per"): "algo=dqn replay=prioritized",
    ("algo", "qrdqn"): "algo=qr_dqn",
    ("algo", "categoricaldqn"): "algo=c51",
    ("algo", "implicitquantile"): "algo=iqn",
    ("algo", "qlearning"): "algo=q_learning",
    ("algo", "vpg"): "algo=reinforce",
    ("algo", "rainbow"): "experiment=rainbow",
    ("algo", "rainbowdqn"): "experiment=rainbow",
    ("algo", "munchausendqn"): "algo=dqn algo.munchausen=0.9 algo.double=false",
    ("algo", "mdqn"): "algo=dqn algo.munchausen=0.9 algo.double=false",
    ("algo", "noisydqn"): "algo=dqn network.noisy=true exploration=none",
    ("algo", "noisynet"): "algo=dqn network.noisy=true exploration=none",
    ("algo", "actorcritic"): "algo=a2c",
    ("algo", "a3c"): "algo=a2c",
    ("network", "noisy"): "network.noisy=true exploration=none",
    ("replay", "per"): "replay=prioritized",
}
"""Words of other programs and of the papers, without hyphens: what they are here."""
_OFF_POLICY_CONTINUOUS = ("sac", "td3", "ddpg", "tqc", "redq", "droq", "crossq", "mpo", "naf")
"""Algorithms for Box actions that are not here, and near to none that is."""


def unknown_choice(group: str, name: str, loader: Any) -> str:
    """Error text for an unknown choice, with those that exist."""
    if (meant := OTHER_WORDS.get((group, re.sub(r"[_-]", "", name.lower())))) is not None:
        return f"{group}={name}: no such choice; it is {meant}"
    if group == "algo" and name.lower() in _OFF_POLICY_CONTINUOUS:
        return f"algo={name}: rltrain does not have it; for Box actions there are ppo, a2c and reinforce"
    if group == "device" and (index := re.fullmatch(r"cuda:(\d+)", name)):
        return f"device={name}: no such choice; it is device=cuda device.index={index[1]}"
    options = [option for option in loader.get_group_options(group) if option != "auto" or group != "tuned"]
    matches = closest(name, options, 3, 0.5)
    if group == "env":
        # Two names that share little more than the version are not alike.
        matches = [match for match in matches if closest(_unversioned(name), [_unversioned(match)], cutoff=0.6)]
        named = [option for option in options if option.lower().endswith(f"/{name.lower()}")]  # without its namespace
        versions = [option for option in reversed(options) if _unversioned(option) == _unversioned(name)]
        matches = list(dict.fromkeys([*named, *versions, *matches]))[:3]
        known = f"closest: {', '.join(matches)}{brought_by(matches[0])}; " if matches else ""
        fault = f"; {reason}" if (reason := left_out()) else ""
        return (
            f"env={name}: no such environment{fault}\n"
            f"{known}`rltrain list envs` shows all, module:id imports one of yours"
        )
    guess = f"; did you mean {matches[0]}?" if matches else ""
    return f"{group}={name}: no such choice{guess}\nchoices: {', '.join(options)}"


def _unversioned(env_id: str) -> str:
    return re.sub(r"-v\d+$", "", env_id)


def _listed(group: str) -> str:
    return group if group in ("tuned",) else f"{group}s"


def names_of(loader: Any, choices: Mapping[str, str]) -> dict[str, str]:
    """Group -> its `name`, as the file of the choice gives it: that of exploration=none is constant."""
    found = {}
    for group in GROUP_CONFIGS.keys() & choices.keys():
        config = _file_of(loader, group, choices[group])
        name = at(config, ["name"]) or at(config, [group, "name"])
        if isinstance(name, str):
            found[group] = name
    return found


def that_hold(key: str, loader: Any) -> list[str]:
    """The choices whose files put a key into another section: replay=prioritized makes algo.prioritized.alpha."""
    groups = sorted(groups_of(loader) - GROUP_CONFIGS.keys() - _OF_ANY_SECTION)
    return [
        f"{group}={choice}"
        for group in groups
        for choice in loader.get_group_options(group)
        if at(_file_of(loader, group, choice), key.split(".")) is not None
    ]


def _file_of(loader: Any, group: str, choice: str) -> dict[str, Any]:
    """The content of a choice's file, under the package in its first line; empty where there is no such file."""
    if (found := loader.repository.load_config(f"{group}/{choice}")) is None:
        return {}
    config: Any = OmegaConf.to_container(found.config, resolve=False)
    package = (found.header["package"] or "").removeprefix("_global_")
    for part in filter(None, reversed(package.split("."))):
        config = {part: config}
    return config if isinstance(config, dict) else {}


def choices_of(loader: Any, overrides: Sequence[str]) -> dict[str, str]:
    """The choices that the overrides which name a choice lead to, as far as they can be found out."""
    with_files = ("algo", "env", "network", "replay", "experiment", "tuned")
    names = [line for line in overrides if line.partition("=")[0] in with_files]
    more = [line for line in overrides if line.partition("=")[0] in OPTIONAL_GROUPS]
    no_network = [line for line in names if not line.startswith("network=")]
    plain = [line for line in names if line.startswith(("algo=", "env="))]
    for attempt in (names + more, names, no_network, plain):
        try:
            found = loader.compute_defaults_list("config", attempt, RunMode.MULTIRUN).overrides.known_choices
        except Exception:
            continue
        return {key: value for key, value in found.items() if isinstance(value, str)}
    return {}
