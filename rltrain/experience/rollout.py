"""Rollouts of fixed length: the last T steps of each environment, whichever episodes they are of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rltrain.compute.staging import StagingBuffers
from rltrain.experience.in_place import StepOf
from rltrain.types import ActionSpec, ObservationSpec, Transition


class Rollout(NamedTuple):
    """T consecutive steps of N environments. Of a population [M, T, N, ...]."""

    obs: Tensor  # [T, N, *obs]
    action: Tensor  # [T, N, *action]
    reward: Tensor  # [T, N]
    next_obs: Tensor  # [T, N, *obs], the true successor, also where the episode ended
    terminated: Tensor  # [T, N] bool, the MDP ended: the successor's value is 0
    ended: Tensor  # [T, N] bool, terminated or cut: the next step is of another episode


class Minibatch(NamedTuple):
    """B of the T * N steps, in random order."""

    obs: Tensor  # [B, *obs]
    action: Tensor  # [B, *action]
    columns: dict[str, Tensor]  # numbers of each step that were computed once per rollout, each [B]


class RolloutMemory(NamedTuple):
    """The tensors of a rollout that programs read and write."""

    steps: Rollout  # [M, T, N, ...]
    columns: dict[str, Tensor]  # each [M, T, N]
    made: Tensor  # [1] int64, steps so far


class RolloutBuffer:
    """T = `length` vector steps of N environments, then all are learned from and thrown away.

    The M members of a population make their steps together. The arrays are where the host writes them; a device gets
    them all at once, for an update. With `stepped_there` programs write them on the device, and the host fetches them
    for a checkpoint.

    Args:
        columns: names of the numbers per step that an algorithm computes once per rollout.
    """

    def __init__(
        self, length: int, num_envs: int, observation: ObservationSpec, action: ActionSpec, device: torch.device,
        members: int = 1, columns: Sequence[str] = (), stepped_there: bool = False,
    ) -> None:  # fmt: skip
        self.length, self._members, self._num_envs = length, members, num_envs
        self._stepped_there = stepped_there
        lead = (members, length, num_envs)
        self._steps = StagingBuffers(
            {
                "obs": ((*lead, *observation.shape), getattr(torch, observation.dtype)),
                "action": ((*lead, *action.shape), getattr(torch, action.dtype)),
                "reward": (lead, torch.float32),
                "next_obs": ((*lead, *observation.shape), getattr(torch, observation.dtype)),
                "terminated": (lead, torch.bool),
                "ended": (lead, torch.bool),
            },
            device,
        )
        self._made = StagingBuffers({"made": ((1,), torch.int64)}, device)
        columns_on_device = {name: torch.zeros(lead, device=device) for name in columns}
        self.memory = RolloutMemory(Rollout(**self._steps.on_device), columns_on_device, self._made.on_device["made"])

    @property
    def made(self) -> int:
        """Vector steps so far, those of all members that run."""
        return int(self._made.host["made"][0])

    @made.setter
    def made(self, steps: int) -> None:
        self._made.host["made"][0] = steps

    @property
    def full(self) -> bool:
        """Whether all T steps are there."""
        return self.made == self.length

    @property
    def nbytes(self) -> int:
        """Bytes of all steps."""
        return sum(array.nbytes for array in self._steps.host.values())

    def add(self, transition: Transition) -> None:
        """One vector step; rows of environments that idle hold nothing of meaning."""
        at, t = self.made, transition
        columns = t.obs, t.action, t.reward, t.next_obs, t.terminated, t.terminated | t.truncated
        for array, column in zip(self._steps.host.values(), columns, strict=True):
            if self._members == 1:  # the same in half the time
                array[0, at] = column
            else:
                array[:, at] = column.reshape(self._members, self._num_envs, *column.shape[1:])
        self.made = at + 1

    def playing(self, memory: RolloutMemory, running: Tensor) -> Tensor:
        """All environments [L] of running members. Part of the program."""
        return running

    def store(self, memory: RolloutMemory, step: StepOf) -> None:
        """Writes one step of all environments. Part of the program."""
        columns = Rollout(step.obs, step.action, step.reward, step.next_obs, step.terminated, step.ended)
        for array, column in zip(memory.steps, columns, strict=True):
            array.index_copy_(1, memory.made, column.view(self._members, 1, self._num_envs, *column.shape[1:]))
        memory.made.add_(1)

    def send(self) -> None:
        """Sends the host's counter to the device."""
        self._made.send()

    def fetch(self) -> None:
        """Fetches the device's counter; waits for it."""
        self._made.fetch()

    def send_steps(self) -> None:
        """Sends what the host has written, once it is full."""
        if not self._stepped_there:
            self._steps.send()

    def room(self, members: int) -> RolloutMemory:
        """Memory for `copy`, for this number of members; of all it is the buffer's own."""
        if members == self._members:
            return self.memory
        steps, columns, made = self.memory
        some = {name: torch.zeros_like(column[:members]) for name, column in columns.items()}
        return RolloutMemory(Rollout(*(torch.zeros_like(array[:members]) for array in steps)), some, made)

    def copy(self, into: RolloutMemory, members: slice) -> None:
        """Copies the members' steps, which `send_steps` has sent; `into` is of `room`."""
        if into is self.memory:
            return
        for there, here in zip(into.steps, self.memory.steps, strict=True):
            there.copy_(here[members])

    def clear(self) -> None:
        """Begins anew."""
        self.made = 0

    def rows(self, uniform: np.ndarray) -> np.ndarray:
        """All rows, once per epoch, each time in another order.

        Args:
            uniform: draws from [0, 1), [M, epochs * T * N].

        Returns:
            [M, epochs * T * N] int64
        """
        size = self.length * self._num_envs
        order = uniform.reshape(self._members, -1, size).argsort(-1, kind="stable")  # [M, epochs, T * N]
        order += np.arange(self._members)[:, None, None] * size
        return order.reshape(self._members, -1)

    def batches(self, memory: RolloutMemory, draws: Tensor) -> Iterator[tuple[Any, Minibatch]]:
        """The minibatches of K gradient steps with these `rows`, [K, B] or [K, M, B]. Part of the program."""
        for rows in draws.unbind():
            flat = rows.flatten()
            obs, action = (_gather(array, flat, rows.shape) for array in memory.steps[:2])
            yield (), Minibatch(obs, action, {name: _gather(c, flat, rows.shape) for name, c in memory.columns.items()})

    def feedback(self, memory: RolloutMemory, rows: Any, feedback: Mapping[str, Tensor]) -> None:
        """Does nothing: all steps count alike."""

    def forget(self, envs: np.ndarray) -> None:
        """The running episodes of `envs` (bool [N]) begin anew: as if they had been cut after their last step."""
        if self.made:
            self._host_steps()["ended"][:, self.made - 1][envs.reshape(self._members, -1)] = True
            self._give_back()

    def state_dict(self, member: int = 0) -> dict[str, Tensor]:
        """Copies of the member's steps."""
        made = self.made
        arrays = self._host_steps()
        return {name: torch.from_numpy(array[member, :made].copy()) for name, array in arrays.items()}

    def load_state_dict(self, state: Mapping[str, Tensor], member: int = 0) -> None:
        """Copies in place, but for `made`: a member that has ended may have had another.

        Raises:
            ValueError: more steps than fit.
        """
        made = len(state["reward"])
        if made > self.length:
            raise ValueError(f"a rollout of {self.length} steps cannot continue one of {made}")
        arrays = self._host_steps()
        for name, array in arrays.items():
            array[member, :made] = state[name].numpy()
        self._give_back()

    def _host_steps(self) -> dict[str, np.ndarray]:
        """The arrays, here."""
        return self._steps.fetch() if self._stepped_there else self._steps.host

    def _give_back(self) -> None:
        if self._stepped_there:
            self._steps.send()


def _gather(array: Tensor, rows: Tensor, shape: torch.Size) -> Tensor:
    """array [M, T, N, ...] -> its entries `rows` of the first three axes, [*shape, ...]."""
    return array.flatten(0, 2).index_select(0, rows).view(*shape, *array.shape[3:])
