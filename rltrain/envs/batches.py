"""Batches of observations told from single ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from rltrain.envs.observed import NotOfSpace


def observations_in(space: spaces.Space[Any], given: Any) -> list[Any] | None:
    """The observations of a batch, one by one; None where `given` is no batch, but one observation (or nonsense).

    A batch has one axis more than the space, the first; of a Dict or a Tuple each part has, as an array, as vector
    environments give them. A list of dicts or of tuples is a batch too.

    Raises:
        ValueError: the parts of a batch differ in how many they are, or it is the pair that `reset` returns.
    """
    if _is_pair_of_reset(space, given):
        raise NotOfSpace("observation is the pair that env.reset() returns: obs, info = env.reset(), and obs is taken")
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        return list(given) if _ndim(given) == len(space.shape or ()) + 1 else None
    container = Mapping if isinstance(space, spaces.Dict) else tuple
    if isinstance(given, list) and given and all(isinstance(one, container) for one in given):
        return given
    sizes = list(_batch_sizes(space, given))
    known = sorted({size for size in sizes if size is not None})
    if not known or None in sizes:
        return None
    if len(known) > 1:
        raise ValueError(f"the parts of the observations are batches of {' and '.join(map(str, known))}")
    return [_row(space, given, number) for number in range(known[0])]


def _is_pair_of_reset(space: spaces.Space[Any], given: Any) -> bool:
    if not (isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], Mapping)):
        return False
    return not (isinstance(space, spaces.Tuple) and len(space) == 2 and isinstance(space[1], spaces.Dict))


def _ndim(given: Any) -> int | None:
    """The number of axes; None for lists of different lengths, which are nonsense."""
    try:
        return np.ndim(given)
    except ValueError:
        return None


def _batch_sizes(space: spaces.Space[Any], given: Any) -> Iterator[int | None]:
    """How many observations each part is; None for a part of one observation."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        keys = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in keys:
            try:
                yield from _batch_sizes(part, given[key])
            except (KeyError, IndexError, TypeError):
                yield None
        return
    is_batch = isinstance(given, np.ndarray) and given.ndim == len(space.shape or ()) + 1
    yield len(given) if is_batch else None


def _row(space: spaces.Space[Any], given: Any, number: int) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _row(part, given[key], number) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_row(part, given[key], number) for key, part in enumerate(space.spaces))
    return given[number]
