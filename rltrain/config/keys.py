"""Dotted keys of the config: which there are, and which one was meant."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin, get_type_hints

from rltrain.config import schema
from rltrain.config.validate import closest
from rltrain.errors import RequestError
from rltrain.terminal.text import rltrain_command

# Names in other libraries -> the last part of ours, or all of it.
_SYNONYMS = {
    "learning_rate": "lr",
    "batch": "batch_size",
    "timesteps": "total_steps",
    "total_timesteps": "total_steps",
    "n_timesteps": "total_steps",
    "n_envs": "num_envs",
    "eval_freq": "eval.period",
    "save_freq": "checkpoint.period",
    "hidden_sizes": "hidden",
    "net_arch": "hidden",
}


def unknown_key(key: str, choices: Mapping[str, str], names: Mapping[str, str] | None = None) -> str | None:
    """Says what is wrong with a dotted key; None where the schema knows it.

    Args:
        choices: of the groups, as far as they are known; of any other group every choice's keys are known.
        names: `network.name` and its like, of the groups where it is another than the choice: that of exploration=none
            is constant.
    """
    named = {**choices, **(names or {})}
    leaves = sorted(leaf for leaf, _ in _leaves(schema.RunConfig, "", named))
    if key in leaves or key.startswith("env.kwargs") or any(leaf.startswith(f"{key}.") for leaf in leaves):
        return None
    section = key.partition(".")[0]
    owner = f" of {section}={choices[section]}" if section in choices and "." in key else ""
    elsewhere = [
        f"{section}={name}"
        for name, cls in schema.GROUP_CONFIGS.get(section, {}).items()
        if any(f"{leaf}.".startswith(f"{key}.") for leaf, _ in _leaves(cls, f"{section}.", {}))
    ]
    if elsewhere:
        return f"unknown key{owner}; it belongs to {' and '.join(elsewhere)}"
    matches = same_name(key, named)
    if not matches:
        sections = {leaf.partition(".")[0] for leaf in leaves} | {"experiment", "tuned"}
        by_name = {leaf.rpartition(".")[2]: leaf for leaf in leaves} | {section: section for section in sections}
        alike = closest(key, leaves) if "." in key else []
        matches = alike or [by_name[name] for name in closest(key.rpartition(".")[2], by_name)]
    guess = f"; did you mean {' or '.join(matches[:3])}?" if matches else "; `rltrain --cfg job` shows all keys"
    return f"unknown key{owner}{guess}"


def same_name(key: str, choices: Mapping[str, str]) -> list[str]:
    """The keys whose last part is that of `key`, or means the same: lr is algo.optimizer.lr."""
    name = key.rpartition(".")[2]
    last = _SYNONYMS.get(name, name)
    leaves = sorted(leaf for leaf, _ in _leaves(schema.RunConfig, "", choices))
    return [leaf for leaf in leaves if last in (leaf, leaf.rpartition(".")[2])]


def as_written(overrides: Sequence[str]) -> list[str]:
    """The overrides with the proper name of a choice that has two: device=gpu becomes device=cuda."""
    return [
        re.sub(r"(?<=[=,])gpu(?=,|$)", "cuda", override) if override.startswith("device=") else override
        for override in overrides
    ]


def in_one_word(line: Sequence[str]) -> RequestError:
    """The refusal of settings in another tool's form, with the arguments of `rltrain` that were meant."""
    return RequestError(f"settings are written key=value, in one word\ndid you mean: {rltrain_command(*line)}")


def takes_list(key: str) -> bool:
    """Whether a key's values are lists."""
    return any(tuple in (get_origin(part) for part in (hint, *get_args(hint))) for hint in _hints(key))


def is_flag(key: str) -> bool:
    """Whether a key is true or false."""
    return bool in _hints(key)


def _hints(key: str) -> list[Any]:
    return [hint for leaf, hint in _leaves(schema.RunConfig, "", {}) if leaf == key]


@functools.cache
def _types_of(cls: type) -> dict[str, Any]:
    """The types of a dataclass's fields, evaluated once: each override asks for all of them."""
    return get_type_hints(cls)


def _leaves(cls: type, prefix: str, choices: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """(key, type) of all that has no keys below it."""
    hints = _types_of(cls)
    for field in dataclasses.fields(cls):
        key, hint = f"{prefix}{field.name}", hints[field.name]
        if key in schema.GROUP_CONFIGS:
            classes = schema.GROUP_CONFIGS[key]
            chosen = [classes[choices[key]]] if choices.get(key) in classes else list(classes.values())
        else:
            chosen = [
                part for part in (hint, *get_args(hint)) if isinstance(part, type) and dataclasses.is_dataclass(part)
            ]
        if not chosen:
            yield key, hint
        for part in chosen:
            yield from _leaves(part, f"{key}.", choices)
