"""n-step returns, assembled before the replay: what is stored is ready for a one-step loss."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from rltrain.types import ActionSpec, ObservationSpec, Transition

Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""obs, action, reward, next_obs, discount: each [K, ...]."""


class NStepWindow:
    """Turns single steps of N environments into n-step transitions. Sutton & Barto 2018, equation 7.1.

    The transition of step t has reward sum_{k<m} gamma^k r_{t+k}, next_obs s_{t+m} and discount
    gamma^m * (1 - terminated), where m = n, or less where the episode ended sooner: a partial window at the end of an
    episode is discounted with its own length, and no window crosses an end. A truncated episode keeps its discount.
    """

    def __init__(self, n: int, gamma: float, num_envs: int, observation: ObservationSpec, action: ActionSpec) -> None:
        self._n = n
        self._powers = np.array([gamma**k for k in range(n + 1)])
        action_dtype = np.int64 if action.kind == "discrete" else np.float32
        self._obs = np.zeros((n, num_envs, *observation.shape), dtype=observation.dtype)
        self._action = np.zeros((n, num_envs, *action.shape), dtype=action_dtype)
        self._reward = np.zeros((n, num_envs), dtype=np.float32)
        self._length = np.zeros(num_envs, dtype=np.int64)  # steps of the running episode in the window, at most n
        self._time = 0

    def push(self, transition: Transition) -> list[Columns]:
        """The n-step transitions that this step completes, the longest windows first; every environment is active."""
        ended = transition.terminated | transition.truncated  # [N]
        if self._n == 1:
            discount = (self._powers[1] * ~transition.terminated).astype(np.float32)
            return [(transition.obs, transition.action, transition.reward, transition.next_obs, discount)]
        slot = self._time % self._n
        self._obs[slot], self._action[slot], self._reward[slot] = transition.obs, transition.action, transition.reward
        self._time += 1
        self._length = np.minimum(self._length + 1, self._n)
        shortest = 1 if ended.any() else self._n
        completed = [self._window(m, transition, ended) for m in range(self._n, shortest - 1, -1)]
        self._length[ended] = 0
        return [columns for columns in completed if len(columns[0])]

    def _window(self, m: int, transition: Transition, ended: np.ndarray) -> Columns:
        """The windows of length m that end with this step: full ones, and those that an episode's end cuts short."""
        envs = np.nonzero((self._length >= m) & (ended | (m == self._n)))[0]
        slots = [(self._time - m + k) % self._n for k in range(m)]
        reward = self._powers[:m] @ self._reward[slots][:, envs]  # [K]
        discount = self._powers[m] * ~transition.terminated[envs]  # [K]
        return (
            self._obs[slots[0], envs],
            self._action[slots[0], envs],
            reward.astype(np.float32),
            transition.next_obs[envs],
            discount.astype(np.float32),
        )

    def state_dict(self) -> dict[str, Tensor]:
        return {
            "obs": torch.from_numpy(self._obs.copy()),
            "action": torch.from_numpy(self._action.copy()),
            "reward": torch.from_numpy(self._reward.copy()),
            "length": torch.from_numpy(self._length.copy()),
            "time": torch.tensor([self._time]),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._obs[...] = state["obs"].numpy()
        self._action[...] = state["action"].numpy()
        self._reward[...] = state["reward"].numpy()
        self._length = state["length"].numpy().copy()
        self._time = int(state["time"])

    def forget(self, envs: np.ndarray) -> None:
        """Drops the running windows of `envs` (bool [N]): the episodes that they belong to were abandoned."""
        self._length[envs] = 0
