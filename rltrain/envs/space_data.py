"""Spaces as plain data, for a checkpoint's manifest: a policy can be used without making its environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from rltrain.errors import CheckpointError


def space_to_plain(space: spaces.Space[Any]) -> dict[str, Any]:
    """A Box or Discrete space as plain data; bounds as arrays, infinities included."""
    if isinstance(space, spaces.Discrete):
        return {"kind": "discrete", "n": int(space.n), "start": int(space.start)}
    assert isinstance(space, spaces.Box)
    low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
    return {
        "kind": "box",
        "dtype": str(np.dtype(space.dtype)),
        "low": _bound(low),
        "high": _bound(high),
        "shape": list(space.shape),
    }


def space_from_plain(plain: Mapping[str, Any]) -> spaces.Space[Any]:
    """The inverse of `space_to_plain`.

    Raises:
        CheckpointError: no such description.
    """
    try:
        if plain["kind"] == "discrete":
            return spaces.Discrete(plain["n"], start=plain["start"])
        if plain["kind"] == "box" and np.dtype(plain["dtype"]).kind in "fiub":
            dtype, shape = np.dtype(plain["dtype"]), tuple(plain["shape"])
            low, high = (_array(plain[name], shape).astype(dtype) for name in ("low", "high"))
            return spaces.Box(low, high, shape, dtype.type)
    except (KeyError, TypeError, ValueError, AssertionError, OverflowError, MemoryError) as error:
        raise CheckpointError(f"the manifest's space is malformed: {str(error)[:200]}") from error
    raise CheckpointError(f"the manifest's space is malformed: {str(plain)[:200]}")


def _bound(values: np.ndarray) -> Any:
    """One number where all are equal (an image's bounds), else nested lists; text where infinite, which JSON lacks."""
    if values.size and (values == values.flat[0]).all():
        return _number(float(values.flat[0]))
    return [_number(value) for value in values.reshape(-1).tolist()]


def _number(value: float) -> float | str:
    return value if np.isfinite(value) else str(value)


def _array(plain: Any, shape: tuple[int, ...]) -> np.ndarray:
    if isinstance(plain, list):
        return np.array([float(value) for value in plain]).reshape(shape)
    return np.full(shape, float(plain))
