"""When and how far the target network follows the online one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from rltrain.config.schema import TargetUpdateConfig

Count = TypeVar("Count", int, np.ndarray)


class TargetUpdate:
    """theta^- <- tau theta + (1 - tau) theta^-, every `period` of `unit`; a hard update is tau = 1.

    Units: `env_steps` and `gradient_steps` are due as the count reaches a multiple of the period (period, 2 period,
    ...); `episodes` at the end of episodes 0, period, 2 period, ..., counted from 0.
    """

    def __init__(self, config: TargetUpdateConfig) -> None:
        self.period = config.period
        self.unit = config.unit
        self.tau = 1.0 if config.name == "hard" else config.tau

    @property
    def every_gradient_step(self) -> bool:
        """Whether the target follows each gradient step: then it is part of it."""
        return self.unit == "gradient_steps" and self.period == 1

    def due_at_gradient_step(self, gradient_steps: int) -> int:
        """How many updates are due (0 or 1) after a gradient step, given the count that includes it."""
        return int(self.unit == "gradient_steps" and gradient_steps % self.period == 0)

    def due_by(self, env_steps: Count) -> Count:
        """Updates due by environment steps once `env_steps` of them have been made; of arrays elementwise."""
        return env_steps // self.period if self.unit == "env_steps" else 0 * env_steps

    def due_between(self, env_steps: tuple[int, int], episodes: tuple[int, int]) -> int:
        """How many updates are due after a vector step and its gradient steps, given the counts (before, after)."""
        if self.unit == "episodes":
            return -(-episodes[1] // self.period) - -(-episodes[0] // self.period)
        return self.due_by(env_steps[1]) - self.due_by(env_steps[0])


def polyak(target_params: Tensor, params: Tensor, tau: Tensor) -> Tensor:
    """tau theta + (1 - tau) theta^-; tau 1 copies exactly. Lillicrap et al. 2016, algorithm 1."""
    return torch.lerp(target_params, params, tau)


def move_targets_(target_params: Tensor, params: Tensor, updates: Sequence[TargetUpdate], due: Sequence[int]) -> None:
    """Moves each member's target as often as is due for it, in place: both tensors [P] for one member, else [M, P]."""
    for turn in range(max(due)):
        tau = [update.tau if count > turn else 0.0 for update, count in zip(updates, due, strict=True)]
        of_member = torch.tensor(tau, dtype=params.dtype, device=params.device)  # [M]
        with torch.no_grad():
            target_params.copy_(polyak(target_params, params, of_member if len(due) == 1 else of_member.unsqueeze(1)))
