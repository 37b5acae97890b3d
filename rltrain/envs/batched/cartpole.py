"""Gymnasium's CartPole-v0 and CartPole-v1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rltrain.envs.batched.environment import Array, UniformStart, between

_GRAVITY = 9.8  # m/s^2
_POLE_MASS = 0.1  # kg
_TOTAL_MASS = _POLE_MASS + 1.0  # kg, with the cart's
_LENGTH = 0.5  # m, half the pole's
_POLE_MASS_LENGTH = _POLE_MASS * _LENGTH
_FORCE = 10.0  # N
_TAU = 0.02  # s between two states
_LARGEST_ANGLE = 12 * 2 * math.pi / 360  # rad
_LARGEST_POSITION = 2.4  # m


@dataclass(frozen=True)
class CartPole(UniformStart):
    """State x [m], its velocity, the pole's angle [rad], its velocity; two actions, push left and right.

    Barto, Sutton & Anderson (1983), "Neuronlike adaptive elements that can solve difficult learning control problems".
    """

    sutton_barto_reward: bool = False  # 0, and -1 for falling, instead of 1 for every step

    start_draws: ClassVar[int] = 4

    def from_uniform(self, uniform: np.ndarray) -> np.ndarray:
        return between(-0.05, 0.05, uniform)

    def step(self, xp: Any, state: Array, action: Array) -> tuple[Array, Array, Array]:
        x, x_dot, theta, theta_dot = state  # each [L]
        force = 2 * _FORCE * action - _FORCE
        cos, sin = xp.cos(theta), xp.sin(theta)
        temp = (force + _POLE_MASS_LENGTH * xp.square(theta_dot) * sin) / _TOTAL_MASS
        theta_acc = (_GRAVITY * sin - cos * temp) / (_LENGTH * (4.0 / 3.0 - _POLE_MASS * xp.square(cos) / _TOTAL_MASS))
        x_acc = temp - _POLE_MASS_LENGTH * theta_acc * cos / _TOTAL_MASS
        state = state + _TAU * xp.stack((x_dot, x_acc, theta_dot, theta_acc))
        x, _, theta, _ = state
        terminated = (xp.abs(x) > _LARGEST_POSITION) | (xp.abs(theta) > _LARGEST_ANGLE)
        reward = xp.ones_like(x)
        if self.sutton_barto_reward:
            reward = xp.where(terminated, -reward, 0.0 * reward)
        return state, reward, terminated

    def observe(self, xp: Any, state: Array) -> Array:
        return state
