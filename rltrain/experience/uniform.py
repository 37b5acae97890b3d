"""Uniform experience replay in preallocated arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rltrain.compute.staging import StagingBuffers
from rltrain.experience.batch import Batch
from rltrain.experience.frames import Frames
from rltrain.experience.in_place import StepOf, Window, store
from rltrain.types import ActionSpec, ObservationSpec, Ring


class ReplayMemory(NamedTuple):
    """The tensors of a replay that a program reads and writes; always the same ones."""

    arrays: Batch  # [capacity * M, ...]
    written: Tensor  # [M]
    frames: tuple[Tensor, ...]  # `Frames.data`, where there are some


def uniform_rows(uniform: Tensor, written: Tensor, capacity: int) -> Tensor:
    """The rows that draws from [0, 1) select among those in use, each member's among its own: a pure function, part of
    the update.

    Args:
        uniform: [..., B] float64, or [..., M, B].
        written: [M], see `UniformReplay.written`.
    """
    size = written.clamp(max=capacity)  # [M]
    if len(size) == 1:
        return (uniform * size).long()
    starts = torch.arange(len(size), device=size.device) * capacity  # [M]
    return (uniform * size.unsqueeze(-1)).long() + starts.unsqueeze(-1)


class UniformReplay:
    """The last `capacity` transitions, sampled uniformly with replacement. Lin 1992; Mnih et al. 2015.

    The arrays live on `device`. Rows are written in order and overwritten oldest first. A population has one ring per
    member, all in the same arrays: member m's rows are [m * capacity, (m + 1) * capacity).

    Rows are counted where they are written. What `add` writes counts on the host, and on the device from `send_counts`
    on; what a program writes with `store` counts on the device, and on the host from `fetch_counts` on. Sizes, states
    and the places of `add` are those of the host's count.

    Args:
        spare_row: one row more at the end of the arrays, where a program of fixed shapes writes what is not kept.
        frames: of stacked observations: rows hold the numbers of frames in place of `observation`, and batches frames.
    """

    def __init__(
        self,
        capacity: int,
        observation: ObservationSpec,
        action: ActionSpec,
        device: torch.device,
        members: int = 1,
        spare_row: bool = False,
        frames: Frames | None = None,
    ) -> None:
        self.capacity = capacity
        self._frames = frames
        if frames is not None:
            observation = frames.spec
        self._members = members
        self._counts = StagingBuffers({"written": ((members,), torch.int64)}, device)
        self._starts = np.arange(members) * capacity  # [M] where each member's rows begin
        rows = members * capacity + spare_row
        obs_dtype = getattr(torch, observation.dtype)
        self._arrays = Batch(
            obs=torch.zeros(rows, *observation.shape, dtype=obs_dtype, device=device),
            action=torch.zeros(rows, *action.shape, dtype=getattr(torch, action.dtype), device=device),
            reward=torch.zeros(rows, dtype=torch.float32, device=device),
            next_obs=torch.zeros(rows, *observation.shape, dtype=obs_dtype, device=device),
            discount=torch.zeros(rows, dtype=torch.float32, device=device),
        )
        # On the CPU these are views of the same memory: writing one row through NumPy costs a tenth of torch's way.
        self._views = [array.numpy() for array in self._arrays] if device.type == "cpu" else None
        self._device = device

    @property
    def size(self) -> int:
        """Transitions of the fullest member."""
        return int(min(self._written.max(), self.capacity))

    @property
    def _written(self) -> np.ndarray:
        """[M] the rows that each member ever wrote, up to a multiple of the capacity, as the host knows: the next one
        goes to row `written % capacity`, and `min(written, capacity)` are in use."""
        return self._counts.host["written"]

    @property
    def written(self) -> Tensor:
        """The same on the device: part of the program."""
        return self._counts.on_device["written"]

    def send_counts(self) -> None:
        """Copies the counters of what was written to the device."""
        self._counts.send()

    def fetch_counts(self) -> None:
        """Copies the counters back from the device, on which programs write; waits for them."""
        self._counts.fetch()

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(array.nbytes for array in self._arrays) + (self._frames.nbytes if self._frames is not None else 0)

    def add(self, *columns: np.ndarray, members: np.ndarray | None = None) -> None:
        """Writes K transitions: obs, action, reward, next_obs, discount, each [K, ...], copied.

        Args:
            members: [K], ascending: whose they are. None: the only member's.
        """
        ahead = np.arange(len(columns[0]))  # [K] which of its member's own rows each is
        if members is None or self._members == 1:
            self._tell_frames(np.zeros_like(ahead), ahead, columns)
            self._add_in_a_row(0, columns)
            return
        counts = np.bincount(members, minlength=self._members)  # [M]
        first = np.cumsum(counts) - counts  # [M] each member's first row of the columns
        ahead -= first[members]
        self._tell_frames(members, ahead, columns)
        if counts.max() <= self.capacity:
            self._add_scattered(members, ahead, columns, counts)
            return
        for member in np.flatnonzero(counts):
            own = slice(first[member], first[member] + counts[member])
            self._add_in_a_row(int(member), tuple(column[own] for column in columns))

    def _tell_frames(self, members: np.ndarray, ahead: np.ndarray, columns: tuple[np.ndarray, ...]) -> None:
        """Notes which rows will have their frames: those `ahead` [K] of the last ones of `members` [K]."""
        if self._frames is not None:
            self._frames.kept_in(members, self._written[members] + ahead, columns[0], columns[3])

    def _add_scattered(
        self, members: np.ndarray, ahead: np.ndarray, columns: tuple[np.ndarray, ...], counts: np.ndarray
    ) -> None:
        """Writes rows of several `members` [K] at once, the `ahead`-th next ones [K] of each, `counts` [M] that fit."""
        written = self._written
        places = (written[members] + ahead) % self.capacity  # [K]
        self._write(self._starts[members] + places, columns)
        written += counts

    def _add_in_a_row(self, member: int, columns: tuple[np.ndarray, ...]) -> None:
        """Writes rows of one member as slices, two where they reach the end; of too many the last ones."""
        count = len(columns[0])
        if count > self.capacity:
            columns = tuple(column[-self.capacity :] for column in columns)
            count = self.capacity
        start, head = member * self.capacity, int(self._written[member]) % self.capacity
        until_end = min(count, self.capacity - head)
        if until_end == count:
            self._write(slice(start + head, start + head + count), columns)
        else:
            self._write(slice(start + head, start + self.capacity), tuple(column[:until_end] for column in columns))
            self._write(slice(start, start + count - until_end), tuple(column[until_end:] for column in columns))
        self._written[member] += count

    def _write(self, rows: slice | np.ndarray, columns: tuple[np.ndarray, ...]) -> None:
        if self._views is not None:
            for view, column in zip(self._views, columns, strict=True):
                view[rows] = column
            return
        where = rows if isinstance(rows, slice) else torch.from_numpy(rows).to(self._device, non_blocking=True)
        for array, column in zip(self._arrays, columns, strict=True):
            array[where] = torch.from_numpy(np.ascontiguousarray(column)).to(self._device, non_blocking=True)

    @property
    def memory(self) -> Any:
        """The first argument of `batches`, `feedback` and `store`, on the device."""
        return ReplayMemory(self._arrays, self.written, self.frames)

    @property
    def frames(self) -> tuple[Tensor, ...]:
        """The memory of the frames, where there are some."""
        return () if self._frames is None else (self._frames.data,)

    def batches(self, memory: Any, uniform: Tensor) -> Iterator[tuple[Tensor, Any]]:
        """Rows and transitions of K gradient steps, [B] or [M, B] each: part of the program; uniform [K, M, B]."""
        rows = uniform_rows(uniform, memory.written, self.capacity)
        for of_step in rows.unbind():
            yield of_step, self.gather(memory, of_step)

    def gather(self, memory: Any, rows: Tensor) -> Batch:
        """The transitions in `rows`, [B] or [M, B]: part of the program."""
        flat = rows.flatten()
        columns = (array.index_select(0, flat).view(*rows.shape, *array.shape[1:]) for array in memory.arrays)
        batch = Batch(*columns)
        if self._frames is None:
            return batch
        (data,), members = memory.frames, rows // self.capacity
        obs, next_obs = (self._frames.unstacked(data, x, members) for x in (batch.obs, batch.next_obs))
        return batch._replace(obs=obs, next_obs=next_obs)

    def feedback(self, memory: Any, rows: Tensor, feedback: Mapping[str, Tensor]) -> None:
        """Takes an update's results of its rows, such as TD errors, which uniform sampling ignores. In the program."""

    def store(self, memory: Any, window: Window, step: StepOf) -> None:
        """Writes the transitions that a step of all environments completes. Part of the program."""
        store(memory.arrays, memory.written, window, step, self.capacity)

    def diagnostics(self, member: int = 0) -> dict[str, float]:
        """The mean age of what is sampled, in transitions stored since."""
        size = min(int(self._written[member]), self.capacity)
        return {"diagnostics/replay_age": (size - 1) / 2} if size else {}

    def state_dict(self, member: int = 0) -> dict[str, Tensor]:
        """Views of the member's rows in use, in the order in which they lie, and [head]: all that continuing exactly
        needs."""
        start = int(self._starts[member])
        written = int(self._written[member])
        own = slice(start, start + min(written, self.capacity))
        rows = {name: array[own] for name, array in zip(Batch._fields, self._arrays, strict=True)}
        return {**rows, "head": torch.tensor([written % self.capacity])}

    def ring(self, prefix: str, member: int = 0) -> Ring:
        """The layout of the member's rows, for saving them under names that begin with `prefix.`."""
        names = tuple(f"{prefix}.{name}" for name in Batch._fields)
        return Ring(names, self.capacity, int(self._written[member]))

    def load_state_dict(self, state: Mapping[str, Tensor], member: int = 0) -> None:
        """Copies in place.

        Raises:
            ValueError: rows of another shape or kind, or a ring that this one cannot continue.
        """
        size, head = len(state["reward"]), int(state["head"])
        if size > self.capacity or head not in (range(size) if size == self.capacity else [size]):
            raise ValueError(f"a replay of {self.capacity} cannot continue one of {size} rows with its head at {head}")
        for name, array in zip(Batch._fields, self._arrays, strict=True):
            rows, expected = state[name], (size, *array.shape[1:])
            if tuple(rows.shape) != expected or rows.dtype != array.dtype:
                raise ValueError(
                    f"a replay cannot hold {name} of shape {tuple(rows.shape)}, {rows.dtype}: "
                    f"expected {expected}, {array.dtype}"
                )
        if self._frames is not None:
            self._frames.check(state["obs"])
            self._frames.check(state["next_obs"])
        start = int(self._starts[member])
        for name, array in zip(Batch._fields, self._arrays, strict=True):
            array[start : start + size].copy_(state[name])
        self._written[member] = size if size < self.capacity else self.capacity + head
        if self._frames is not None:
            order = np.roll(np.arange(size), -head)  # the oldest first
            rows = np.arange(size) + self._written[member] - size
            own = (state[name].numpy()[order] for name in ("obs", "next_obs"))
            self._frames.kept_in(np.full(size, member), rows, *own)
