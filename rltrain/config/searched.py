"""A search space with the config of a study: which of its keys are searched, in the values of their types."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rltrain.config.horizon import check_horizon, epsilon_at_end
from rltrain.config.idle import idle_keys
from rltrain.config.keys import unknown_key
from rltrain.config.plain import at, show, to_plain
from rltrain.config.schema import GROUP_CONFIGS, RunConfig
from rltrain.config.search_space import Dimension
from rltrain.config.validate import build_section
from rltrain.errors import RequestError

_NOT_SEARCHED = (
    "seed",
    "name",
    "init_from",
    "dry_run",
    "log_period",
    "total_steps",
    "total_episodes",
    "stop_at_return",
    "loggers",
    "eval",
    "checkpoint",
    "device",
    "video",
)
"""Keys, or sections before a dot, that do not change what is learned, or in which trials could not be compared."""
_SEARCHED_OF_ENV = ("wrappers", "reward_clip")
"""The other keys of an environment make it another task; evaluations count its own rewards whatever these are."""


def fitted(space: Sequence[Dimension], config: RunConfig, given: Sequence[str]) -> tuple[list[Dimension], list[str]]:
    """The dimensions that are searched with `config`, in the numbers of its keys' types; and the keys that leave the
    space: those `given`, and, of those that a file brings, the ones that change nothing: of choices that are not in
    force (a `tau` under target_update=hard), or idle.

    Raises:
        RequestError: an unknown key, a value out of its range, a typed key that changes nothing, or nothing is
            left to search.
    """
    plain = to_plain(config)
    choices = {group: plain[group]["name"] for group in GROUP_CONFIGS if plain.get(group) is not None}
    kept, left = list[Dimension](), list[str]()
    for dimension in space:
        key = dimension.key
        group, _, choice = dimension.under.partition("=")
        if group and choices.get(group) != choice:
            continue
        if wrong := unknown_key(key, {}):
            raise RequestError(f"{dimension.place}{key}: {wrong}")
        section, _, name = key.partition(".")
        if key in _NOT_SEARCHED or section in _NOT_SEARCHED:
            raise RequestError(f"{dimension.place}{key}: is no setting of what is learned, and is not searched")
        if section == "env" and name not in _SEARCHED_OF_ENV:
            raise RequestError(f"{dimension.place}{key}: makes another task, in which trials could not be compared")
        if key in given or (dimension.place and section == "exploration" and _greedy(plain)):
            left.append(key)
        elif unfit := _unfit(key, plain, choices):
            if not dimension.place:
                raise RequestError(f"{key}: {unfit}")
            left.append(key)
        else:
            kept.append(_typed(dimension, plain))
    for dimension, why in _idle(kept, plain):
        if not dimension.place:
            raise RequestError(f"{dimension.key}: has no effect with {why}, and is not searched")
        kept.remove(dimension)
        left.append(dimension.key)
    if not kept:
        raise RequestError(f"nothing is left to search: {', '.join(left)} {'is' if len(left) == 1 else 'are'} fixed")
    return kept, left


def _unfit(key: str, plain: Mapping[str, Any], choices: Mapping[str, str]) -> str:
    """Why the config has no such key; nothing where it has."""
    if unknown := unknown_key(key, choices):
        return unknown
    section = key.partition(".")[0]
    if section in GROUP_CONFIGS and section not in choices:
        return f"algo={choices['algo']} has no {section}"
    if _has(plain, key):
        return ""
    *path, last = key.split(".")
    inner = at(plain, path)
    if isinstance(inner, Mapping) and isinstance(inner.get(last), Mapping):
        return f"is a group of keys: {', '.join(f'{key}.{name}' for name in inner[last])}"
    return f"{key.rpartition('.')[0]} is null here"


def _greedy(plain: Mapping[str, Any]) -> bool:
    """Whether the config is one of exploration=none, which a space of epsilons does not take back."""
    exploration = plain.get("exploration")
    return exploration is not None and exploration["name"] == "constant" and exploration["end"] == 0


def _idle(space: Sequence[Dimension], plain: Mapping[str, Any]) -> list[tuple[Dimension, str]]:
    """The dimensions that change nothing whatever another one is, each with the setting that makes it so."""
    others = [{}, *({d.key: value} for d in space for value in d.choices or (d.low, d.high))]
    found = [idle_keys(with_values(plain, values)) for values in others]
    return [(d, found[0][d.key]) for d in space if all(d.key in idle for idle in found)]


def late_epsilon(config: RunConfig, dimension: Dimension) -> str:
    """`epsilon_at_end` of a trial with the largest value of the dimension, which decides how long epsilon falls."""
    if dimension.key not in ("exploration.steps", "exploration.decay"):
        return ""
    largest = max(dimension.choices) if dimension.choices else dimension.high
    return epsilon_at_end(build_section(RunConfig, with_values(to_plain(config), {dimension.key: largest}), ""))


def with_values(plain: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A config as plain data with other values of some dotted keys, not validated."""
    changed = copy.deepcopy(dict(plain))
    for key, value in values.items():
        *path, last = key.split(".")
        at(changed, path)[last] = value
    return changed


def _has(plain: Mapping[str, Any], key: str) -> bool:
    """Whether the config's section of the key is there: algo.prioritized may be null."""
    *path, last = key.split(".")
    section = at(plain, path)
    return isinstance(section, Mapping) and not isinstance(section.get(last), Mapping)


def _typed(dimension: Dimension, plain: Mapping[str, Any]) -> Dimension:
    """The dimension with its values as the schema has them, each tried in the config."""
    key, place = dimension.key, dimension.place
    if dimension.choices:
        return replace(dimension, choices=tuple(_tried(plain, key, value, place) for value in dimension.choices))
    low, high = (_tried(plain, key, value, place) for value in (dimension.low, dimension.high))
    step = dimension.step
    for name, value in (("low", low), ("high", high)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RequestError(f"{place}{key}: takes no numbers between {name} and another; give choices")
    if isinstance(low, int) and step is not None and step != int(step):
        raise RequestError(f"{place}{key}.step={step:g}: must be an integer, as {key} is")
    step = int(step) if isinstance(low, int) and step is not None else step
    return replace(dimension, low=low, high=high, step=step)


def _tried(plain: Mapping[str, Any], key: str, value: Any, place: str) -> Any:
    try:
        # Alone: what contradicts a value that is searched too is refused when it comes together.
        changed = build_section(RunConfig, with_values(plain, {key: value}), "")
    except RequestError as error:
        raise RequestError(f"{place}{error}") from error
    try:
        check_horizon(changed)  # every trial is as long
    except RequestError as error:
        raise RequestError(f"{place}{key}={show(value)}, which is searched: {error}") from error
    return at(to_plain(changed), key.split("."))
