"""n-step returns, assembled before the replay: what is stored is ready for a one-step loss."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from rltrain.compute.staging import StagingBuffers
from rltrain.experience.in_place import Window, window_weights
from rltrain.types import ActionSpec, ObservationSpec, Transition

Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""obs, action, reward, next_obs, discount: each [K, ...]."""
_ALL = slice(None)
_CPU = torch.device("cpu")


class NStepWindow:
    """Turns single steps of N environments into n-step transitions. Sutton & Barto 2018, equation 7.1.

    The transition of step t has reward sum_{k<m} gamma^k r_{t+k}, next_obs s_{t+m} and discount
    gamma^m * (1 - terminated), where m = n, or less where the episode ended sooner: a partial window at the end of an
    episode is discounted with its own length, and no window crosses an end. A truncated episode keeps its discount.
    """

    def __init__(
        self,
        n: int,
        gamma: float | np.ndarray,
        num_envs: int,
        observation: ObservationSpec,
        action: ActionSpec,
        device: torch.device = _CPU,
    ) -> None:
        """`gamma` may differ from environment to environment: then it is [N]. `device` is where a program of fixed
        shapes may do what `push` does (`on_device`)."""
        self._n = n
        gammas = np.broadcast_to(np.asarray(gamma, np.float64), num_envs)
        self._powers = np.array([gammas**k for k in range(n + 1)])  # [n + 1, N]
        self._shared = StagingBuffers(
            {
                "obs": ((n, num_envs, *observation.shape), getattr(torch, observation.dtype)),
                "action": ((n, num_envs, *action.shape), getattr(torch, action.dtype)),
                "reward": ((n, num_envs), torch.float32),
                "length": ((num_envs,), torch.int64),  # steps of the running episode in the window, at most n
                "time": ((1,), torch.int64),  # steps ever made
            },
            device,
        )
        shared = self._shared.host
        self._rings = {name: shared[name] for name in ("obs", "action", "reward")}
        self._obs, self._action, self._reward = self._rings.values()
        self._length, self._time = shared["length"], shared["time"]
        self._envs = np.arange(num_envs)

    def on_device(self) -> Window:
        """The window's memory there, always the same: for `TransitionStore`, between `send` and `fetch`."""
        weights, discounts = window_weights(self._powers)
        shared = self._shared.on_device
        device = shared["time"].device
        constants = (torch.from_numpy(array).to(device) for array in (weights, discounts))
        return Window(*(shared[name] for name in ("obs", "action", "reward", "length", "time")), *constants)

    def send(self) -> None:
        self._shared.send()

    def fetch(self) -> None:
        self._shared.fetch()

    def push(self, transition: Transition) -> list[tuple[np.ndarray, Columns]]:
        """The n-step transitions that this step completes, the longest windows first, with the environments [K] that
        they come from, ascending. Idle ones give none."""
        active = transition.active
        ended = (transition.terminated | transition.truncated) & active  # [N]
        if self._n == 1:
            return [self._single_steps(transition)]
        slot = self._time[0] % self._n
        self._obs[slot], self._action[slot], self._reward[slot] = transition.obs, transition.action, transition.reward
        self._time += 1
        np.minimum(self._length + active, self._n, out=self._length)
        shortest = 1 if ended.any() else self._n
        completed = [self._window(m, transition, ended) for m in range(self._n, shortest - 1, -1)]
        self._length[ended] = 0
        return [window for window in completed if len(window[0])]

    def _single_steps(self, transition: Transition) -> tuple[np.ndarray, Columns]:
        discount = (self._powers[1] * ~transition.terminated).astype(np.float32)
        columns = (transition.obs, transition.action, transition.reward, transition.next_obs, discount)
        if transition.active.all():
            return self._envs, columns
        envs = self._envs[transition.active]
        obs, action, reward, next_obs, discount = (column[envs] for column in columns)
        return envs, (obs, action, reward, next_obs, discount)

    def _window(self, m: int, transition: Transition, ended: np.ndarray) -> tuple[np.ndarray, Columns]:
        """The windows of length m that end with this step: full ones, and those that an episode's end cuts short."""
        envs = np.nonzero((self._length >= m) & (ended | ((m == self._n) & transition.active)))[0]
        slots = [(self._time[0] - m + k) % self._n for k in range(m)]
        reward = (self._powers[:m, envs] * self._reward[slots][:, envs]).sum(0)  # [K]
        discount = self._powers[m, envs] * ~transition.terminated[envs]  # [K]
        return envs, (
            self._obs[slots[0], envs],
            self._action[slots[0], envs],
            reward.astype(np.float32),
            transition.next_obs[envs],
            discount.astype(np.float32),
        )

    def state_dict(self, envs: slice = _ALL) -> dict[str, Tensor]:
        """Copies, of the environments `envs`."""
        arrays = {name: ring[:, envs] for name, ring in self._rings.items()}
        arrays |= {"length": self._length[envs], "time": self._time}
        return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}

    def load_state_dict(self, state: Mapping[str, Tensor], envs: slice = _ALL) -> None:
        # The slots of one environment are counted from its own last step: another's step count may differ.
        shift = self._time_of(int(state["time"]), envs)
        for name, ring in self._rings.items():
            ring[:, envs] = np.roll(state[name].numpy(), shift, 0)
        self._length[envs] = state["length"].numpy()

    def _time_of(self, time: int, envs: slice) -> int:
        """Takes over the step count where all environments are loaded; else by how far the slots must be turned."""
        if envs == _ALL or self._time[0] == 0:
            self._time[0] = time
        return int(self._time[0] - time) % self._n

    def forget(self, envs: np.ndarray) -> None:
        """Drops the running windows of `envs` (bool [N]): the episodes that they belong to were abandoned."""
        self._length[envs] = 0
