"""When the target networks of the members follow, for one step of the loop and for many ahead."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from rltrain.config.schema import TargetUpdateConfig
from rltrain.maths.target_update import TargetUpdate, move_targets_

Due = list[int] | None
"""[M], how often each member's target is to move; None where none is."""


class MemberTargets:
    """The members differ in period and tau; the unit is theirs together.

    Attributes:
        every_gradient_step: the targets follow every gradient step: then it is the update that moves them, by `taus`.
        by_episodes: when they are due depends on which episodes have ended.
    """

    def __init__(self, configs: Sequence[TargetUpdateConfig], target_params: Tensor, params: Tensor) -> None:
        """target_params, params: [P], of a population [M, P]; the first follow the second, in place."""
        self._updates = [TargetUpdate(config) for config in configs]
        self._unit = self._updates[0].unit
        self._target_params, self._params = target_params, params
        self.every_gradient_step = all(update.every_gradient_step for update in self._updates)
        self.taus = [update.tau if self.every_gradient_step else None for update in self._updates]
        self.by_episodes = self._unit == "episodes"
        # By which all that was due has been done, each [M].
        self.seen_steps, self.seen_episodes = (np.zeros(len(self._updates), np.int64) for _ in range(2))

    @property
    def between_calls(self) -> list[int]:
        """Periods in gradient steps that end between two calls of the update."""
        by_gradient_steps = self._unit == "gradient_steps" and not self.every_gradient_step
        return [update.period for update in self._updates] if by_gradient_steps else []

    def at_calls(self, gradient_steps: np.ndarray, steps: int, calls: int, running: np.ndarray) -> list[Due]:
        """How often each target is to move after each of the next `calls` of `steps` gradient steps.

        Args:
            gradient_steps: [M], made so far.
            running: bool [M]; the targets of other members do not move.
        """
        if self.every_gradient_step:
            return [None] * calls
        updates = list(zip(self._updates, gradient_steps.tolist(), running.tolist(), strict=True))
        ahead = range(steps, (calls + 1) * steps, steps)
        return [[u.due_at_gradient_step(made + more) if runs else 0 for u, made, runs in updates] for more in ahead]

    def at_steps(self, env_steps: np.ndarray, num_envs: int, steps: int, running: np.ndarray) -> list[Due]:
        """How often each target is to move after each of the next vector `steps`, where that goes by environment steps,
        of which each member has made `env_steps` [M]. The caller moves them, and sets `seen_steps`."""
        ahead = np.arange(0, (steps + 1) * num_envs, num_envs)
        counts = np.array([u.due_by(s + ahead) for u, s in zip(self._updates, env_steps, strict=True)])
        due = np.diff(counts.T, axis=0) * running  # [steps, M]
        return [row.tolist() if row.any() else None for row in due]

    def move_since(self, env_steps: np.ndarray, episodes: np.ndarray) -> None:
        """Moves those that are due by environment steps or episodes since it was last asked, each [M]."""
        if self._unit != "gradient_steps":
            counts = (count.tolist() for count in (self.seen_steps, self.seen_episodes, env_steps, episodes))
            self.move([u.due_between((s, t), (e, f)) for u, s, e, t, f in zip(self._updates, *counts, strict=True)])
        self.seen_steps[:], self.seen_episodes[:] = env_steps, episodes

    def move(self, due: Due) -> None:
        """Moves each member's target as often as it is due, in place."""
        if due is not None:
            move_targets_(self._target_params, self._params, self._updates, due)
