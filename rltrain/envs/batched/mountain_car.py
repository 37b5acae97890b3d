"""Gymnasium's MountainCar-v0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rltrain.envs.batched.environment import Array, UniformStart, between

_LEFT_END, _RIGHT_END, _GOAL = -1.2, 0.6, 0.5
_LARGEST_SPEED = 0.07
_FORCE = 0.001
_GRAVITY = 0.0025


@dataclass(frozen=True)
class MountainCar(UniformStart):
    """State position, velocity; actions push left, none, push right. Moore (1990), PhD thesis, Cambridge."""

    goal_velocity: float = 0

    start_draws: ClassVar[int] = 1

    def from_uniform(self, uniform: np.ndarray) -> np.ndarray:
        return np.stack((between(-0.6, -0.4, uniform[0]), 0.0 * uniform[0]))

    def step(self, xp: Any, state: Array, action: Array) -> tuple[Array, Array, Array]:
        position, velocity = state  # each [L]
        force = (action - 1) * (_FORCE * xp.ones_like(position))
        velocity = velocity + (force + xp.cos(3 * position) * -_GRAVITY)
        velocity = xp.clip(velocity, -_LARGEST_SPEED, _LARGEST_SPEED)
        position = xp.clip(position + velocity, _LEFT_END, _RIGHT_END)
        velocity = xp.where((position == _LEFT_END) & (velocity < 0), 0.0 * velocity, velocity)
        terminated = (position >= _GOAL) & (velocity >= self.goal_velocity)
        return xp.stack((position, velocity)), -xp.ones_like(position), terminated

    def observe(self, xp: Any, state: Array) -> Array:
        return state
