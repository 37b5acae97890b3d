"""Gymnasium spaces seen from an agent, and the way of numbers between the two.

Observations: Box of any shape and kind of number, Discrete, and what `flatten.py` makes one vector of: MultiDiscrete,
MultiBinary, Dict, Tuple. Actions: Discrete, MultiDiscrete, MultiBinary and floating-point Box. Everything else is
refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from rltrain.envs.flatten import MOST_NUMBERS, Flattener, name_of
from rltrain.envs.observed import LARGEST, Check, NotOfSpace, is_image, make_take, needs_float64
from rltrain.errors import RequestError
from rltrain.types import ActionSpec, ObservationSpec

_ACTIONS = "(supported: Discrete, MultiDiscrete, MultiBinary, Box of floats)"
ActionTransform = Callable[[np.ndarray], np.ndarray]


def observation_spec(space: spaces.Space[Any]) -> ObservationSpec:
    """The observations of `space`: Discrete from 0, images (uint8 of the whole range) as uint8, bool Boxes as bool,
    every other Box as floats of its shape, and all else as one vector of floats (see `flatten.py`). Floats are
    float32, or float64 where the space has numbers that float32 lacks: `env.wrappers` take these, an agent float32.

    Raises:
        RequestError: the space is not supported, or has no number, or too many.
    """
    if isinstance(space, spaces.Discrete):
        if space.n > MOST_NUMBERS:
            raise RequestError(f"observation space {space} has more than {MOST_NUMBERS:,} states")
        return ObservationSpec("discrete", (), "int64", int(space.n))
    if isinstance(space, spaces.Box):
        if 0 in space.shape:
            raise RequestError(f"observation space {space} holds no number")
        if int(np.prod(space.shape, dtype=object)) > MOST_NUMBERS:
            raise RequestError(f"observation space Box of shape {space.shape} has more than {MOST_NUMBERS:,} numbers")
        low, high = _bounds(space)
        return ObservationSpec("box", tuple(space.shape), _box_dtype(space), low=low, high=high)
    flattener = Flattener(space)
    return ObservationSpec("box", (flattener.size,), flattener.dtype)


def _box_dtype(space: spaces.Box) -> str:
    if is_image(space):
        return "uint8"
    if space.dtype == np.bool_:
        return "bool"
    return "float64" if needs_float64(space) else "float32"


class ObservationWriter:
    """Writes observations of a space into rows of the dtype and shape of its `observation_spec`.

    Attributes:
        flattens: whether the space has parts that become one vector.
        plain_dtype: of arrays whose numbers go into a row as they are; None where the space is no Box.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        self._spec = observation_spec(space)
        self.flattens = not isinstance(space, spaces.Box | spaces.Discrete)
        self.plain_dtype = np.dtype(space.dtype) if isinstance(space, spaces.Box) else None
        self._flattener = Flattener(space) if self.flattens else None
        self._take = None if self.flattens else make_take(space)

    def write(self, observation: Any, row: np.ndarray, check: Check) -> None:
        """observation -> row, a view.

        Raises:
            NotOfSpace: it is not of this space; the text begins with `observation`.
        """
        try:
            if self._flattener is not None:
                self._flattener.write(observation, row, check)
            elif self._take is not None:
                row[...] = self._take(observation, check)
        except NotOfSpace as error:
            text = str(error)
            raise NotOfSpace(f"observation{text}" if text.startswith("[") else f"observation {text}") from None

    def row(self, observation: Any) -> np.ndarray:
        """The same as a fresh array; raises NotOfSpace too."""
        row = np.empty(self._spec.shape, self._spec.dtype)
        self.write(observation, row, Check.RANGE)
        return row

    def part_of(self, number: int) -> str:
        """The part that a number of a row belongs to, as one writes it behind `observation`; nothing where there are
        no parts."""
        return "" if self._flattener is None else self._flattener.part_of(number)


def action_spec(space: spaces.Space[Any]) -> ActionSpec:
    """An agent's view of `space`; `low` and `high` are float32, infinite where the environment has no bound.

    Raises:
        RequestError: the space is of another kind, empty, or has too many actions.
    """
    if isinstance(space, spaces.Discrete):
        if space.n > MOST_NUMBERS:
            raise RequestError(f"action space {space} has more than {MOST_NUMBERS:,} actions")
        return ActionSpec("discrete", (), int(space.n))
    if not isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
        raise RequestError(f"action space {name_of(space)} is not supported {_ACTIONS}")
    if 0 in space.shape:
        raise RequestError(f"action space {space} holds no number")
    shape = tuple(space.shape)
    if not isinstance(space, spaces.Box):
        sizes = space.nvec.reshape(-1).tolist() if isinstance(space, spaces.MultiDiscrete) else [2] * math.prod(shape)
        if sum(sizes) > MOST_NUMBERS:
            raise RequestError(f"action space {name_of(space)} has more than {MOST_NUMBERS:,} actions in all")
        return ActionSpec("multi_discrete", shape, sizes=tuple(sizes))
    if not np.issubdtype(space.dtype, np.floating):
        raise RequestError(f"action space Box of {space.dtype} is not supported {_ACTIONS}")
    low, high = _bounds(space)
    return ActionSpec("box", shape, low=low.astype(np.float32), high=high.astype(np.float32))


def make_action_transform(space: spaces.Space[Any]) -> ActionTransform:
    """The function from the agent's actions [N, *action] to the environments' own, one per environment.

    Discrete and MultiDiscrete: 0..n-1 becomes start..start+n-1. Box: where both bounds of a dimension are finite, -1..1
    spans them; elsewhere the agent's number is the environment's; both are clipped to what bound there is. The rows are
    a fresh array of the space's dtype, so an environment that writes into its action harms nobody.
    """
    if isinstance(space, spaces.Discrete):
        start = int(space.start)

        return lambda action: action + start if start else action

    scale, centre, low, high = action_limits(space)
    dtype = space.dtype

    def to_array(action: np.ndarray) -> np.ndarray:
        wanted = np.asarray(action, np.float64) * scale + centre
        within: np.ndarray = np.minimum(np.maximum(wanted, low), high)
        return within.astype(dtype)

    return to_array


def action_limits(space: spaces.Space[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """scale, centre, low, high, each float64 [*action]: the environment's action is `a * scale + centre`, clipped."""
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        first = np.asarray(getattr(space, "start", 0), np.float64) + np.zeros(space.shape)
        last = first + (space.nvec - 1.0 if isinstance(space, spaces.MultiDiscrete) else 1.0)
        return np.ones(space.shape), first, first, last
    assert isinstance(space, spaces.Box)
    low, high = _bounds(space)
    bounded = np.isfinite(low) & np.isfinite(high)
    with np.errstate(invalid="ignore"):  # inf - inf, in the branch that is not taken
        scale = np.where(bounded, (high - low) / 2, 1.0)
        centre = np.where(bounded, (high + low) / 2, 0.0)
    return scale, centre, low, high


def to_env_action(space: spaces.Space[Any], action: np.ndarray) -> Any:
    """One action of the agent as the environment takes it (see `make_action_transform`)."""
    chosen = make_action_transform(space)(np.asarray(action)[None])[0, ...]  # an array, also where it has no axes
    return int(chosen) if isinstance(space, spaces.Discrete) else chosen


def from_env_observation(space: spaces.Space[Any], observation: Any) -> np.ndarray:
    """One observation as `observation_spec` says, a fresh array.

    Raises:
        ValueError: it is not of this space.
    """
    return ObservationWriter(space).row(observation)


def _bounds(space: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    # Environments write "unbounded" as inf or as the largest float; 2 * 3.4e38 is no range to scale -1..1 onto.
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    return np.where(low <= -LARGEST, -np.inf, low), np.where(high >= LARGEST, np.inf, high)
