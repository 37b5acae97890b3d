"""Observations of several parts as one row of numbers, in the order of `gymnasium.spaces.flatten`.

Dict           its parts in the order of its keys, which Gymnasium sorts
Tuple          its parts in their order
Discrete       one-hot
MultiDiscrete  one-hot of each of its numbers, one after the other, the last axis fastest
MultiBinary    its numbers
Box            its numbers, the last axis fastest; an image's divided by 255, as a network reads images
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from rltrain.envs.observed import Check, NotOfSpace, is_image, make_take, needs_float64
from rltrain.errors import RequestError

MOST_NUMBERS = 1 << 24
"""In one observation, after one-hot encoding. It bounds what an untrusted checkpoint can make a reader allocate."""
MOST_NESTED = 32
SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these"

_Put = Callable[[Any, np.ndarray, Check], None]
"""(the part's value, its slice of the row, how closely to look) -> None; NotOfSpace where it is not of its space."""


class Flattener:
    """Writes observations of one space into rows of floats.

    Attributes:
        size: numbers in a row.
        dtype: of rows that hold every number as it is: float64 where a part has numbers that float32 lacks.

    Raises:
        RequestError: the space has a part that is not supported, or no number, or too many.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        self._parts: list[tuple[tuple[Any, ...], slice, _Put]] = []
        self.size, self.dtype = 0, "float32"
        for keys, part in _leaves(space, ()):
            put, size = _writer(part, _place(space, keys))
            self._parts.append((keys, slice(self.size, self.size + size), put))
            self.size += size
            if needs_float64(part):
                self.dtype = "float64"
            if self.size > MOST_NUMBERS:
                raise RequestError(f"observation space {name_of(space)} has more than {MOST_NUMBERS:,} numbers")
        if not self.size:
            raise RequestError(f"observation space {name_of(space)} holds no number")
        self._groups = [*_groups(space, ())]

    def write(self, observation: Any, row: np.ndarray, check: Check = Check.KIND) -> None:
        """observation -> row [size].

        Raises:
            NotOfSpace: the observation lacks a part, or a part is not of its space.
        """
        for keys, where, put in self._parts:
            value = _part(observation, keys)
            try:
                put(value, row[where], check)
            except NotOfSpace as error:
                raise NotOfSpace(f"{_brackets(keys)} {error}".lstrip()) from None
        if check >= Check.ALL:
            for keys, known in self._groups:
                _require_no_more(_part(observation, keys), keys, known)

    def part_of(self, number: int) -> str:
        """The part that writes this number of a row, as one writes it behind `observation`."""
        return next(_brackets(keys) for keys, where, _ in self._parts if where.start <= number < where.stop)


def name_of(space: spaces.Space[Any]) -> str:
    """A space's everyday name."""
    return type(space).__name__


def _part(observation: Any, keys: tuple[Any, ...]) -> Any:
    value = observation
    try:
        for key in keys:
            value = value[key]
    except (KeyError, IndexError, TypeError):
        raise NotOfSpace(f"has no part {_brackets(keys)}") from None
    return value


def _groups(space: spaces.Space[Any], keys: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Collection[Any]]]:
    """The Dicts and Tuples of a space, itself included, with the keys of their parts."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = dict(space.spaces if isinstance(space, spaces.Dict) else enumerate(space.spaces))
        yield keys, parts.keys()
        for key, part in parts.items():
            yield from _groups(part, (*keys, key))


def _require_no_more(value: Any, keys: tuple[Any, ...], known: Collection[Any]) -> None:
    found = value.keys() if isinstance(value, Mapping) else range(len(value))
    if more := [key for key in found if key not in known]:
        raise NotOfSpace(f"has a part {_brackets((*keys, more[0]))}, which its space has not")


def _leaves(space: spaces.Space[Any], keys: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], spaces.Space[Any]]]:
    if len(keys) > MOST_NESTED:
        raise RequestError(f"observation space: parts lie more than {MOST_NESTED} deep")
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            if not isinstance(key, str):
                raise RequestError(f"observation space Dict: its keys must be text, {key!r} is not")
            yield from _leaves(part, (*keys, key))
    elif isinstance(space, spaces.Tuple):
        for number, part in enumerate(space.spaces):
            yield from _leaves(part, (*keys, number))
    else:
        yield keys, space


def _brackets(keys: tuple[Any, ...]) -> str:
    return "".join(f"[{key!r}]" for key in keys)


def _place(space: spaces.Space[Any], keys: tuple[Any, ...]) -> str:
    return f"{name_of(space)}: its part {_brackets(keys)}, a" if keys else ""


def _writer(space: spaces.Space[Any], place: str) -> tuple[_Put, int]:
    if isinstance(space, spaces.Discrete):
        return _discrete(space), int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return _multi_discrete(space)
    if isinstance(space, spaces.MultiBinary | spaces.Box):
        return _numbers(space), int(np.prod(space.shape, dtype=object))
    where = f"{place} {name_of(space)}," if place else name_of(space)
    raise RequestError(f"observation space {where} is not supported (supported: {SUPPORTED})")


def _discrete(space: spaces.Discrete) -> _Put:
    take = make_take(space)

    def put(value: Any, row: np.ndarray, check: Check) -> None:
        index = take(value, check)
        row.fill(0.0)
        row[index] = 1.0

    return put


def _multi_discrete(space: spaces.MultiDiscrete) -> tuple[_Put, int]:
    take, counts = make_take(space), space.nvec.reshape(-1).astype(np.int64)
    firsts = np.cumsum(counts) - counts  # where each number's one-hot begins

    def put(value: Any, row: np.ndarray, check: Check) -> None:
        index = take(value, check).reshape(-1)
        row.fill(0.0)
        row[firsts + index] = 1.0

    return put, int(sum(counts.tolist()))


def _numbers(space: spaces.MultiBinary | spaces.Box) -> _Put:
    take = make_take(space)
    scaled = isinstance(space, spaces.Box) and is_image(space)

    def put(value: Any, row: np.ndarray, check: Check) -> None:
        row[:] = take(value, check).reshape(-1)
        if scaled:
            row /= np.float32(255)

    return put
