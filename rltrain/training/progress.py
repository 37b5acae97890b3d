"""Counters of steps and episodes of all members, and when the next duty of each is due."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from rltrain.types import Episode


class Progress:
    """Counters of M members, each [M].

    Attributes:
        steps: environment steps.
        before: environment steps before the last vector step that the member took. What is due lies between the two.
        due: whether something is, which is not yet done.
        next_duty: the environment step at which something will be due next, as the member says.
        episodes: that ended.
        seconds: of training, without evaluating and saving.
        vector_steps: that all members made together.
    """

    def __init__(self, num_envs: int, most_episodes: Sequence[int | None]) -> None:
        """num_envs: of each member. most_episodes: after which something is due for each, whatever its steps."""
        members, never = len(most_episodes), np.iinfo(np.int64).max
        self._num_envs = num_envs
        self._most_episodes = np.array([never if most is None else most for most in most_episodes])
        self.next_duty = np.full(members, never)
        self.steps, self.before, self.episodes = (np.zeros(members, np.int64) for _ in range(3))
        self.due = np.zeros(members, np.bool_)
        self.seconds = np.zeros(members)
        self.vector_steps = 0

    def count(self, taken: np.ndarray, episodes: Iterable[Episode]) -> None:
        """Count environment steps `taken` [S, M] in S vector steps, and the episodes that ended in them."""
        self.vector_steps += len(taken)
        moved = taken > 0
        last = len(taken) - 1 - moved[::-1].argmax(0)  # [M], the last vector step that the member took, if it took one
        self.steps = self.steps + taken.sum(0)
        before = self.steps - np.take_along_axis(taken, last[None], 0)[0]
        self.before = np.where(moved.any(0), before, self.before)
        for episode in episodes:
            self.episodes[episode.env // self._num_envs] += 1

    def note_due(self, running: np.ndarray) -> None:
        """Marks as due those of the members `running` (bool [M]) that have come to their next duty."""
        reached = (self.steps >= self.next_duty) | (self.episodes >= self._most_episodes)
        self.due |= reached & running

    def quiet_steps(self, running: np.ndarray, save_period: int | None) -> int:
        """Vector steps after which something may be due for one of the members `running` (bool [M]), or their mean
        steps are a multiple of `save_period`, and before which neither is."""
        members = np.flatnonzero(running & ~self.due)
        if not len(members):
            return 1
        steps = self.next_duty[members] - self.steps[members]
        episodes = self._most_episodes[members] - self.episodes[members]  # each environment ends one at most
        soonest = -(-int(min(steps.min(), episodes.min())) // self._num_envs)
        if save_period is None:
            return soonest
        total = (mean_steps(self.steps) // save_period + 1) * save_period * len(running)  # of all members' steps
        return min(soonest, -(-(total - int(self.steps.sum())) // (self._num_envs * int(running.sum()))))

    def moment(self, member: int) -> tuple[int, bool]:
        """Names a state of the member: vector steps, and whether something is due."""
        return self.vector_steps, bool(self.due[member])

    def load(self, member: int, step: int, duties_from: int | None, episodes: int, seconds: float) -> None:
        """The counters of a checkpoint; duties_from: `before`, where something was due."""
        self.steps[member], self.episodes[member], self.seconds[member] = step, episodes, seconds
        self.before[member] = step if duties_from is None else duties_from
        self.due[member] = duties_from is not None


def mean_steps(steps: np.ndarray) -> int:
    """Of the members' steps [M], rounded down."""
    return int(steps.sum()) // len(steps)
