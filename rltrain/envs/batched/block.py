"""Vector steps that are made elsewhere, many at a time, before the host looks: `env.vectorization=compiled`."""

from __future__ import annotations

import numpy as np

from rltrain.envs.batched.environment import BatchedEnvironment, SeededStart, UniformStart
from rltrain.errors import RunFailed, one_line
from rltrain.seeding import first_draws

_MANY = 12  # seeds; fewer are quicker one by one


class StartQueue:
    """The next `depth` episodes of each lane, so that a block of as many steps finds all that may begin in it: rings.

    Attributes:
        seeds: [depth, L], of the episodes.
        states: [depth, *state, L], their first states.
        begun: [L], how many of the lane's episodes have begun: the next one lies in row `begun % depth`.
    """

    def __init__(self, env: BatchedEnvironment, seeds: np.ndarray, like: np.ndarray) -> None:
        """seeds: [depth, L]; like: a state [*state, L]."""
        self._env = env
        self.depth, lanes = seeds.shape
        self.seeds = seeds.copy()
        self.states = np.empty((self.depth, *like.shape), like.dtype)
        self.begun = np.zeros(lanes, np.int64)
        rows, columns = np.divmod(np.arange(seeds.size), lanes)
        self._fill(rows, columns)

    def advance(self, lanes: np.ndarray, before: np.ndarray, seeds: np.ndarray) -> None:
        """Episodes have begun in `lanes` [K], each after `before` [K] others of the same lane; what comes last now in
        their place has `seeds` [K]."""
        rows = (self.begun[lanes] + before) % self.depth
        self.seeds[rows, lanes] = seeds
        self.begun += np.bincount(lanes, minlength=len(self.begun))
        self._fill(rows, lanes)

    def seeds_after(self, lanes: np.ndarray, count: np.ndarray) -> np.ndarray:
        """The seeds of the episodes that run in `lanes` [K] once `count` [K] >= 1 more have begun."""
        seeds: np.ndarray = self.seeds[(self.begun[lanes] + count - 1) % self.depth, lanes]
        return seeds

    def _fill(self, rows: np.ndarray, lanes: np.ndarray) -> None:
        if len(rows):
            self.states[rows, ..., lanes] = start_states(self._env, self.seeds[rows, lanes])


def occurrences(lanes: np.ndarray) -> np.ndarray:
    """[K], how often each entry of `lanes` [K] stands before itself."""
    order = np.argsort(lanes, kind="stable")
    ordered = lanes[order]
    before = np.empty_like(lanes)
    before[order] = np.arange(len(lanes)) - np.searchsorted(ordered, ordered)
    return before


def start_states(env: BatchedEnvironment, seeds: np.ndarray) -> np.ndarray:
    """[K, *state], the first states of the episodes with these seeds [K]."""
    if isinstance(env, UniformStart) and len(seeds) >= _MANY:
        return np.moveaxis(env.from_uniform(first_draws(seeds, env.start_draws)), -1, 0)
    try:
        if isinstance(env, SeededStart):
            return np.moveaxis(env.from_seeds(seeds), -1, 0)
        return np.stack([env.start_state(np.random.Generator(np.random.PCG64(seed))) for seed in seeds.tolist()])
    except Exception as error:
        raise RunFailed(f"the batched twin {type(env).__name__} fails in start_state: {one_line(error)}") from error
