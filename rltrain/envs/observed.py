"""Values of spaces as an environment returns them: which are of their space, and the numbers of those that are.

NumPy casts without a word: 0.9 becomes the byte 0, 300 becomes 44, None becomes NaN. Nothing here does.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from math import isfinite
from typing import Any

import numpy as np
from gymnasium import spaces

from rltrain.envs.returned import Mistake

LARGEST = float(np.finfo(np.float32).max)
_SHORT = 64  # up to so many numbers Python sums sooner than NumPy
INTEGERS, FLOATING = "iub", "fiub"  # kinds of dtype that an integer, and a floating-point number, may come in
_TOLERANCE = 1e-5  # of a float's bound, relative where that is above 1: bounds and numbers are rounded apart


EVERY = 64
"""Steps 0 and 1, 64 and 65, ... of an episode are looked at more closely: `Check.RANGE`."""


class NotOfSpace(Mistake):
    """An observation that is not of its space, in words that follow on its name."""


class Check(IntEnum):
    """How closely an observation is looked at. Each takes longer than the one before, and contains it."""

    KIND = 0
    """At every step: the kind of number, the shape, and whatever a cast would change."""
    RANGE = 1
    """Now and then: the ranges of integers too."""
    ALL = 2
    """At resets: the bounds of floats too, which physics may leave a little later on, and parts that no space has."""


Take = Callable[[Any, Check], Any]
"""(what the environment returned, how closely) -> its numbers; raises NotOfSpace."""


def is_image(space: spaces.Box) -> bool:
    """Whether the numbers are bytes that use their whole range: only those mean a share of 255."""
    return bool(space.dtype == np.uint8 and (space.low == 0).all() and (space.high == 255).all())


def needs_float64(space: spaces.Space[Any]) -> bool:
    """Whether it is a Box whose dtype has numbers that float32 lacks."""
    return isinstance(space, spaces.Box) and not np.can_cast(space.dtype, np.float32)


def fits_float32(numbers: np.ndarray) -> bool:
    """Whether all of them are finite, and stay so in float32."""
    if numbers.size > _SHORT:
        return bool((np.isfinite(numbers) if numbers.dtype == np.float32 else np.abs(numbers) <= LARGEST).all())
    values = numbers.ravel().tolist()
    if not isfinite(sum(values)):  # nothing finite comes back from inf or NaN, which max and min overlook
        return False
    return numbers.dtype == np.float32 or not values or (max(values) <= LARGEST and min(values) >= -LARGEST)


def make_take(space: spaces.Space[Any]) -> Take:
    """Of Box and MultiBinary: an array of the space's shape. Of Discrete: a Python int from 0. Of MultiDiscrete: int64
    of the space's shape, each from 0."""
    if isinstance(space, spaces.Discrete):
        return _discrete(int(space.n), int(space.start))
    if isinstance(space, spaces.MultiDiscrete):
        return _multi_discrete(space)
    if isinstance(space, spaces.MultiBinary):
        return _integers(tuple(space.shape), np.dtype(np.int8), 0, 1, always=True)
    assert isinstance(space, spaces.Box)
    if space.dtype.kind == "f":
        return _floats(space)
    if space.dtype == np.bool_:
        return _integers(space.shape, space.dtype, 0, 1, always=True)
    return _integers(space.shape, space.dtype, space.low, space.high, always=is_image(space))


def make_kind_check(space: spaces.Space[Any]) -> Callable[[np.ndarray], None]:
    """Of Box and Discrete: raises NotOfSpace for numbers of any shape that a cast to the kind of number that is kept
    would change. Whether they are finite is another matter."""
    kinds = FLOATING if np.dtype(space.dtype).kind == "f" else INTEGERS
    bounds: tuple[int, int] | None = None
    whole: np.dtype[Any] | None = np.dtype(space.dtype)
    if isinstance(space, spaces.Discrete):
        bounds, whole = (int(space.start), int(space.start + space.n - 1)), None
    elif space.dtype == np.bool_:
        bounds = (0, 1)
    elif isinstance(space, spaces.Box) and is_image(space):
        bounds = (0, 255)

    def check(numbers: np.ndarray) -> None:
        if numbers.dtype.kind not in kinds:
            raise NotOfSpace(f"is {numbers.dtype}: its space holds {space.dtype}")
        if bounds is not None and numbers.dtype != whole:
            _require_range(numbers, *bounds)

    return check


def _discrete(n: int, start: int) -> Take:
    holds = f"a whole number from {start} to {start + n - 1}"

    def take(value: Any, check: Check) -> int:
        number = value if type(value) is int else int(_array(value, INTEGERS, (), holds))
        if not 0 <= number - start < n:
            raise NotOfSpace(f"is {number}: its space holds {holds}")
        return number - start

    return take


def _multi_discrete(space: spaces.MultiDiscrete) -> Take:
    start = space.start.astype(np.int64)
    low, high = start, start + space.nvec.astype(np.int64) - 1

    def take(value: Any, check: Check) -> np.ndarray:
        numbers = _array(value, INTEGERS, low.shape, "whole numbers")
        _require_range(numbers, low, high)
        return numbers.astype(np.int64) - start

    return take


def _integers(shape: tuple[int, ...], dtype: np.dtype, low: Any, high: Any, always: bool) -> Take:
    """always: what comes after can hold no number beyond the bounds."""
    whole = [(np.dtype(np.bool_), 0, 1)]
    if dtype.kind in "iu":
        whole.append((dtype, np.iinfo(dtype).min, np.iinfo(dtype).max))
    within = tuple(of for of, first, last in whole if np.all(low <= first) and np.all(high >= last))

    def take(value: Any, check: Check) -> np.ndarray:
        numbers = _array(value, INTEGERS, shape, str(dtype))
        if (always or check >= Check.RANGE or numbers.dtype != dtype) and numbers.dtype not in within:
            _require_range(numbers, low, high)
        return numbers

    return take


def _floats(space: spaces.Box) -> Take:
    shape, dtype = tuple(space.shape), str(space.dtype)
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    bounded = bool(np.isfinite(low).any() or np.isfinite(high).any())
    lowest, highest = low - _TOLERANCE * np.maximum(1.0, abs(low)), high + _TOLERANCE * np.maximum(1.0, abs(high))

    def take(value: Any, check: Check) -> np.ndarray:
        numbers = _array(value, FLOATING, shape, dtype)
        # float32 is looked at later, for all environments at once.
        if numbers.dtype.kind == "f" and (numbers.dtype.itemsize > 4 or check) and not fits_float32(numbers):
            raise not_finite(numbers)
        if bounded and check >= Check.ALL and (beyond := (numbers < lowest) | (numbers > highest)).any():
            raise _out_of_range(numbers, beyond, low, high)
        return numbers

    return take


def _array(value: Any, kinds: str, shape: tuple[int, ...], holds: str) -> np.ndarray:
    rule = f"its space holds {holds}" + (f" of shape {shape}" if shape else "")
    try:
        numbers = np.asarray(value)
    except (ValueError, TypeError, RuntimeError, OverflowError):
        raise NotOfSpace(f"is {_shown(value)}: {rule}") from None
    if numbers.dtype.kind not in kinds:
        kind = f"{numbers.dtype} " if isinstance(value, np.ndarray | np.generic) else ""
        raise NotOfSpace(f"is {kind}{_shown(value)}: {rule}")
    if numbers.shape != shape:  # NumPy would spread a smaller one over the row without a word
        raise NotOfSpace(f"has shape {numbers.shape}, its space {shape}")
    return numbers


def not_finite(numbers: np.ndarray) -> NotOfSpace:
    """The complaint about numbers that are not `fits_float32`."""
    why = "holds more than the largest float32" if np.isfinite(numbers).all() else "is not finite"
    return NotOfSpace(f"{why}: {_shown(numbers)}")


def _require_range(numbers: np.ndarray, low: Any, high: Any) -> None:
    beyond = (numbers < low) | (numbers > high)
    if beyond.any():
        raise _out_of_range(numbers, beyond, low, high)


def _out_of_range(numbers: np.ndarray, beyond: np.ndarray, low: Any, high: Any) -> NotOfSpace:
    place = tuple(np.argwhere(beyond)[0].tolist())
    lowest, highest = (np.broadcast_to(bound, numbers.shape)[place] for bound in (low, high))
    where = f" at {list(place)}" if place else ""
    return NotOfSpace(f"holds {numbers[place]}{where}: its space goes from {lowest} to {highest} there")


def _shown(value: Any) -> str:
    text = str(value) if isinstance(value, np.ndarray | np.generic) else repr(value)
    return " ".join(text.split())[:200]
