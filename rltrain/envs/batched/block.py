"""Vector steps that are made elsewhere, many at a time, before anybody looks: `env.vectorization=compiled`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rltrain.envs.batched.environment import BatchedEnvironment
from rltrain.seeding import pcg64_states

_MANY = 16  # seeds; fewer are quicker one by one


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
        self._append(dict(enumerate(seeds)))

    def advance(self, seeds: Mapping[int, list[int]]) -> None:
        """As many episodes have begun in each lane as it has `seeds`, which are of those that now come last."""
        for lane, new in seeds.items():
            kept = len(self.states) - len(new)
            self.seeds[lane] = self.seeds[lane][len(new) :]
            self.states[:kept, ..., lane] = self.states[len(new) :, ..., lane].copy()
        self._append(seeds)

    def _append(self, seeds: Mapping[int, list[int]]) -> None:
        starts = iter(start_states(self._env, [seed for new in seeds.values() for seed in new]))
        for lane, new in seeds.items():
            for seed in new:
                self.states[len(self.seeds[lane]), ..., lane] = next(starts)
                self.seeds[lane].append(seed)


def start_states(env: BatchedEnvironment, seeds: Sequence[int]) -> list[np.ndarray]:
    """The first states [*state] of the episodes with these seeds."""
    if len(seeds) < _MANY:
        return [env.start_state(np.random.Generator(np.random.PCG64(seed))) for seed in seeds]
    bits = np.random.PCG64(0)
    generator = np.random.Generator(bits)
    starts = []
    for bits.state in pcg64_states(np.array(seeds)):
        starts.append(env.start_state(generator))
    return starts
