"""Gymnasium's Pendulum-v1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rltrain.envs.batched.environment import Array, UniformStart, between

_LARGEST_SPEED = 8  # rad/s
_LARGEST_TORQUE = 2.0  # N m
_DT = 0.05  # s between two states
_MASS = _LENGTH = 1.0  # kg, m


@dataclass(frozen=True)
class Pendulum(UniformStart):
    """State the angle [rad] from upright and its velocity; the action is a torque."""

    g: float = 10.0  # m/s^2

    start_draws: ClassVar[int] = 2

    def from_uniform(self, uniform: np.ndarray) -> np.ndarray:
        return np.stack((between(-np.pi, np.pi, uniform[0]), between(-1.0, 1.0, uniform[1])))

    def step(self, xp: Any, state: Array, action: Array) -> tuple[Array, Array, Array]:
        theta, theta_dot = state  # each [L]
        torque = xp.clip(action[0], -_LARGEST_TORQUE, _LARGEST_TORQUE)
        angle = (theta + math.pi) % (2 * math.pi) - math.pi
        # float_power is the C library's pow, as Gymnasium's scalar ** 2 is: a square differs in the last bit.
        cost = xp.float_power(angle, 2) + 0.1 * xp.float_power(theta_dot, 2) + 0.001 * _squared(xp, torque)
        acceleration = 3 * self.g / (2 * _LENGTH) * xp.sin(theta) + 3.0 / (_MASS * _LENGTH**2) * torque
        theta_dot = xp.clip(theta_dot + acceleration * _DT, -_LARGEST_SPEED, _LARGEST_SPEED)
        terminated = theta_dot != theta_dot  # never: what is not a number is refused anyway
        return xp.stack((theta + theta_dot * _DT, theta_dot)), -cost, terminated

    def observe(self, xp: Any, state: Array) -> Array:
        theta, theta_dot = state
        return xp.stack((xp.cos(theta), xp.sin(theta), theta_dot))


def _squared(xp: Any, torque: Array) -> Array:
    """torque ** 2 [L]; in NumPy a float32, Gymnasium's type, has the bits of the C library's powf, as its scalars have.

    No array function of NumPy has them. powf errs by far less than a tenth of a unit in the last place, so it can round
    otherwise than a square next to a tie only.
    """
    square = xp.square(torque)
    if xp is not np or torque.dtype != np.float32:
        return square
    exact = np.square(torque.astype(np.float64))
    for lane in (np.abs(exact - square) > 0.4 * np.spacing(square)).nonzero()[0]:
        square[lane] = torque[lane] ** 2
    return square
