"""Environments whose batched twin an agent steps on its device (`env.vectorization=compiled`)."""

from __future__ import annotations

from typing import cast

import numpy as np
from gymnasium.spaces import Discrete

from rltrain.envs.batched.block import StartQueue, occurrences
from rltrain.envs.batched.environment import BatchedEnvironment
from rltrain.envs.batched.lanes import BatchedLanes
from rltrain.envs.spaces import action_limits
from rltrain.envs.vector import VectorEnv
from rltrain.envs.wrappers import WrapperStack
from rltrain.seeding import EpisodeSeeds
from rltrain.types import ActionScale, BlockBoundary, BlockRecords, Episode


class AgentSteppedEnv(VectorEnv):
    """`now` and `next_starts` are what an agent begins a block of steps with, `record_block` takes what it led to."""

    stepped_by_agent = True
    _starts: StartQueue | None = None  # of the episodes that run now

    @property
    def twin(self) -> BatchedEnvironment:
        """The batch that an agent steps inside a program of its own, for `record_block`."""
        return self._lanes.twin

    @property
    def _lanes(self) -> BatchedLanes:
        return cast(BatchedLanes, self._group)

    @property
    def first_action(self) -> int:
        """The environments' own number of the agent's action 0."""
        return int(self.action_space.start) if isinstance(self.action_space, Discrete) else 0

    @property
    def action_scale(self) -> ActionScale | None:
        """How the agent's actions become the environments', None where they are numbers from `first_action` on."""
        if isinstance(self.action_space, Discrete):
            return None
        return ActionScale(*action_limits(self.action_space), str(self.action_space.dtype))

    @property
    def wrappers(self) -> WrapperStack | None:
        """Wrappers that the agent computes between the twin and itself; None for none."""
        return self._wrappers if self._wrappers.listed else None

    def now(self) -> BlockBoundary:
        """The environments before a block of steps; not to be written into."""
        now = self._lanes.now()
        if self.wrappers is None:
            return now
        assert self._obs is not None
        return now._replace(obs=self._obs, kept=self._wrappers.kept())

    def next_starts(self, depth: int) -> tuple[np.ndarray, np.ndarray]:
        """The first states of each environment's next episodes: a ring [depth, *state, N], and [N], where the next one
        lies in it, up to a multiple of `depth`. Not to be written into."""
        if self._starts is None or self._starts.depth != depth:
            envs, ahead = np.arange(self.num_envs), np.arange(1, depth + 1)[:, None]
            numbers = np.array(self._numbers) + ahead  # [depth, N]
            seeds = self._seeds_of(np.broadcast_to(envs, numbers.shape).reshape(-1), numbers.reshape(-1))
            self._starts = self._lanes.queue_starts(seeds.reshape(numbers.shape))
        return self._starts.states, self._starts.begun

    def _seeds_of(self, envs: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Of the episodes with these numbers, int64 [K]."""
        if isinstance(self._episode_seed, EpisodeSeeds):
            return self._episode_seed.many(envs, numbers)
        return np.array([self._episode_seed(*pair) for pair in zip(envs.tolist(), numbers.tolist(), strict=True)])

    def record_block(self, now: BlockBoundary, seen: BlockRecords) -> list[Episode]:
        """Records a block of steps that an agent made, at most `depth`. Returns the episodes that ended, in order.

        Args:
            now: where they have led.
            seen: what happened in them.

        Raises:
            RunFailed: a number is not finite.
        """
        assert self._starts is not None
        bare = now if self.wrappers is None else now._replace(obs=self._lanes.observe(now.state))
        steps, lanes = self._lanes.record_block(bare, seen)
        self._obs = self._lanes.now().obs
        if self.wrappers is not None:
            self._obs = now.obs.copy()
            self._wrappers.adopt(now.kept, self._obs)
        before = occurrences(lanes)
        numbers = np.array(self._numbers)
        ended = numbers[lanes] + before
        self._starts.advance(lanes, before, self._seeds_of(lanes, ended + 1 + self._starts.depth))
        self._numbers = (numbers + np.bincount(lanes, minlength=self.num_envs)).tolist()
        columns = (lanes, ended, seen.episode_return[steps, lanes], seen.episode_length[steps, lanes])
        return [Episode(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]

    def _start_episodes(self, numbers: list[int]) -> None:
        super()._start_episodes(numbers)
        self._starts = None
