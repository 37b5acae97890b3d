"""Gymnasium spaces seen from an agent, and the way of numbers between the two.

Supported: Box and Discrete observations, Discrete and floating-point Box actions. Everything else is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from rltrain.errors import RequestError
from rltrain.types import ActionSpec, ObservationSpec

# Environments write "unbounded" as inf or as the largest float; 2 * 3.4e38 is no range to scale -1..1 onto.
_LARGEST = float(np.finfo(np.float32).max)

ActionTransform = Callable[[np.ndarray], np.ndarray]


def observation_spec(space: spaces.Space[Any]) -> ObservationSpec:
    """What an agent sees of `space`: float and integer boxes as float32, uint8 boxes as uint8, Discrete from 0.

    Raises:
        RequestError: the space is neither Box nor Discrete, or an empty Box.
    """
    if isinstance(space, spaces.Discrete):
        return ObservationSpec("discrete", (), "int64", int(space.n))
    if not isinstance(space, spaces.Box):
        raise RequestError(f"observation space {_name(space)} is not supported (supported: Box, Discrete)")
    if 0 in space.shape:
        raise RequestError(f"observation space {space} holds no number")
    return ObservationSpec("box", tuple(space.shape), "uint8" if space.dtype == np.uint8 else "float32")


def action_spec(space: spaces.Space[Any]) -> ActionSpec:
    """What an agent sees of `space`; `low` and `high` are float32, infinite where the environment has no bound.

    Raises:
        RequestError: the space is neither Discrete nor a floating-point Box, or an empty Box.
    """
    if isinstance(space, spaces.Discrete):
        return ActionSpec("discrete", (), int(space.n))
    if not isinstance(space, spaces.Box):
        raise RequestError(f"action space {_name(space)} is not supported (supported: Discrete, Box)")
    if not np.issubdtype(space.dtype, np.floating):
        raise RequestError(f"action space Box of {space.dtype} is not supported (supported: Discrete, Box of floats)")
    if 0 in space.shape:
        raise RequestError(f"action space {space} holds no number")
    low, high = _bounds(space)
    return ActionSpec("box", tuple(space.shape), 0, low.astype(np.float32), high.astype(np.float32))


def make_action_transform(space: spaces.Space[Any]) -> ActionTransform:
    """The function from the agent's actions [N, *action] to the environments' own, one per environment.

    Discrete: 0..n-1 becomes start..start+n-1. Box: where both bounds of a dimension are finite, -1..1
    spans them; elsewhere the agent's number is the environment's; both are clipped to what bound there is. The rows are
    a fresh array of the space's dtype, so an environment that writes into its action harms nobody.
    """
    if isinstance(space, spaces.Discrete):
        start = int(space.start)

        return lambda action: action + start if start else action

    assert isinstance(space, spaces.Box)
    low, high = _bounds(space)
    bounded = np.isfinite(low) & np.isfinite(high)
    with np.errstate(invalid="ignore"):  # inf - inf, in the branch that is not taken
        scale = np.where(bounded, (high - low) / 2, 1.0)
        centre = np.where(bounded, (high + low) / 2, 0.0)
    dtype = space.dtype

    def to_box(action: np.ndarray) -> np.ndarray:
        wanted = np.asarray(action, np.float64) * scale + centre
        within: np.ndarray = np.minimum(np.maximum(wanted, low), high)
        return within.astype(dtype)

    return to_box


def to_env_action(space: spaces.Space[Any], action: np.ndarray) -> Any:
    """One action of the agent as the environment takes it (see `make_action_transform`)."""
    chosen = make_action_transform(space)(np.asarray(action)[None])[0]
    return int(chosen) if isinstance(space, spaces.Discrete) else chosen


def from_env_observation(space: spaces.Space[Any], observation: Any) -> np.ndarray:
    """One observation as the agent sees it, a fresh array of the spec's dtype and shape."""
    if isinstance(space, spaces.Discrete):
        return np.array(int(observation) - int(space.start), np.int64)
    return np.array(observation, observation_spec(space).dtype)


def _bounds(space: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    return np.where(low <= -_LARGEST, -np.inf, low), np.where(high >= _LARGEST, np.inf, high)


def _name(space: spaces.Space[Any]) -> str:
    return type(space).__name__
