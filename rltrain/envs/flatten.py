"""Observations of several parts as one row of numbers, in the order of `gymnasium.spaces.flatten`.

Dict           its parts in the order of its keys, which Gymnasium sorts
Tuple          its parts in their order
Discrete       one-hot
MultiDiscrete  one-hot of each of its numbers, one after the other, the last axis fastest
MultiBinary    its numbers
Box            its numbers, the last axis fastest; an image's divided by 255, as a network reads images
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

from rltrain.errors import RequestError

MOST_NUMBERS = 1 << 24
"""In one observation, after one-hot encoding. It bounds what a stranger's checkpoint can make a reader allocate."""
MOST_NESTED = 32
SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these"

_Put = Callable[[Any, np.ndarray], None]
"""(the part's value, its slice of the row) -> None; ValueError where the value is not of the part's space."""


def is_image(space: spaces.Box) -> bool:
    """Whether the numbers are bytes that use their whole range: only those mean a share of 255."""
    return bool(space.dtype == np.uint8 and (space.low == 0).all() and (space.high == 255).all())


class Flattener:
    """Writes observations of one space into rows of float32.

    Raises:
        RequestError: the space has a part that is not supported, or no number, or too many.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        self._parts: list[tuple[tuple[Any, ...], slice, _Put]] = []
        self.size = 0
        for keys, part in _leaves(space, ()):
            put, size = _writer(part, _place(space, keys))
            self._parts.append((keys, slice(self.size, self.size + size), put))
            self.size += size
            if self.size > MOST_NUMBERS:
                raise RequestError(f"observation space {name_of(space)} has more than {MOST_NUMBERS:,} numbers")
        if not self.size:
            raise RequestError(f"observation space {name_of(space)} holds no number")

    def write(self, observation: Any, row: np.ndarray) -> None:
        """observation -> row [size] float32.

        Raises:
            ValueError: the observation lacks a part, or a part is not of its space.
        """
        for keys, where, put in self._parts:
            value = observation
            try:
                for key in keys:
                    value = value[key]
            except (KeyError, IndexError, TypeError):
                raise ValueError(f"observation has no part {_brackets(keys)}") from None
            try:
                put(value, row[where])
            except (ValueError, TypeError) as error:
                raise ValueError(f"observation{_brackets(keys)}: {error}") from None


def name_of(space: spaces.Space[Any]) -> str:
    """A space's everyday name."""
    return type(space).__name__


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
        return _discrete(int(space.n), int(space.start)), int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return _multi_discrete(space)
    if isinstance(space, spaces.MultiBinary | spaces.Box):
        shape = tuple(space.shape)
        scaled = isinstance(space, spaces.Box) and is_image(space)
        return _numbers(shape, scaled), int(np.prod(shape, dtype=object))
    where = f"{place} {name_of(space)}," if place else name_of(space)
    raise RequestError(f"observation space {where} is not supported (supported: {SUPPORTED})")


def _discrete(n: int, start: int) -> _Put:
    def put(value: Any, row: np.ndarray) -> None:
        index = int(value) - start
        if not 0 <= index < n:
            raise ValueError(f"{value} is outside its Discrete space")
        row.fill(0.0)
        row[index] = 1.0

    return put


def _multi_discrete(space: spaces.MultiDiscrete) -> tuple[_Put, int]:
    counts, start, shape = space.nvec.reshape(-1).astype(np.int64), space.start.reshape(-1), space.nvec.shape
    ends = np.cumsum(counts)
    firsts = ends - counts  # where each number's one-hot begins

    def put(value: Any, row: np.ndarray) -> None:
        numbers = np.asarray(value)
        _require_shape(numbers, shape)
        index = numbers.reshape(-1).astype(np.int64) - start
        if (index < 0).any() or (index >= counts).any():
            raise ValueError(f"{' '.join(str(value).split())[:200]} is outside its MultiDiscrete space")
        row.fill(0.0)
        row[firsts + index] = 1.0

    return put, int(sum(counts.tolist()))


def _numbers(shape: tuple[int, ...], scaled: bool) -> _Put:
    def put(value: Any, row: np.ndarray) -> None:
        numbers = np.asarray(value)
        _require_shape(numbers, shape)
        row[:] = numbers.reshape(-1)
        if scaled:
            row /= np.float32(255)

    return put


def _require_shape(numbers: np.ndarray, shape: tuple[int, ...]) -> None:
    if numbers.shape != shape:  # NumPy would spread a smaller one over the row without a word
        raise ValueError(f"has shape {numbers.shape}, its space {shape}")
