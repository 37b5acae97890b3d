"""Gymnasium's Acrobot-v1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rltrain.envs.batched.environment import Array, UniformStart, between

_DT = 0.2  # s between two states
_LENGTH, _CENTRE = 1.0, 0.5  # m, of either link; where its mass is
_MASS = _INERTIA = 1.0  # kg, kg m^2, of either link
_GRAVITY = 9.8  # m/s^2
_LARGEST_SPEEDS = 4 * math.pi, 9 * math.pi  # rad/s


@dataclass(frozen=True)
class Acrobot(UniformStart):
    """State two angles [rad] and their velocities; the actions are torques -1, 0, 1 on the joint between the links.

    Sutton & Barto (2018), "Reinforcement Learning", the equations of the book; Runge-Kutta of fourth order.
    """

    start_draws: ClassVar[int] = 4

    def from_uniform(self, uniform: np.ndarray) -> np.ndarray:
        return between(-0.1, 0.1, uniform).astype(np.float32)

    def step(self, xp: Any, state: Array, action: Array) -> tuple[Array, Array, Array]:
        torque = action - 1.0
        k1 = _derivative(xp, state, torque)
        k2 = _derivative(xp, state + _DT / 2.0 * k1, torque)
        k3 = _derivative(xp, state + _DT / 2.0 * k2, torque)
        k4 = _derivative(xp, state + _DT * k3, torque)
        moved = state + _DT / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4)
        (theta1, theta2), (speed1, speed2) = _wrap(moved[:2]), moved[2:]
        speed1, speed2 = (xp.clip(s, -m, m) for s, m in zip((speed1, speed2), _LARGEST_SPEEDS, strict=True))
        terminated = -xp.cos(theta1) - xp.cos(theta2 + theta1) > 1.0
        reward = xp.where(terminated, 0.0 * theta1, -xp.ones_like(theta1))
        return xp.stack((theta1, theta2, speed1, speed2)), reward, terminated

    def observe(self, xp: Any, state: Array) -> Array:
        theta1, theta2, speed1, speed2 = state
        return xp.stack((xp.cos(theta1), xp.sin(theta1), xp.cos(theta2), xp.sin(theta2), speed1, speed2))


def _wrap(angle: Array) -> Array:
    """Angles [..., L] in -pi..pi. Of four million legal states a step leads to angles up to 9.5 pi, five turns away."""
    for _ in range(6):
        if isinstance(angle, np.ndarray) and not (np.abs(angle) > math.pi).any():
            break  # most steps turn no link round; a compiled program cannot ask, and need not
        angle = angle - 2 * math.pi * (angle > math.pi) + 2 * math.pi * (angle < -math.pi)
    return angle


def _derivative(xp: Any, state: Array, torque: Array) -> Array:
    """d state / dt [4, L], in the order of Gymnasium's operations.

    float_power is the C library's pow, as Gymnasium's scalar ** 2 is: a square differs in the last bit, and the motion
    is chaotic.
    """
    m1 = m2 = _MASS
    l1, lc1, lc2 = _LENGTH, _CENTRE, _CENTRE
    i1 = i2 = _INERTIA
    g = _GRAVITY
    theta1, theta2, dtheta1, dtheta2 = state
    cos2, sin2 = xp.cos(theta2), xp.sin(theta2)
    d1 = m1 * lc1**2 + m2 * (l1**2 + lc2**2 + 2 * l1 * lc2 * cos2) + i1 + i2
    d2 = m2 * (lc2**2 + l1 * lc2 * cos2) + i2
    phi2 = m2 * lc2 * g * xp.cos(theta1 + theta2 - math.pi / 2.0)
    phi1 = (
        -m2 * l1 * lc2 * xp.float_power(dtheta2, 2) * sin2
        - 2 * m2 * l1 * lc2 * dtheta2 * dtheta1 * sin2
        + (m1 * lc1 + m2 * l1) * g * xp.cos(theta1 - math.pi / 2)
        + phi2
    )
    ddtheta2 = (torque + d2 / d1 * phi1 - m2 * l1 * lc2 * xp.float_power(dtheta1, 2) * sin2 - phi2) / (
        m2 * lc2**2 + i2 - xp.float_power(d2, 2) / d1
    )
    ddtheta1 = -(d2 * ddtheta2 + phi1) / d1
    return xp.stack((dtheta1, dtheta2, ddtheta1, ddtheta2))
