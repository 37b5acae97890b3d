"""Frames of stacked observations, each kept once: replay and n-step windows hold the numbers of frames in their place.

A stack of four 84 x 84 frames and its successor are eight frames, 56 kB, of which one is new.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from rltrain.errors import RunFailed
from rltrain.types import ObservationSpec, Ring, Stack, Transition

_UNUSED = -(1 << 62)


class Frames:
    """A ring of frames for each of M members, and the stack that each of their M * N environments shows now.

    A frame is overwritten once no row of the member's replay has it any more. Numbers 0..capacity-1 are a member's own;
    `capacity` stands for zeros, which fill the stack of a new episode where `frame_stack` has `padding: zero`.

    Args:
        observation: whose `stack` says how it is made of frames.
        transitions: rows of each member's replay.
        num_envs: N of each member.
        n_step: steps for which transitions wait before they are in the replay.

    Attributes:
        spec: of the numbers, which take the place of observations.
        data: [M * (capacity + 1), *frame], always the same memory: what `unstacked` reads.
    """

    def __init__(
        self,
        observation: ObservationSpec,
        transitions: int,
        num_envs: int,
        n_step: int,
        device: torch.device,
        members: int = 1,
    ) -> None:
        assert observation.stack is not None
        self._stack: Stack = observation.stack
        self._obs_shape, self._transitions = observation.shape, transitions
        self._members, self._num_envs = members, num_envs
        waiting = num_envs * (self._stack.size + n_step)
        self.capacity = self._stack.kept(observation, transitions) + 2 * waiting
        self.spec = ObservationSpec("box", (self._stack.size,), "int32")
        rows = members * (self.capacity + 1)
        self.data = torch.zeros(rows, *self._stack.shape, dtype=getattr(torch, observation.dtype), device=device)
        self._view = self.data.numpy() if device.type == "cpu" else None
        self._written = np.zeros(members, np.int64)  # frames that each member ever kept
        # Rows of the replay are counted over all that were ever written: the last one that has the frame, and how many.
        self._last_row = np.full((members, self.capacity), _UNUSED)
        self._rows = np.zeros(members, np.int64)
        self._shown = np.full((members * num_envs, self._stack.size), self.capacity, np.int32)  # [M * N, S]
        self._begins = np.ones(members * num_envs, np.bool_)  # the next observation is an episode's first

    @property
    def nbytes(self) -> int:
        """Bytes of all frames and of the notes about them."""
        return self.data.nbytes + self._last_row.nbytes

    def numbered(self, transition: Transition, ended: Collection[int]) -> Transition:
        """Keeps the new frames of a step; the transition with the numbers of frames [M * N, S] as observations.

        Args:
            ended: the environments whose episodes ended with it. A lost life, too, is `terminated`: its stack goes on.

        Raises:
            RunFailed: there is no room for them.
        """
        active = transition.active
        for env in np.flatnonzero(self._begins & active).tolist():
            frames = self._stack.split(transition.obs[env : env + 1])[0]
            self._shown[env] = self._keep_stack(env // self._num_envs, frames)
        self._begins &= ~active
        obs, envs = self._shown, np.flatnonzero(active)
        next_obs = np.roll(obs, -1, 1)
        next_obs[envs, -1] = self._keep(envs // self._num_envs, self._stack.split(transition.next_obs)[envs, -1])
        self._shown = np.where(active[:, None], next_obs, obs)
        self._begins[list(ended)] = True
        return replace(transition, obs=obs, next_obs=next_obs)

    def forget(self, envs: np.ndarray) -> None:
        """The episodes of `envs` (bool [M * N]) were abandoned: their next observations are first ones."""
        self._begins |= envs

    def kept_in(self, members: np.ndarray, rows: np.ndarray, obs: np.ndarray, next_obs: np.ndarray) -> None:
        """Notes that `rows` [K] of the replays of `members` [K] have these numbers [K, S]. Rows are counted over all
        that were ever written, and ascend for each member."""
        numbers = np.concatenate([obs, next_obs], 1)  # where a number is repeated, the last row is the one that counts
        real = numbers < self.capacity
        owners, counted = (np.broadcast_to(of[:, None], numbers.shape)[real] for of in (members, rows))
        self._last_row[owners, numbers[real]] = counted
        np.maximum.at(self._rows, members, rows + 1)

    def unstacked(self, data: Tensor, numbers: Tensor, members: Tensor) -> Tensor:
        """Observations [..., *obs] of numbers [..., S] of `members` [...]: part of the update."""
        places = numbers + (members * (self.capacity + 1)).unsqueeze(-1)
        frames = data.index_select(0, places.flatten()).view(-1, self._stack.size, *self._stack.shape)
        return frames.movedim(1, self._stack.axis + 1).reshape(*numbers.shape[:-1], *self._obs_shape)

    def _keep_stack(self, member: int, frames: np.ndarray) -> np.ndarray:
        """The numbers [S] of an episode's first stack [S, *frame], most of which are one frame, or zeros."""
        numbers, known = np.empty(len(frames), np.int32), {bytes(frames[0].nbytes): self.capacity}
        for place in reversed(range(len(frames))):
            content = frames[place].tobytes()
            if content not in known:
                known[content] = self._keep_one(member, frames[place])
            numbers[place] = known[content]
        return numbers

    def _keep_one(self, member: int, frame: np.ndarray) -> int:
        return int(self._keep(np.array([member]), frame[None])[0])

    def _keep(self, members: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Writes frames [K, *frame] of `members` [K], ascending; their numbers [K]."""
        counts = np.bincount(members, minlength=self._members)  # [M]
        rank = np.arange(len(members)) - (np.cumsum(counts) - counts)[members]
        numbers: np.ndarray = (self._written[members] + rank) % self.capacity
        if (self._last_row[members, numbers] >= self._rows[members] - self._transitions).any():
            raise RunFailed(
                f"algo.buffer_size={self._transitions}: the replay has no room for another frame. It has"
                f" {self.capacity:,}, a twentieth more than transitions for the first ones of episodes, which are too"
                " short for that; a small replay has twice as many"
            )
        self._last_row[members, numbers] = _UNUSED
        self._written += counts
        rows = members * (self.capacity + 1) + numbers
        if self._view is not None:
            self._view[rows] = frames
        else:
            where = torch.from_numpy(rows).to(self.data.device, non_blocking=True)
            self.data[where] = torch.from_numpy(np.ascontiguousarray(frames)).to(self.data.device, non_blocking=True)
        return numbers

    def _own(self, member: int) -> tuple[slice, slice]:
        """The member's frames in use, and its environments."""
        start, first = member * (self.capacity + 1), member * self._num_envs
        used = min(int(self._written[member]), self.capacity)
        return slice(start, start + used), slice(first, first + self._num_envs)

    def state_dict(self, member: int = 0) -> dict[str, Tensor]:
        """Views of the member's frames in use, in the order in which they lie, and what its environments show."""
        used, envs = self._own(member)
        return {
            "data": self.data[used],
            "written": torch.tensor([int(self._written[member])]),
            "shown": torch.from_numpy(self._shown[envs].copy()),
            "begins": torch.from_numpy(self._begins[envs].copy()),
        }

    def ring(self, prefix: str, member: int = 0) -> Ring:
        """The layout of the member's frames, for saving them under names that begin with `prefix.`."""
        return Ring((f"{prefix}.data",), self.capacity, int(self._written[member]))

    def load_state_dict(self, state: Mapping[str, Tensor], member: int = 0) -> None:
        """Copies in place; which rows of the replay have them is told by `kept_in`, afterwards.

        Raises:
            ValueError: another number of frames, or of another shape.
        """
        self._written[member], found = int(state["written"]), state["data"]
        self._last_row[member], self._rows[member] = _UNUSED, 0
        used, envs = self._own(member)
        own = self.data[used]
        if own.shape != found.shape or own.dtype != found.dtype:
            expected = f"{tuple(own.shape)}, {own.dtype}"
            raise ValueError(f"frames are {tuple(found.shape)}, {found.dtype}: expected {expected}")
        own.copy_(found)
        self.check(state["shown"])
        self._shown[envs], self._begins[envs] = state["shown"].numpy(), state["begins"].numpy()

    def check(self, numbers: Tensor) -> None:
        """Raises ValueError where numbers of a checkpoint are none of frames."""
        if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) <= self.capacity:
            raise ValueError(f"frames are numbered 0..{self.capacity}, not {int(numbers.min())}..{int(numbers.max())}")

    def adopt(
        self, replay: Mapping[str, Tensor], window: Mapping[str, Tensor], member: int = 0
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The states of a replay and of an n-step window that hold observations whole, as those of earlier versions do,
        with the numbers of frames in their place."""
        known: dict[bytes, int] = {bytes(self.data[0].nbytes): self.capacity}

        def number(frame: np.ndarray) -> int:
            content = frame.tobytes()
            key = blake2b(content).digest() if frame.any() else content
            if key not in known:
                known[key] = self._keep_one(member, frame)
            return known[key]

        def numbers(obs: np.ndarray) -> list[int]:
            return [number(frame) for frame in self._stack.split(obs[None])[0]]

        obs, next_obs = replay["obs"].numpy(), replay["next_obs"].numpy()
        found = np.empty((2, len(obs), self._stack.size), np.int32)
        for row in np.roll(np.arange(len(obs)), -int(replay["head"])):  # the oldest first
            found[:, row] = numbers(obs[row]), numbers(next_obs[row])
        waiting = window["obs"]  # [n, N, *obs]
        in_window = [numbers(one) for one in waiting.flatten(0, 1).numpy()]
        self._begins[self._own(member)[1]] = True
        return (
            {**replay, "obs": torch.from_numpy(found[0]), "next_obs": torch.from_numpy(found[1])},
            {**window, "obs": torch.tensor(in_window, dtype=torch.int32).view(*waiting.shape[:2], -1)},
        )
