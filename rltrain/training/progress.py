"""How far each member is: counted by the loop, read by the members."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from rltrain.types import Episode


class Progress:
    """Counters of M members, each [M].

    Attributes:
        steps: environment steps.
        before: environment steps before the last vector step that the member took. What is due lies between the two.
        due: whether something is, which is not yet done.
        episodes: that ended.
        seconds: of training, without evaluating and saving.
        vector_steps: that all members made together.
    """

    def __init__(self, members: int, num_envs: int) -> None:
        """num_envs: of each member."""
        self._num_envs = num_envs
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

    def moment(self, member: int) -> tuple[int, bool]:
        """Names a state of the member: vector steps, and whether something is due."""
        return self.vector_steps, bool(self.due[member])

    def load(self, member: int, step: int, duties_from: int | None, episodes: int, seconds: float) -> None:
        """The counters of a checkpoint; duties_from: `before`, where something was due."""
        self.steps[member], self.episodes[member], self.seconds[member] = step, episodes, seconds
        self.before[member] = step if duties_from is None else duties_from
        self.due[member] = duties_from is not None
