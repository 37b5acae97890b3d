"""Random actions that are held for a while: temporally extended epsilon-greedy exploration (Dabney et al., 2021)."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

LONGEST = 1000
"""Steps that an action is held at most; the paper leaves that to the environment's episodes."""


def zeta_quantile(uniform: np.ndarray, exponent: float) -> np.ndarray:
    """Durations n = 1, 2, ..., LONGEST with probabilities proportional to n^-exponent, of numbers uniform on [0, 1)."""
    return 1 + np.searchsorted(_cumulative(exponent), uniform, side="right")


@functools.lru_cache(maxsize=256)
def _cumulative(exponent: float) -> np.ndarray:
    """P(n <= k) for k = 1 to LONGEST - 1; beyond the last nothing but LONGEST is left."""
    weights = np.arange(1, LONGEST + 1, dtype=np.float64) ** -exponent
    return np.asarray((weights.cumsum() / weights.sum())[:-1])


class HeldActions:
    """Random actions that L environments hold for several steps; the end of an episode does not end one.

    Attributes:
        left: [L] int64, the steps for which each still holds its action.
        action: [L] int64.
    """

    def __init__(self, lanes: int) -> None:
        self.left, self.action = np.zeros(lanes, np.int64), np.zeros(lanes, np.int64)

    def state_dict(self, lanes: slice) -> list[list[int]]:
        """Of some environments: the steps that are left, and the actions."""
        return [self.left[lanes].tolist(), self.action[lanes].tolist()]

    def load_state_dict(self, state: Sequence[Sequence[int]], lanes: slice, num_actions: int) -> None:
        """Continues with the `state` of some environments.

        Raises:
            ValueError: it holds no such steps or actions.
        """
        left, action = np.array(state, np.int64)
        if not ((left >= 0) & (left <= LONGEST) & (action >= 0) & (action < num_actions)).all():
            raise ValueError("held_actions: out of range")
        self.left[lanes], self.action[lanes] = left, action

    def hold(self, explore: np.ndarray, action: np.ndarray, duration: np.ndarray) -> None:
        """Applies held actions to the fresh draws of some steps, each [steps, L]. Where an environment holds none,
        `explore` begins one, `action` for `duration` steps; where it holds one, that one goes on and the fresh draws
        are dropped."""
        for now, drawn, steps in zip(explore, action, duration, strict=True):
            begins = now & (self.left == 0)
            self.left[begins], self.action[begins] = steps[begins], drawn[begins]
            now[:] = self.left > 0
            drawn[:] = self.action
            self.left -= now
