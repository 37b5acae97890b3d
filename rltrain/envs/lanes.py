"""Steps a list of environments in this process. Vectorisation in one process and in workers both run these lanes."""

from __future__ import annotations

import logging
import mmap
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np

from rltrain.envs.atari import LIFE_LOST, tells_life_loss
from rltrain.envs.faults import described
from rltrain.envs.lane_group import MAX_RECORDED_ACTIONS, MAX_REPLAY_SECONDS, Finished, LaneState, LaneStep
from rltrain.envs.make import close
from rltrain.envs.observed import EVERY, LARGEST, Check, fits_float32, not_finite
from rltrain.envs.precision import Precision
from rltrain.envs.returned import FLAGS, LARGEST_REWARD, REWARDS, Mistake, flag, reset_observation, reward_number
from rltrain.envs.spaces import ObservationWriter, observation_spec
from rltrain.errors import RunFailed

_log = logging.getLogger(__name__)


class Lanes:
    """A list of environments, stepped one after the other.

    Args:
        envs: copies of one environment.
        first: index of envs[0] among all environments of the run, for messages.
        of_each: environments of each member of a population, which are numbered apart in messages.
        id: the environment's id, for messages.
        progress: byte 0..7 hold the lane that is busy, for a parent that must name the one that hangs or dies.

    Attributes:
        failures: None, or where the failures of single lanes are collected: then the other lanes go on.
    """

    def __init__(
        self,
        envs: list[gymnasium.Env[Any, Any]],
        first: int,
        id: str,
        progress: mmap.mmap | None = None,
        of_each: int | None = None,
    ) -> None:
        self._envs = envs
        self._first = first
        self._of_each = of_each or len(envs) + first
        self._id = id
        self._progress = progress
        spec = observation_spec(envs[0].observation_space)
        self._writer = ObservationWriter(envs[0].observation_space)
        self._plain_dtype, self._plain_shape = self._writer.plain_dtype, spec.shape
        self._shape = (len(envs), *spec.shape)
        self._dtype = np.dtype(spec.dtype)
        self._precision = Precision() if first == 0 and spec.dtype == "float32" else None
        self._notes: tuple[str, ...] = ()
        self._action_dtype = envs[0].action_space.dtype
        self._array_actions = not isinstance(envs[0].action_space, gymnasium.spaces.Discrete)
        self._action_shape = envs[0].action_space.shape or ()
        self._steps: list[Callable[[Any], tuple[Any, ...]]] = [env.step for env in envs]
        self._lives = tells_life_loss(envs[0])
        begins = envs[0].has_wrapper_attr("ahead")
        self._ahead = [env.get_wrapper_attr("ahead") for env in envs] if begins else None  # see envs/native.py
        self._all = range(len(envs))
        self._zeros = np.zeros(len(envs), np.float32)
        self._false = np.zeros(len(envs), np.bool_)
        self._obs = np.zeros(self._shape, self._dtype)
        self.failures: dict[int, RunFailed] | None = None
        self._seed = [-1] * len(envs)
        self._return = [0.0] * len(envs)
        self._length = [0] * len(envs)
        self._actions: list[list[Any]] = [[] for _ in envs]

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """Starts a new episode everywhere; returns obs [n, *obs], a fresh array."""
        obs = np.empty(self._shape, self._dtype)
        for lane, seed in enumerate(seeds):
            self._reset_lane(lane, seed, obs)
        self._obs = obs
        return obs

    def step(self, actions: np.ndarray, active: np.ndarray | None, next_seeds: Sequence[int]) -> LaneStep:
        """Steps the active lanes (None: all); where an episode ends the next one begins with next_seeds[lane].

        The arrays are fresh: no later step writes into them.

        Raises:
            RunFailed: an environment raised, or returned what its space does not hold or what is not finite.
        """
        if active is None:
            lanes: Sequence[int] = self._all
            obs = np.empty(self._shape, self._dtype)
        else:
            lanes = np.flatnonzero(active).tolist()
            obs = self._obs.copy()
        reward, terminated, truncated = self._zeros.copy(), self._false.copy(), self._false.copy()
        chosen = actions if self._array_actions else actions.tolist()  # an environment may want a Python int
        ended: list[int] = []
        if self._ahead is not None:
            for lane in lanes:
                self._ahead[lane](chosen[lane], next_seeds[lane])
        for lane in lanes:
            action = chosen[lane, ...] if self._array_actions else chosen[lane]
            if self._progress is not None:
                self._show_progress(lane)
            if self._length[lane] < MAX_RECORDED_ACTIONS:
                self._actions[lane].append(action.tobytes() if self._array_actions else action)
            try:
                observation, r, is_terminated, is_truncated, info = self._steps[lane](action)
                if type(r) not in REWARDS or not -LARGEST_REWARD <= (r := float(r)) <= LARGEST_REWARD:
                    r = reward_number(r)
                if type(is_terminated) not in FLAGS:
                    is_terminated = flag("terminated", is_terminated)
                if type(is_truncated) not in FLAGS:
                    is_truncated = flag("truncated", is_truncated)
                if (
                    type(observation) is np.ndarray
                    and observation.dtype is self._plain_dtype
                    and observation.shape == self._plain_shape
                    and (self._length[lane] + 1) % EVERY > 1
                ):
                    obs[lane] = observation  # what `_write` does for nearly all, without the call
                else:
                    self._write(lane, self._length[lane] + 1, observation, obs)
            except (Exception, SystemExit) as error:
                self._fail(lane, error, obs, self._length[lane] + 1)
                continue
            reward[lane] = r
            self._return[lane] += r
            self._length[lane] += 1
            if is_terminated or is_truncated:
                terminated[lane], truncated[lane] = is_terminated, is_truncated
                ended.append(lane)
            if self._lives and info[LIFE_LOST]:
                terminated[lane] = True  # for what is learned; the episode goes on, or is cut here
        self._check_finite(obs)
        self._obs = obs
        if not ended:
            return LaneStep(obs, obs, reward, terminated, truncated, [], self._told())
        next_obs = obs.copy()
        finished = [Finished(lane, self._return[lane], self._length[lane]) for lane in ended]
        for lane in ended:
            self._reset_lane(lane, next_seeds[lane], obs)
        return LaneStep(obs, next_obs, reward, terminated, truncated, finished, self._told())

    def state(self) -> LaneState:
        return LaneState(self._obs.copy(), list(self._return), list(self._length), [*map(self._recorded, self._all)])

    def restore(
        self, state: LaneState, seeds: Sequence[int], next_seeds: Sequence[int]
    ) -> tuple[np.ndarray, list[bool]]:
        """Replays each running episode from its seed. Where that does not lead bit for bit to the stored observation,
        return and length, the episode is abandoned and the one of next_seeds[lane] begins.

        Returns:
            obs [n, *obs], and per lane whether the episode goes on.
        """
        deadline = time.monotonic() + MAX_REPLAY_SECONDS
        obs = np.empty(self._shape, self._dtype)
        exact = [self._replay(lane, seeds[lane], state, obs, deadline) for lane in self._all]
        for lane in self._all:
            if not exact[lane]:
                self._reset_lane(lane, next_seeds[lane], obs)
        self._obs = obs
        return obs, exact

    def close(self) -> None:
        """Closes every environment; one that fails to do so is logged."""
        for lane, env in enumerate(self._envs):
            close(env, f"{self._id}: environment {self._first + lane}")
        self._envs = []

    def _reset_lane(self, lane: int, seed: int, obs: np.ndarray) -> None:
        try:
            self._begin(lane, seed, obs)
        except (Exception, SystemExit) as error:
            self._fail(lane, error, obs, 0)

    def _begin(self, lane: int, seed: int, obs: np.ndarray) -> None:
        """Starts an episode; raises whatever is wrong with its reset."""
        self._seed[lane] = seed
        self._return[lane] = 0.0
        self._length[lane] = 0
        self._actions[lane] = []
        self._show_progress(lane)
        self._write(lane, 0, reset_observation(self._envs[lane].reset(seed=seed)), obs)

    def _told(self) -> tuple[str, ...]:
        notes, self._notes = self._notes, ()
        return notes

    def _show_progress(self, lane: int) -> None:
        if self._progress is not None:
            self._progress[:8] = lane.to_bytes(8, "little")

    def _write(self, lane: int, step: int, observation: Any, obs: np.ndarray) -> None:
        check = Check.ALL if not step else Check.RANGE if step % EVERY <= 1 else Check.KIND
        self._writer.write(observation, obs[lane, ...], check)
        if lane == 0 and self._precision is not None:
            self._watch(observation, step, self._precision)

    def _watch(self, observation: Any, step: int, precision: Precision) -> None:
        """Notes where the space's float32 loses digits of the environment's numbers."""
        if step == 0:
            precision.begin()
        if (isinstance(observation, np.ndarray) and observation.dtype == np.float32) or not precision.wants():
            return
        whole = np.empty(self._plain_shape, np.float64)
        self._writer.write(observation, whole, Check.KIND)
        if lost := precision.see(whole):
            note = f"{self._id}: {lost}, which its observation space asks for: declare it float64, and normalize"
            self._notes += (f"{note} (env.wrappers=[normalize_observation])",)

    def _check_finite(self, obs: np.ndarray) -> None:
        """Of the observations after a step; those of resets are checked one by one."""
        if self._dtype.kind != "f" or fits_float32(obs):
            return
        for lane, row in enumerate(obs):
            if not fits_float32(row):
                part = self._writer.part_of(int(np.flatnonzero(~(np.abs(row.reshape(-1)) <= LARGEST))[0]))
                self._fail(lane, Mistake(f"observation{part} {not_finite(row)}"), obs, self._length[lane])

    def _fail(self, lane: int, error: BaseException, obs: np.ndarray, step: int) -> None:
        """Raises what failed, or notes it where failures are collected: then the lane's observation is zero.

        Args:
            step: of the episode; 0 for its reset.
        """
        failure = error
        if not isinstance(failure, RunFailed):
            where = f"step {step}" if step else "the reset"
            number = (self._first + lane) % self._of_each
            failure = RunFailed(
                f"{self._id}: environment {number} failed in {where} of the episode with seed "
                f"{self._seed[lane]}: {described(error)}"
            )
            failure.__cause__ = error
        if self.failures is None:
            raise failure
        self.failures.setdefault(lane, failure)  # the first is the cause
        obs[lane] = 0

    def _recorded(self, lane: int) -> np.ndarray | None:
        actions = self._actions[lane]
        if self._length[lane] > len(actions):
            return None
        if not self._array_actions:
            return np.array(actions, np.int64)
        return np.frombuffer(b"".join(actions), self._action_dtype).reshape(-1, *self._action_shape).copy()

    def _replay(self, lane: int, seed: int, state: LaneState, obs: np.ndarray, deadline: float) -> bool:
        actions = state.actions[lane]
        if actions is None or len(actions) != state.episode_length[lane]:
            return False
        try:
            self._begin(lane, seed, obs)
            numbers = actions.tolist()
            for k in range(len(actions)):
                action = actions[k, ...].copy() if self._array_actions else numbers[k]
                observation, r, is_terminated, is_truncated, _ = self._steps[lane](action)
                if is_terminated or is_truncated or time.monotonic() > deadline:
                    return False
                self._return[lane] += float(r)
            if len(actions):
                self._write(lane, len(actions), observation, obs)
        except (Exception, SystemExit):
            _log.info("replaying environment %d of %s failed", self._first + lane, self._id, exc_info=True)
            return False
        self._length[lane] = len(actions)
        self._actions[lane] = [a.tobytes() for a in actions] if self._array_actions else numbers
        same_obs = obs[lane].astype(state.obs.dtype).tobytes() == state.obs[lane].tobytes()
        return same_obs and self._return[lane] == state.episode_return[lane]
