"""Uniform experience replay in preallocated arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rltrain.types import ActionSpec, ObservationSpec


class Batch(NamedTuple):
    """B transitions, on the replay's device. `discount` is gamma^n * (1 - terminated), so losses need neither."""

    obs: Tensor  # [B, *obs]
    action: Tensor  # [B, *action]
    reward: Tensor  # [B], the discounted sum of n rewards
    next_obs: Tensor  # [B, *obs]
    discount: Tensor  # [B]


class UniformReplay:
    """The last `capacity` transitions, sampled uniformly with replacement. Lin 1992; Mnih et al. 2015.

    The arrays live on `device`. Rows are written in order and overwritten oldest first.
    """

    def __init__(self, capacity: int, observation: ObservationSpec, action: ActionSpec, device: torch.device) -> None:
        self.capacity = capacity
        self.size = 0
        self._head = 0  # the row that the next transition is written to
        obs_dtype = getattr(torch, observation.dtype)
        action_dtype = torch.int64 if action.kind == "discrete" else torch.float32
        self._arrays = Batch(
            obs=torch.zeros(capacity, *observation.shape, dtype=obs_dtype, device=device),
            action=torch.zeros(capacity, *action.shape, dtype=action_dtype, device=device),
            reward=torch.zeros(capacity, dtype=torch.float32, device=device),
            next_obs=torch.zeros(capacity, *observation.shape, dtype=obs_dtype, device=device),
            discount=torch.zeros(capacity, dtype=torch.float32, device=device),
        )
        # On the CPU these are views of the same memory: writing one row through NumPy costs a tenth of torch's way.
        self._views = [array.numpy() for array in self._arrays] if device.type == "cpu" else None
        self._device = device

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(array.numel() * array.element_size() for array in self._arrays)

    def add(self, *columns: np.ndarray) -> None:
        """Writes K transitions: obs, action, reward, next_obs, discount, each [K, ...], copied."""
        count = len(columns[0])
        if count > self.capacity:
            columns = tuple(column[-self.capacity :] for column in columns)
            count = self.capacity
        until_end = min(count, self.capacity - self._head)
        self._write(self._head, [column[:until_end] for column in columns])
        if until_end < count:
            self._write(0, [column[until_end:] for column in columns])
        self._head = (self._head + count) % self.capacity
        self.size = min(self.size + count, self.capacity)

    def _write(self, start: int, columns: list[np.ndarray]) -> None:
        stop = start + len(columns[0])
        if self._views is not None:
            for view, column in zip(self._views, columns, strict=True):
                view[start:stop] = column
        else:
            for array, column in zip(self._arrays, columns, strict=True):
                array[start:stop].copy_(torch.from_numpy(np.ascontiguousarray(column)), non_blocking=True)

    def sample(self, uniform: np.ndarray) -> Batch:
        """The transitions that `uniform` [B], draws from [0, 1), select."""
        rows = torch.from_numpy((uniform * self.size).astype(np.int64)).to(self._device, non_blocking=True)  # [B]
        return Batch(*(array.index_select(0, rows) for array in self._arrays))

    def state_dict(self) -> dict[str, Tensor]:
        """Views of the rows in use, in the order in which they lie, and [head]: all that continuing exactly needs."""
        rows = {name: array[: self.size] for name, array in zip(Batch._fields, self._arrays, strict=True)}
        return {**rows, "head": torch.tensor([self._head])}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
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
        for name, array in zip(Batch._fields, self._arrays, strict=True):
            array[:size].copy_(state[name])
        self.size, self._head = size, head
