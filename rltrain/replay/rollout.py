"""Whole episodes, kept until an update has used them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rltrain.types import ActionSpec, ObservationSpec, Transition

_FIRST_LENGTH = 64


class Rollout(NamedTuple):
    """K whole episodes, padded to T steps, a power of two (so that few shapes occur)."""

    obs: Tensor  # [K, T, *obs]
    action: Tensor  # [K, T, *action]
    reward: Tensor  # [K, T], 0 in the padding
    mask: Tensor  # [K, T] float, 1 where a step was taken
    last: Tensor  # [K, T] float, 1 at each episode's last step
    final_obs: Tensor  # [K, *obs], what followed the last step
    truncated: Tensor  # [K] float, 1 where the episode was cut and final_obs still has a value


class Episodes(NamedTuple):
    """The same as it is kept; what lies behind an episode's end has no meaning. Of a population [M, K, ...]."""

    obs: Tensor  # [K, T, *obs]
    action: Tensor  # [K, T, *action]
    reward: Tensor  # [K, T]
    final_obs: Tensor  # [K, *obs]
    truncated: Tensor  # [K] float
    length: Tensor  # [K] int64


class RolloutBuffer:
    """Exactly K = `episodes` episodes from N environments, K / N from each, all begun under the present parameters.

    Taking the first K that finish would favour short episodes; so each environment plays its share, and one that is
    done idles until the update. Memory grows with the longest episode, by doubling.

    The M members of a population play K episodes in N environments each; rows and environments lie member by member.
    """

    def __init__(
        self, episodes: int, num_envs: int, observation: ObservationSpec, action: ActionSpec, members: int = 1
    ) -> None:
        self._share = episodes // num_envs
        self._members = members
        self._episodes, self._num_envs = episodes, num_envs
        episodes, num_envs = members * episodes, members * num_envs
        action_dtype = np.int64 if action.kind == "discrete" else np.float32
        self._obs = np.zeros((episodes, _FIRST_LENGTH, *observation.shape), dtype=observation.dtype)
        self._action = np.zeros((episodes, _FIRST_LENGTH, *action.shape), dtype=action_dtype)
        self._reward = np.zeros((episodes, _FIRST_LENGTH), dtype=np.float32)
        self._final_obs = np.zeros((episodes, *observation.shape), dtype=observation.dtype)
        self._truncated = np.zeros(episodes, dtype=np.float32)
        self._length = np.zeros(episodes, dtype=np.int64)
        self._finished = np.zeros(num_envs, dtype=np.int64)  # episodes that each environment has finished
        self._env_ids = np.arange(num_envs)

    @property
    def active(self) -> np.ndarray:
        """[N] bool: the environments that have not yet played their share."""
        return self._finished < self._share

    @property
    def full(self) -> np.ndarray:
        """[M] bool: the members that have all their episodes."""
        full: np.ndarray = (self._finished == self._share).reshape(self._members, -1).all(1)
        return full

    @property
    def nbytes(self) -> int:
        """Bytes at present; they grow with the longest episode."""
        return self._obs.nbytes + self._action.nbytes + self._reward.nbytes

    @property
    def padded_length(self) -> int:
        """T: the power of two that holds the longest episode."""
        return 1 << int(self._length.max() - 1).bit_length()

    def add(self, transition: Transition) -> None:
        envs = self._env_ids[transition.active]
        rows = envs * self._share + self._finished[envs]  # [K']
        times = self._length[rows]
        if len(times) and times.max() == self._reward.shape[1]:
            self._grow()
        self._obs[rows, times] = transition.obs[envs]
        self._action[rows, times] = transition.action[envs]
        self._reward[rows, times] = transition.reward[envs]
        self._length[rows] += 1
        ended = (transition.terminated | transition.truncated)[envs]
        if ended.any():
            self._final_obs[rows[ended]] = transition.next_obs[envs[ended]]
            # The MDP's own end wins where both are reported.
            self._truncated[rows[ended]] = ~transition.terminated[envs[ended]]
            self._finished[envs[ended]] += 1

    def _grow(self) -> None:
        for name in ("_obs", "_action", "_reward"):
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros_like(array)], axis=1))

    def room(self, steps: int, device: torch.device) -> Episodes:
        """Memory for `take` of episodes that are padded to so many steps."""
        return Episodes(*(torch.zeros_like(column, device=device) for column in self._columns(steps)))

    def take(self, into: Episodes) -> None:
        """Moves the K episodes into `room(padded_length)`; the buffer is empty afterwards."""
        for there, here in zip(into, self._columns(into.reward.shape[-1]), strict=True):
            there.copy_(here)  # waits: the buffer is written again while a device may still be reading
        self._length[:] = 0
        self._finished[:] = 0

    def _columns(self, steps: int) -> Episodes:
        arrays = (self._obs[:, :steps], self._action[:, :steps], self._reward[:, :steps])
        columns = (torch.from_numpy(a) for a in (*arrays, self._final_obs, self._truncated, self._length))
        axes = () if self._members == 1 else (self._members,)
        return Episodes(*(column.view(*axes, self._episodes, *column.shape[1:]) for column in columns))

    def batches(self, memory: Episodes, uniform: Tensor) -> Iterator[tuple[Any, Rollout]]:
        """All episodes, for one update. Part of the program."""
        length = memory.length.unsqueeze(-1)  # [K, 1]
        time = torch.arange(memory.reward.shape[-1], device=length.device)
        mask = (time < length).to(memory.reward.dtype)  # [K, T]
        last = (time == length - 1).to(memory.reward.dtype)
        reward = memory.reward * mask
        yield (), Rollout(memory.obs, memory.action, reward, mask, last, memory.final_obs, memory.truncated)

    def feedback(self, memory: Episodes, rows: Any, feedback: Mapping[str, Tensor]) -> None:
        """Nothing is learned from it."""

    def forget(self, envs: np.ndarray) -> None:
        """Drops the running episodes of `envs` (bool [N]); they begin anew."""
        running = self._env_ids[envs & self.active]
        self._length[running * self._share + self._finished[running]] = 0

    def state_dict(self, member: int = 0) -> dict[str, Tensor]:
        """Copies of what the member has."""
        return {name: torch.from_numpy(array.copy()) for name, array in self._parts(member).items()}

    def load_state_dict(self, state: Mapping[str, Tensor], member: int = 0) -> None:
        width = state["reward"].shape[1]
        while self._reward.shape[1] < width:
            self._grow()
        for name, array in self._parts(member).items():
            stored = state[name].cpu().numpy()
            if name in ("obs", "action", "reward"):
                array[:, :width] = stored
            else:
                array[...] = stored

    def _parts(self, member: int) -> dict[str, np.ndarray]:
        """Views of the member's rows."""
        rows = slice(member * self._episodes, (member + 1) * self._episodes)
        envs = slice(member * self._num_envs, (member + 1) * self._num_envs)
        arrays = {
            "obs": self._obs,
            "action": self._action,
            "reward": self._reward,
            "final_obs": self._final_obs,
            "truncated": self._truncated,
            "length": self._length,
        }
        return {**{name: array[rows] for name, array in arrays.items()}, "finished": self._finished[envs]}
