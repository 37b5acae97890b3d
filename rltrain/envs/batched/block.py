"""Vector steps that are made elsewhere, many at a time, before anybody looks: `env.vectorization=compiled`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rltrain.envs.batched.environment import BatchedEnvironment


class StartQueue:
    """The next `depth` episodes of each lane, so that a block of as many steps finds all that may begin in it.

    Attributes:
        seeds: of each lane's next episodes.
        states: [depth, *state, L], the first states of these.
    """

    def __init__(self, env: BatchedEnvironment, seeds: Sequence[list[int]], like: np.ndarray) -> None:
        """seeds: `depth` of each lane; like: a state [*state, L]."""
        self._env = env
        self.seeds: list[list[int]] = [[] for _ in seeds]
        self.states = np.zeros((len(seeds[0]), *like.shape), like.dtype)
        for lane, of_lane in enumerate(seeds):
            self._append(lane, of_lane)

    def advance(self, lane: int, seeds: list[int]) -> None:
        """As many episodes have begun in the lane as there are `seeds`, which are of those that now come last."""
        count = len(seeds)
        kept = len(self.states) - count
        self.seeds[lane] = self.seeds[lane][count:]
        self.states[:kept, ..., lane] = self.states[count:, ..., lane].copy()
        self._append(lane, seeds)

    def _append(self, lane: int, seeds: list[int]) -> None:
        for place, seed in enumerate(seeds, len(self.seeds[lane])):
            self.states[place, ..., lane] = self._env.start_state(np.random.Generator(np.random.PCG64(seed)))
        self.seeds[lane] += seeds
