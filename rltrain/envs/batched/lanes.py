"""Steps all lanes of a batched environment at once, with the semantics of `Lanes`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from rltrain.envs.batched.block import StartQueue, start_states
from rltrain.envs.batched.environment import BatchedEnvironment
from rltrain.envs.batched.history import ActionHistory
from rltrain.envs.lane_group import MAX_REPLAY_SECONDS, Finished, LaneState, LaneStep
from rltrain.envs.observed import NotOfSpace, fits_float32, make_kind_check, not_finite
from rltrain.envs.spaces import observation_spec
from rltrain.errors import CheckpointError, RunFailed, one_line
from rltrain.types import BlockBoundary, BlockRecords

_QUIET = np.errstate(all="ignore")  # actions of idle lanes may be anything; what is not finite is refused by name


class BatchedLanes:
    """L lanes of one environment, in NumPy: on the CPU it is faster than torch, and exactly Gymnasium's arithmetic.

    Same numbers as `Lanes`, and states that either restores.

    Args:
        env: the twin.
        num_envs: L.
        id: the environment's id, for messages.
        observation_space, action_space: of the original.
        max_episode_steps: where episodes are cut, None for never.
        stores_state: the twin's state is saved and taken over, and no episode is replayed.
    """

    def __init__(
        self,
        env: BatchedEnvironment,
        num_envs: int,
        id: str,
        observation_space: Space[Any],
        action_space: Space[Any],
        max_episode_steps: int | None,
        stores_state: bool = False,
    ) -> None:
        self.twin = self._env = env
        self._id = id
        self._limit = max_episode_steps
        self._stores_state = stores_state
        self._observation = observation_spec(observation_space)
        if stores_state and self._observation.dtype == "float64":
            self._observation = replace(self._observation, dtype="float32")  # as the agent's program computes it
        self._start = int(getattr(observation_space, "start", 0)) if self._observation.n else 0
        self._check_kind = make_kind_check(observation_space)
        self._rows_first = (len(self._observation.shape), *range(len(self._observation.shape)))
        action_shape = action_space.shape or ()
        self._lanes_last = (*range(1, len(action_shape) + 1), 0)
        discrete = isinstance(action_space, spaces.Discrete)
        self._history = ActionHistory(num_envs, action_shape, np.dtype(np.int64 if discrete else action_space.dtype))
        self._num_envs = num_envs
        self._state = np.empty(0)  # [*state, L]
        self._obs = np.empty(0)  # [L, *obs]
        self._seed = np.full(num_envs, -1)  # of each running episode
        self._return = np.zeros(num_envs)
        self._length = np.zeros(num_envs, np.int64)
        self.failures: dict[int, RunFailed] | None = None
        self._queue: StartQueue

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """Starts a new episode everywhere; returns obs [L, *obs], a fresh array."""
        lanes = np.arange(self._num_envs)
        start, obs = self._begin(lanes, seeds)
        self._state = start.astype(np.result_type(start, np.float64)) if start.dtype.kind == "f" else start
        self._obs = obs
        return obs

    @_QUIET
    def step(self, actions: np.ndarray, active: np.ndarray | None, next_seeds: Sequence[int]) -> LaneStep:
        """Steps the active lanes (None: all); where an episode ends the next one begins with next_seeds[lane].

        The arrays are fresh: no later step writes into them.

        Raises:
            RunFailed: the twin raised, or gave a number that is not finite or an array of another shape.
        """
        self._history.record(actions, self._length)
        state, reward, terminated = self._computed(actions)
        reward, terminated = self._move(state, reward, terminated, active)
        return self._record_step(self.observe(self._state), reward, terminated, active, next_seeds)

    def now(self) -> BlockBoundary:
        """The lanes as they are; not to be written into."""
        return BlockBoundary(self._state, self._obs, self._return, self._length, {})

    def queue_starts(self, seeds: np.ndarray) -> StartQueue:
        """The next episodes of each lane, by their seeds [depth, L]."""
        self._queue = StartQueue(self._env, seeds, self._state)
        return self._queue

    def record_block(self, now: BlockBoundary, seen: BlockRecords) -> tuple[np.ndarray, np.ndarray]:
        """Takes over what D steps made of the lanes elsewhere, with the episodes of the queue that began in them.

        Returns:
            [K] and [K], the steps in which episodes ended and their lanes, in this order. The queue has yet to advance.

        Raises:
            RunFailed: a reward or an observation was not finite.
        """
        self._check_block(seen)
        self._state, self._obs, self._return, self._length = (array.copy() for array in now[:4])
        steps, lanes = seen.ended.nonzero()
        count = np.bincount(lanes, minlength=self._num_envs)
        ended = count.nonzero()[0]
        self._seed[ended] = self._queue.seeds_after(ended, count[ended])
        return steps, lanes

    def _check_block(self, seen: BlockRecords) -> None:
        if seen.finite.all():
            return
        failed = set(self.failures or ())
        for step, lane in np.argwhere(~seen.finite).tolist():
            if lane in failed:
                continue
            failed.add(lane)
            if before := int(seen.ended[:step, lane].sum()):
                self._seed[lane] = self._queue.seeds_after(np.array([lane]), np.array([before]))[0]
            self._length[lane] = seen.episode_length[step, lane]
            self._fail(lane, "its reward or observation is not finite")

    def _record_step(
        self,
        obs: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        active: np.ndarray | None,
        next_seeds: Sequence[int],
    ) -> LaneStep:
        """Ends episodes and begins the next ones, after lanes have moved to obs [L, *obs]."""
        if active is not None:
            idle = ~active
            obs[idle] = self._obs[idle]
        self._obs = obs
        self._check_finite(obs, reward)
        truncated = np.zeros(self._num_envs, np.bool_) if self._limit is None else self._length >= self._limit
        ended = (terminated | truncated).nonzero()[0]
        if not ended.size:
            return LaneStep(obs, obs, reward, terminated, truncated, [])
        next_obs = obs.copy()
        lanes = ended.tolist()
        finished = [
            Finished(*ending)
            for ending in zip(lanes, self._return[ended].tolist(), self._length[ended].tolist(), strict=True)
        ]
        start, obs[ended] = self._begin(ended, [next_seeds[lane] for lane in lanes])
        self._state[..., ended] = start
        return LaneStep(obs, next_obs, reward, terminated, truncated, finished)

    def state(self) -> LaneState:
        return LaneState(
            self._obs.copy(),
            self._return.tolist(),
            self._length.tolist(),
            [None] * self._num_envs if self._stores_state else self._history.recorded(self._length),
            np.moveaxis(self._state, -1, 0).copy() if self._stores_state else None,
        )

    @_QUIET
    def restore(
        self, state: LaneState, seeds: Sequence[int], next_seeds: Sequence[int]
    ) -> tuple[np.ndarray, list[bool]]:
        """Replays all running episodes together, each from its seed. Where that does not lead bit for bit to the stored
        observation, return and length, the episode is abandoned and the one of next_seeds[lane] begins.

        Returns:
            obs [L, *obs], and per lane whether the episode goes on.
        """
        lengths = np.array(state.episode_length)
        exact = np.array(
            [a is not None and len(a) == n for a, n in zip(state.actions, state.episode_length, strict=True)]
        )
        self.reset(seeds)
        if self._stores_state:
            return self._adopt(state, lengths)
        exact &= self._replay(state, np.where(exact, lengths, 0))
        shown = self._obs.astype(state.obs.dtype)
        same_obs = [a.tobytes() == b.tobytes() for a, b in zip(shown, state.obs, strict=True)]
        exact &= np.array(same_obs) & (self._return == np.array(state.episode_return))
        abandoned = (~exact).nonzero()[0]
        if abandoned.size:
            start, self._obs[abandoned] = self._begin(abandoned, [next_seeds[lane] for lane in abandoned.tolist()])
            self._state[..., abandoned] = start
        return self._obs, exact.tolist()

    def _adopt(self, state: LaneState, lengths: np.ndarray) -> tuple[np.ndarray, list[bool]]:
        stored = None if state.twin_state is None else np.moveaxis(state.twin_state, 0, -1)
        if stored is None or stored.shape != self._state.shape or stored.dtype != self._state.dtype:
            raise CheckpointError(f"{self._id}: the stored episodes have no state of its batched twin")
        self._state, self._obs = stored.copy(), state.obs.copy()
        self._return, self._length = np.array(state.episode_return, np.float64), lengths.astype(np.int64)
        return self._obs, [True] * self._num_envs

    def close(self) -> None:
        """There is nothing to close."""

    def _replay(self, state: LaneState, lengths: np.ndarray) -> np.ndarray:
        """Plays the first `lengths` [L] stored actions of each lane; returns [L], whether its episode lasts longer."""
        lasted = np.ones(self._num_envs, np.bool_) if self._limit is None else lengths < self._limit
        deadline = time.monotonic() + MAX_REPLAY_SECONDS
        actions = self._history.load(state.actions, lengths)
        for t in range(lengths.max()):
            going = t < lengths
            _, terminated = self._move(*self._computed(actions[t]), going)
            lasted &= ~terminated
            if time.monotonic() > deadline:
                lasted &= self._length >= lengths
                break
        played = lengths > 0
        self._obs[played] = self.observe(self._state)[played]
        return lasted

    def _begin(self, lanes: np.ndarray, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """New episodes in `lanes` [K]: their states [*state, K] in the dtype of the start, and obs [K, *obs]."""
        state = np.moveaxis(start_states(self._env, np.asarray(seeds)), 0, -1)
        self._seed[lanes] = seeds
        self._return[lanes] = 0.0
        self._length[lanes] = 0
        obs = self.observe(state)
        self._check_finite(obs, lanes=lanes)
        return state, obs

    def _computed(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Steps the twin with actions [L, *action]: state [*state, L], reward [L], terminated [L]."""
        try:
            state, reward, terminated = self._env.step(np, self._state, actions.transpose(self._lanes_last))
        except Exception as error:
            raise RunFailed(f"{self._id}: its batched twin failed: {one_line(error)}") from error
        for name, array, shape in (
            ("state", state, self._state.shape),
            ("reward", reward, self._length.shape),
            ("terminated", terminated, self._length.shape),
        ):
            if array.shape != shape:
                raise RunFailed(f"{self._id}: its batched twin gave {name} of shape {array.shape}, not {shape}")
        return state, reward, terminated

    def _move(
        self, state: np.ndarray, reward: np.ndarray, terminated: np.ndarray, active: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Moves state, return and length of the active lanes on; returns reward [L] float32 and terminated [L]."""
        if active is not None:
            state = np.where(active, state, self._state)
            reward, terminated = np.where(active, reward, 0.0), terminated & active
        self._state = state
        self._return += reward
        self._length += 1 if active is None else active
        return reward.astype(np.float32), terminated

    def observe(self, state: np.ndarray) -> np.ndarray:
        """state [*state, K] -> obs [K, *obs] of the agent's dtype, a fresh array."""
        try:
            observed = self._env.observe(np, state)
        except Exception as error:
            raise RunFailed(f"{self._id}: its batched twin fails in observe: {one_line(error)}") from error
        expected = (*self._observation.shape, state.shape[-1])
        if observed.shape != expected:
            raise RunFailed(f"{self._id}: its batched twin gave obs of shape {observed.shape}, not {expected}")
        try:
            self._check_kind(observed)
        except NotOfSpace as error:
            raise RunFailed(f"{self._id}: its batched twin gave obs that {error}") from error
        obs: np.ndarray = observed.transpose(self._rows_first).astype(self._observation.dtype, order="C")
        if self._observation.kind == "discrete":
            obs -= self._start
        return obs

    def _check_finite(self, obs: np.ndarray, reward: np.ndarray | None = None, lanes: np.ndarray | None = None) -> None:
        """Refuses obs [K, *obs] and reward [K] of `lanes` (None: all) that are not finite."""
        if reward is not None and not _all_finite(reward):
            for lane in np.flatnonzero(~np.isfinite(reward)).tolist():
                self._fail(lane, f"reward {reward[lane]} is not a finite float32")
                reward[lane] = 0.0
        if obs.dtype.kind != "f" or (_all_finite(obs) if obs.dtype == np.float32 else fits_float32(obs)):
            return
        for row in range(len(obs)):
            if not fits_float32(obs[row]):
                self._fail(row if lanes is None else int(lanes[row]), f"observation {not_finite(obs[row])}")
                obs[row] = 0.0

    def _fail(self, lane: int, what: str) -> None:
        """Raises what failed, or notes it where failures are collected."""
        if self.failures is None:
            raise self._failure(lane, what)
        self.failures[lane] = self._failure(lane, what)

    def _failure(self, lane: int, what: str) -> RunFailed:
        where = f"step {self._length[lane]}" if self._length[lane] else "the reset"
        return RunFailed(
            f"{self._id}: environment {lane} failed in {where} of the episode with seed {self._seed[lane]}: {what}"
        )


def _all_finite(x: np.ndarray) -> bool:
    """Whether float32 x holds only finite numbers: if its squared norm is finite it does, and that is quickly known."""
    return isfinite(np.vdot(x, x)) or bool(np.isfinite(x).all())
