"""Whole episodes, kept until an update has used them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

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

    def take(self, device: torch.device) -> Rollout:
        """The K episodes, on `device`, with a leading axis M where there are several members; the buffer is empty
        afterwards."""
        steps = 1 << int(self._length.max() - 1).bit_length()  # T
        mask = np.arange(steps) < self._length[:, None]  # [K, T]
        last = np.arange(steps) == self._length[:, None] - 1
        columns = (
            self._obs[:, :steps],
            self._action[:, :steps],
            self._reward[:, :steps] * mask,
            mask.astype(np.float32),
            last.astype(np.float32),
            self._final_obs,
            self._truncated,
        )
        # torch.tensor copies: the buffer is written again while a device may still be reading.
        rollout = Rollout(*(torch.tensor(column, device=device) for column in columns))
        self._length[:] = 0
        self._finished[:] = 0
        if self._members == 1:
            return rollout
        return Rollout(*(column.view(self._members, -1, *column.shape[1:]) for column in rollout))

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
