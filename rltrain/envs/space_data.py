"""Spaces as plain data, for a checkpoint's manifest: a policy can be used without making its environment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from rltrain.envs.flatten import MOST_NESTED, MOST_NUMBERS
from rltrain.errors import CheckpointError

_MOST_PARTS = 1 << 16  # of a whole space: far more than any environment has, and few enough to read


def space_to_plain(space: spaces.Space[Any]) -> dict[str, Any]:
    """A space that `observation_spec` or `action_spec` takes as plain data; bounds as arrays, infinities included."""
    if isinstance(space, spaces.Discrete):
        return {"kind": "discrete", "dtype": str(space.dtype), "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        nvec, start = space.nvec, space.start
        flat = {"nvec": nvec.reshape(-1).tolist(), "start": start.reshape(-1).tolist(), "shape": list(nvec.shape)}
        return {"kind": "multi_discrete", "dtype": str(space.dtype), **flat}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "multi_binary", "n": space.n, "shape": list(space.shape)}
    if isinstance(space, spaces.Dict):
        # Pairs, because their order is part of the space and that of a JSON object is not.
        return {"kind": "dict", "parts": [[key, space_to_plain(part)] for key, part in space.spaces.items()]}
    if isinstance(space, spaces.Tuple):
        return {"kind": "tuple", "parts": [space_to_plain(part) for part in space.spaces]}
    assert isinstance(space, spaces.Box)
    return {
        "kind": "box",
        "dtype": str(np.dtype(space.dtype)),
        "low": _bound(space.low),
        "high": _bound(space.high),
        "shape": list(space.shape),
    }


def space_from_plain(plain: Mapping[str, Any]) -> spaces.Space[Any]:
    """The inverse of `space_to_plain`; nothing is allocated before its size is known to be bearable.

    Raises:
        CheckpointError: no such description, or that of a space larger than any that is trained on.
    """
    try:
        return _Reader().space(plain, 0)
    except (KeyError, TypeError, ValueError, AssertionError, OverflowError, MemoryError, AttributeError) as error:
        raise CheckpointError(f"the manifest's space is malformed: {' '.join(str(error).split())[:200]}") from error


class _Reader:
    def __init__(self) -> None:
        self._numbers = 0
        self._parts = 0

    def space(self, plain: Mapping[str, Any], depth: int) -> spaces.Space[Any]:
        self._parts += 1
        if depth > MOST_NESTED or self._parts > _MOST_PARTS:
            raise ValueError("it has too many parts")
        kind = plain["kind"]
        if kind == "discrete":
            self._count(_whole(plain["n"]))
            # Gymnasium 1.1 knows no other dtype of Discrete, and no word for it.
            kept: Any = {} if (dtype := _integer(plain)) == np.int64 else {"dtype": dtype.type}
            return spaces.Discrete(plain["n"], start=_whole(plain["start"]), **kept)
        if kind == "multi_discrete":
            return self._multi_discrete(plain)
        if kind == "multi_binary":
            shape = self._shape(plain)
            one_number = len(shape) == 1 and not isinstance(plain.get("n"), list)  # MultiBinary(3) is not that of [3]
            return spaces.MultiBinary(shape[0] if one_number else shape)
        if kind == "dict":
            parts = [(_text(key), self.space(part, depth + 1)) for key, part in plain["parts"]]
            return spaces.Dict(parts)
        if kind == "tuple":
            return spaces.Tuple([self.space(part, depth + 1) for part in plain["parts"]])
        if kind == "box" and np.dtype(plain["dtype"]).kind in "fiub":
            dtype, shape = np.dtype(plain["dtype"]), self._shape(plain)
            low, high = (_array(plain[name], shape, dtype) for name in ("low", "high"))
            return spaces.Box(low, high, shape, dtype.type)
        raise ValueError(str(plain))

    def _multi_discrete(self, plain: Mapping[str, Any]) -> spaces.Space[Any]:
        shape, counts = self._shape(plain), [_whole(n) for n in plain["nvec"]]
        for n in counts:
            self._count(n)
        dtype = _integer(plain)
        nvec, start = (np.array(numbers, dtype).reshape(shape) for numbers in (counts, plain["start"]))
        return spaces.MultiDiscrete(nvec, dtype.type, start=start)

    def _shape(self, plain: Mapping[str, Any]) -> tuple[int, ...]:
        shape = tuple(_whole(size) for size in plain["shape"])
        if len(shape) > MOST_NESTED or any(size < 0 for size in shape):
            raise ValueError(f"shape {shape}")
        self._count(math.prod(shape))
        return shape

    def _count(self, numbers: int) -> None:
        self._numbers += numbers
        if not 0 <= numbers <= self._numbers <= 2 * MOST_NUMBERS:
            raise ValueError(f"it has {self._numbers} numbers")


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is no whole number")
    return value


def _integer(plain: Mapping[str, Any]) -> np.dtype:
    """The dtype of a space of whole numbers; files of earlier versions have none."""
    dtype = np.dtype(_text(plain.get("dtype", "int64")))
    if dtype.kind not in "iu":
        raise ValueError(f"{dtype} is no kind of whole number")
    return dtype


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"{value!r} is no text")
    return value


def _bound(values: np.ndarray) -> Any:
    """One number where all are equal (an image's bounds), else a list; text where infinite, which JSON lacks."""
    if values.size and (values == values.flat[0]).all():
        return _number(values.flat[0].item())
    return [_number(value) for value in values.reshape(-1).tolist()]


def _number(value: float) -> float | int | str:
    return int(value) if isinstance(value, int) else value if math.isfinite(value) else str(value)


def _array(plain: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    convert = float if dtype.kind == "f" else int
    if isinstance(plain, list):
        if len(plain) != math.prod(shape):
            raise ValueError(f"{len(plain)} bounds for the shape {shape}")
        return np.array([convert(value) for value in plain], dtype).reshape(shape)
    return np.full(shape, convert(plain), dtype)
