"""N copies of a Gymnasium environment as one source of transitions.

None of Gymnasium's vector classes is used: an algorithm needs a seed per episode and environment, environments that
idle, and the true successor at an episode's end, in one process and in workers alike.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import Space

from rltrain.envs.lane_group import LaneGroup, LaneState, LaneStep
from rltrain.envs.make import EnvMaker
from rltrain.envs.spaces import action_spec, make_action_transform, observation_spec
from rltrain.envs.wrappers import WrapperStack
from rltrain.errors import CheckpointError, RunFailed
from rltrain.seeding import EpisodeSeeds
from rltrain.terminal.output import warn
from rltrain.types import Episode, Transition

_log = logging.getLogger(__name__)
_LONG = 32  # above so many numbers NumPy finds their extremes sooner than Python does
EpisodeSeed = EpisodeSeeds | Callable[[int, int], int]


class VectorEnv:
    """N environments that step together; one whose episode ends is reset inside the same step.

    Every array it returns is fresh (no later step writes into it), but `next_obs` and the returned observation are one
    array where no episode ended, and the observation returned now is the next transition's `obs`: read only.

    Attributes:
        observation_space, action_space: Gymnasium's own, before `env.wrappers`.
        observation_spec, action_spec: what the agent sees, after them.
        reward_threshold: the return that counts as solved, where the environment as it is registered says so.
        max_episode_steps: where episodes are cut, None for never.
        draws: whether the environment says that it can be drawn.
        reward_clip: rewards are clipped to [-c, c] for training, None for never.
        stepped_by_agent: whether the agent steps them (`AgentSteppedEnv`), and nobody calls `step`.
    """

    stepped_by_agent = False
    draws = False

    def __init__(
        self,
        group: LaneGroup,
        num_envs: int,
        episode_seed: EpisodeSeed,
        spaces: tuple[Space[Any], Space[Any]],
        made_by: EnvMaker,
        reward_clip: float | None,
        wrappers: WrapperStack,
    ) -> None:
        self.id = made_by.id
        self.num_envs = num_envs
        self.observation_space, self.action_space = spaces
        self.observation_spec, self.action_spec = wrappers.spec, action_spec(spaces[1])
        self._bare_spec = observation_spec(spaces[0])
        self._wrappers = wrappers
        self.reward_threshold = made_by.reward_threshold
        self.max_episode_steps = made_by.time_limit
        self._group = group
        self._episode_seed = episode_seed
        self._transform = make_action_transform(spaces[1])
        self.reward_clip = reward_clip
        self._all_active = np.ones(num_envs, np.bool_)
        self._action_shape = (num_envs, *self.action_spec.shape)
        spec = self.action_spec
        self._largest_action = spec.n - 1 if spec.kind == "discrete" else None
        self._sizes = np.array(spec.sizes).reshape(spec.shape) if spec.kind == "multi_discrete" else None
        self._numbers: list[int] = []
        self._next_seeds: list[int] = []
        self._obs: np.ndarray | None = None

    def reset(self) -> np.ndarray:
        """Starts episode 0 everywhere; returns obs [N, *obs]."""
        self._start_episodes([0] * self.num_envs)
        obs = self._group.reset([self._episode_seed(i, 0) for i in range(self.num_envs)])
        self._obs = self._wrappers.reset(obs) if self._wrappers else obs
        return self._obs

    def step(
        self, action: np.ndarray, active: np.ndarray | None = None
    ) -> tuple[Transition, np.ndarray, list[Episode]]:
        """Steps the environments where `active` is True (None: all); the others are not touched.

        Args:
            action: [N, *action] as the agent sees it; rows of idle environments are not read.
            active: bool [N].

        Returns:
            The transition, the observations to act on next [N, *obs], and the episodes that ended, by environment.

        Raises:
            RunFailed: an environment raised, hung or died, or a number is not finite.
        """
        assert self._obs is not None, "reset() comes first"
        moved = None if active is None or active.all() else active
        done = self._group.step(self._to_env(action, moved), moved, self._next_seeds)
        if self._wrappers:
            done = self._wrappers.step(done, moved)
        if self.reward_clip is not None:
            np.clip(done.reward, -self.reward_clip, self.reward_clip, out=done.reward)
        if done.notes and not self._wrappers.frozen:
            for note in done.notes:
                warn(_log, note)
        transition = Transition(
            self._obs,
            action,
            done.reward,
            done.next_obs,
            done.terminated,
            done.truncated,
            self._all_active.copy() if active is None else active,
        )
        return transition, *self._after_step(done)

    def _after_step(self, done: LaneStep) -> tuple[np.ndarray, list[Episode]]:
        self._obs = done.obs
        episodes = [Episode(f.lane, self._numbers[f.lane], f.episode_return, f.length) for f in done.finished]
        for episode in episodes:
            self._start_episode(episode.env, episode.number + 1)
        return done.obs, episodes

    def collect_failures(self) -> dict[int, RunFailed]:
        """From now on a failure of one environment is put into the returned mapping, by environment, instead of being
        raised; what that environment gives then has no meaning, and it must idle."""
        self._group.failures = {}
        return self._group.failures

    def state_dict(self, envs: slice = slice(None)) -> dict[str, np.ndarray]:
        """The running episodes of `envs` as arrays: `episode` (number), `episode_return`, `episode_length`, `obs`, and
        `actions` of all of them one after the other, `action_count` of each (-1: too many to be kept); and what the
        wrappers have. `envs` are those of whole members."""
        state = self._group.state()
        actions = state.actions[envs]
        kept = [a for a in actions if a is not None]
        return {
            "episode": np.array(self._numbers[envs], np.int64),
            "episode_return": np.array(state.episode_return[envs], np.float64),
            "episode_length": np.array(state.episode_length[envs], np.int64),
            "obs": state.obs[envs],
            "actions": np.concatenate(kept) if kept else np.empty(0),
            "action_count": np.array([-1 if a is None else len(a) for a in actions], np.int64),
            **({} if state.twin_state is None else {"twin_state": state.twin_state[envs]}),
            **self._wrappers.state(envs),
        }

    def statistics(self) -> dict[str, np.ndarray]:
        """Copies of the wrappers' running statistics, [M, ...] by name; {} where there are none."""
        return self._wrappers.statistics()

    def load_statistics(self, statistics: Mapping[str, np.ndarray], member: int | None = None) -> None:
        """Loads running statistics: of all members, or those of a single run into one of them.

        Raises:
            CheckpointError: they are not of these wrappers.
        """
        self._wrappers.load_statistics(statistics, member)

    def load_state_dict(self, state: dict[str, np.ndarray]) -> tuple[np.ndarray, bool]:
        """Takes the stored episodes up again by replaying their actions from their seeds.

        Returns:
            obs [N, *obs], and whether every episode goes on bit for bit. Those that do not were abandoned; the
            episode of the next number began in their place.

        Raises:
            CheckpointError: the state is of other environments.
        """
        numbers, lanes = self._unpack(state)
        seeds = [self._episode_seed(i, n) for i, n in enumerate(numbers)]
        next_seeds = [self._episode_seed(i, n + 1) for i, n in enumerate(numbers)]
        obs, exact = self._group.restore(lanes, seeds, next_seeds)
        self._obs = self._wrappers.restore(state, obs, lanes.episode_length, exact)
        self._start_episodes([n if same else n + 1 for n, same in zip(numbers, exact, strict=True)])
        return self._obs, all(exact)

    def close(self) -> None:
        """Closes the environments and ends the workers; safe to call twice, and after a failure."""
        self._group.close()

    def _start_episodes(self, numbers: list[int]) -> None:
        self._numbers = numbers
        self._next_seeds = [self._episode_seed(i, n + 1) for i, n in enumerate(numbers)]

    def _start_episode(self, env: int, number: int) -> None:
        self._numbers[env] = number
        self._next_seeds[env] = self._episode_seed(env, number + 1)

    def _to_env(self, action: np.ndarray, active: np.ndarray | None) -> Any:
        """The environments' own actions; refuses what no environment would take, in active rows."""
        if action.shape != self._action_shape:
            raise RunFailed(f"{self.id}: actions have shape {action.shape}, expected {self._action_shape}")
        if not self._is_valid(action) and (active is None or not self._is_valid(action[active])):
            largest = self._largest_action if self._sizes is None else (self._sizes - 1).tolist()
            wrong = "not finite" if largest is None else f"outside 0..{largest}"
            raise RunFailed(f"{self.id}: the agent's action is {wrong}: {' '.join(str(action).split())[:200]}")
        return self._transform(action)

    def _is_valid(self, action: np.ndarray) -> bool:
        if self._sizes is not None:
            return bool((action >= 0).all() and (action < self._sizes).all())
        if self._largest_action is None:
            return bool(np.isfinite(action).all())
        if action.size > _LONG:
            return bool(action.min() >= 0 and action.max() <= self._largest_action)
        numbers = action.tolist()
        return not numbers or (min(numbers) >= 0 and max(numbers) <= self._largest_action)

    def _unpack(self, state: dict[str, np.ndarray]) -> tuple[list[int], LaneState]:
        expected = (self.num_envs, *self._bare_spec.shape)
        float32_once = self._bare_spec.dtype == "float64" and state["obs"].dtype == np.float32  # of an earlier version
        if state["obs"].shape != expected or not (state["obs"].dtype == self._bare_spec.dtype or float32_once):
            raise CheckpointError(
                f"{self.id}: the stored observations are {state['obs'].dtype} {state['obs'].shape}, "
                f"expected {self._bare_spec.dtype} {expected}"
            )
        counts = state["action_count"].tolist()
        lengths = {len(state[name]) for name in ("episode", "episode_return", "episode_length", "action_count")}
        if lengths != {self.num_envs} or sum(max(count, 0) for count in counts) > len(state["actions"]):
            raise CheckpointError(f"{self.id}: the stored episodes do not fit each other")
        ends = np.cumsum([max(count, 0) for count in counts]).tolist()
        actions = [
            None if count < 0 else state["actions"][end - count : end] for count, end in zip(counts, ends, strict=True)
        ]
        lanes = LaneState(
            state["obs"],
            state["episode_return"].tolist(),
            state["episode_length"].tolist(),
            actions,
            state.get("twin_state"),
        )
        return state["episode"].tolist(), lanes


def join_env_states(states: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The state of all members' environments from the `state_dict` of each."""
    if len(states) == 1:
        return dict(states[0])
    filled = [state["actions"] for state in states if len(state["actions"])]
    joined = {name: np.concatenate([state[name] for state in states]) for name in states[0] if name != "actions"}
    return {**joined, "actions": np.concatenate(filled) if filled else np.empty(0)}
