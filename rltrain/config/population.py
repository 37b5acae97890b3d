"""Which jobs of a sweep can be trained as one program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rltrain.config.algorithms import card_of, per_member_keys
from rltrain.config.plain import at, show, to_plain
from rltrain.config.schema import RunConfig

_COMMON = (
    "name", "seed", "total_steps", "total_episodes", "stop_at_return", "init_from",
)  # fmt: skip

_OPTIONAL = ("algo.max_grad_norm", "algo.max_grad_value", "exploration.duration")
"""Numbers that may be null, which is another program than a number."""

MOST_MEMBERS = 256


def group_jobs(configs: Sequence[RunConfig]) -> list[list[int]]:
    """Indices of jobs that differ only in what a batch can carry; groups and their jobs are in the jobs' order."""
    alike: dict[str, list[int]] = {}
    for number, config in enumerate(configs):
        alike.setdefault(structure(config) or f"alone {number}", []).append(number)
    return list(alike.values())


def divided(jobs: Sequence[int], most: int, bundle: int = 1) -> list[list[int]]:
    """A group of jobs in parts of nearly equal size of at most `most`, in their order.

    Args:
        bundle: every so many jobs, which differ in their seeds only, stay in one part.
    """
    bundles, most_bundles = -(-len(jobs) // bundle), max(1, most // bundle)
    size = bundle * -(-bundles // -(-bundles // most_bundles))
    return [list(jobs[start : start + size]) for start in range(0, len(jobs), size)]


def structure(config: RunConfig) -> str | None:
    """A text that two configs share if they can be members of one population; None for one that cannot be."""
    # Worker processes belong to one environment each: many members would start many.
    if not card_of(config.algo).in_populations or config.env.vectorization == "async" or config.dry_run:
        return None
    plain = to_plain(config)
    carried = {key: _take(plain, key) for key in (*_COMMON, *per_member_keys(config))}
    # A bound that is not there is another program, not another number.
    optional = {key: carried[key] is None for key in _OPTIONAL if key in carried}
    return json.dumps([plain, optional], sort_keys=True)


def differing_keys(configs: Sequence[RunConfig]) -> list[str]:
    """The keys of members' own numbers in which the configs differ."""
    plains = [to_plain(config) for config in configs]
    keys = (*_COMMON, *per_member_keys(configs[0]))
    values = {key: {json.dumps(at(plain, key.split("."))) for plain in plains} for key in keys}
    return [key for key, found in values.items() if len(found) > 1]


def differences(configs: Sequence[RunConfig]) -> list[str]:
    """For each config the keys in which it and the others differ, with its values: `seed=3 algo.gamma=0.9`."""
    keys, plains = differing_keys(configs), [to_plain(config) for config in configs]
    return [" ".join(f"{key}={show(at(plain, key.split('.')))}" for key in keys) for plain in plains]


def _take(plain: dict[str, Any], key: str) -> Any:
    """Removes the key and returns its value; None where it is not there."""
    *path, last = key.split(".")
    section = at(plain, path)
    return section.pop(last, None) if isinstance(section, dict) else None
