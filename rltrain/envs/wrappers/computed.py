"""Wrappers that are formulas, which NumPy computes on the host and torch inside a program on the agent's device."""

from __future__ import annotations

from typing import Any

import numpy as np

from rltrain.envs.wrappers.wrapper import Wrapper, WrapperContext
from rltrain.types import ObservationSpec

Kept = dict[str, Any]
"""Values that a wrapper computes with beside observations and rewards, by name: arrays of NumPy, or tensors."""


class Computed(Wrapper):
    """Changes nothing; subclasses override `begun`, `stepped` and `rewarded`, the pure forms of `begin`, `step` and
    `reward`, which compute with `xp`, NumPy or torch, and return what they make and `kept` as it is afterwards.

    Attributes:
        in_program: whether torch computes them too. A subclass says so itself; it is not inherited.
    """

    in_program = False

    def __init__(self, config: Any, spec: ObservationSpec, context: WrapperContext) -> None:
        super().__init__(config, spec, context)
        self.kept: Kept = {}

    def begun(self, xp: Any, kept: Kept, obs: Any, lanes: Any) -> tuple[Any, Kept]:
        return obs, kept

    def stepped(self, xp: Any, kept: Kept, obs: Any, lanes: Any) -> tuple[Any, Kept]:
        return obs, kept

    def rewarded(self, xp: Any, kept: Kept, reward: Any, lanes: Any) -> tuple[Any, Kept]:
        return reward, kept

    def begin(self, obs: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        begun, self.kept = self.begun(np, self.kept, obs, lanes)
        return begun  # type: ignore[no-any-return]

    def step(self, obs: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        stepped, self.kept = self.stepped(np, self.kept, obs, lanes)
        return stepped  # type: ignore[no-any-return]

    def reward(self, reward: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        rewarded, self.kept = self.rewarded(np, self.kept, reward, lanes)
        return rewarded  # type: ignore[no-any-return]

    @property
    def changes_observations(self) -> bool:
        return type(self).stepped is not Computed.stepped


def computes_in_torch(wrapper: type) -> bool:
    """Whether a program on the device can do what this class of wrappers does."""
    return bool(vars(wrapper).get("in_program", False))


def cast(xp: Any, x: Any, dtype: str) -> Any:
    """`x` as another type of numbers."""
    return x.astype(dtype) if xp is np else x.to(getattr(xp, dtype))


def at_least(xp: Any, x: Any, low: float) -> Any:
    """max(x, low); numpy.clip takes ten times as long for a few numbers."""
    return np.maximum(x, low) if xp is np else x.clamp(min=low)
