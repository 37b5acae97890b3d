"""When and how far the target network follows the online one."""

from __future__ import annotations

import torch
from torch import Tensor

from rltrain.config.schema import TargetUpdateConfig


class TargetUpdate:
    """theta^- <- tau theta + (1 - tau) theta^-, every `period` of `unit`; a hard update is tau = 1.

    Units: `env_steps` and `gradient_steps` are due as the count reaches a multiple of the period (period, 2 period,
    ...); `episodes` at the end of episodes 0, period, 2 period, ..., counted from 0.
    """

    def __init__(self, config: TargetUpdateConfig) -> None:
        self._period = config.period
        self._unit = config.unit
        self._tau = 1.0 if config.name == "hard" else config.tau

    def after_gradient_step(self, target_params: Tensor, params: Tensor, gradient_steps: int) -> None:
        """Call after each gradient step, with the count that includes it."""
        if self._unit == "gradient_steps" and gradient_steps % self._period == 0:
            polyak_(target_params, params, self._tau)

    def after_env_steps(
        self, target_params: Tensor, params: Tensor, env_steps: tuple[int, int], episodes: tuple[int, int]
    ) -> None:
        """Call once per vector step, after its gradient steps, with the counts (before it, after it)."""
        if self._unit == "env_steps":
            due = env_steps[1] // self._period - env_steps[0] // self._period
        elif self._unit == "episodes":
            due = -(-episodes[1] // self._period) - -(-episodes[0] // self._period)
        else:
            due = 0
        for _ in range(due):
            polyak_(target_params, params, self._tau)


def polyak_(target_params: Tensor, params: Tensor, tau: float) -> None:
    """theta^- <- tau theta + (1 - tau) theta^-, in place; tau 1 copies exactly. Lillicrap et al. 2016, algorithm 1."""
    with torch.no_grad():
        target_params.lerp_(params, tau)
