"""Proportional prioritized replay. Schaul et al. 2016, with importance weights normalised within each batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rltrain.config.schema import PrioritizedConfig
from rltrain.experience.batch import Batch, WeightedBatch
from rltrain.experience.in_place import StepOf, Window, places_of, store
from rltrain.experience.uniform import UniformReplay


class PrioritizedMemory(NamedTuple):
    """The tensors that a program reads and writes; always the same ones."""

    arrays: Batch  # [capacity * M, ...]
    written: Tensor  # [M]
    tree: Tensor  # [M, 2 * leaves] float64: node 1 is the root, node i the sum of 2i and 2i + 1, leaf r is leaves + r
    largest: Tensor  # [M] float64, the largest priority so far, which new transitions get
    updates: Tensor  # [M] int64, gradient steps so far
    frames: tuple[Tensor, ...]  # `Frames.data`, where there are some


class PrioritizedReplay(UniformReplay):
    """Row i is drawn with probability p_i / sum p, p_i = (|error_i| + eps)^alpha, and its loss weighs
    (size * P(i))^-beta, divided by the largest weight of the batch. Beta rises linearly to 1.

    The priorities lie in a sum tree: a draw and a write take one operation per level.
    """

    def __init__(self, config: PrioritizedConfig, capacity: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(capacity, *args, **kwargs)
        self._config = config
        self._depth = capacity.bit_length()  # one leaf more than rows: what is not kept has its place there, with 0
        self._leaves = 1 << self._depth
        device = self.written.device
        self._tree = torch.zeros(self._members, 2 * self._leaves, dtype=torch.float64, device=device)
        self._largest = torch.ones(self._members, dtype=torch.float64, device=device)
        self._updates = torch.zeros(self._members, dtype=torch.int64, device=device)

    @property
    def memory(self) -> PrioritizedMemory:
        return PrioritizedMemory(self._arrays, self.written, self._tree, self._largest, self._updates, self.frames)

    @property
    def nbytes(self) -> int:
        return super().nbytes + self._tree.numel() * self._tree.element_size()

    def batches(self, memory: PrioritizedMemory, uniform: Tensor) -> Iterator[tuple[Tensor, WeightedBatch]]:
        for draws in uniform.unbind():  # [B] or [M, B]; each after the feedback of the one before
            rows, probability = self._draw(memory.tree, memory.written, draws.view(self._members, -1))
            size = memory.written.clamp(max=self.capacity).unsqueeze(1)  # [M, 1]
            share = (memory.updates / self._config.beta_steps).clamp(max=1.0).unsqueeze(1)
            beta = self._config.beta + (1.0 - self._config.beta) * share
            weight = (size * probability).pow(-beta)
            weight = weight / weight.amax(1, keepdim=True)
            memory.updates.add_(1)
            batch = self.gather(memory, (rows + self._first_rows(rows)).view(draws.shape))
            yield rows, WeightedBatch(*batch, weight.to(batch.reward.dtype).view(draws.shape))

    def _draw(self, tree: Tensor, written: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Each member's rows and their probabilities, both [M, B], for draws [M, B] from [0, 1)."""
        mass = uniform * tree[:, 1:2]
        node = torch.ones_like(mass, dtype=torch.int64)
        for _ in range(self._depth):
            left = tree.gather(1, 2 * node)
            right = mass >= left
            mass = torch.where(right, mass - left, mass)
            node = 2 * node + right
        # Rounding may lead past the last row in use.
        last = written.clamp(max=self.capacity).unsqueeze(1) - 1
        rows = torch.minimum(node - self._leaves, last)
        return rows, tree.gather(1, rows + self._leaves) / tree[:, 1:2]

    def feedback(self, memory: PrioritizedMemory, rows: Tensor, feedback: Mapping[str, Tensor]) -> None:
        error = feedback["error"].view(self._members, -1).double()
        priority = (error.abs() + self._config.eps) ** self._config.alpha  # [M, B]
        self._set(memory.tree, rows, priority)
        memory.largest.copy_(torch.maximum(memory.largest, priority.amax(1)))

    def store(self, memory: PrioritizedMemory, window: Window, step: StepOf) -> None:
        before = memory.written.clone()
        kept = store(memory.arrays, memory.written, window, step, self.capacity)  # [M, n * N]
        places = places_of(before, kept, self.capacity)
        rows = torch.where(kept, places - self._first_rows(places), self.capacity)
        self._set(memory.tree, rows, torch.where(kept, memory.largest.unsqueeze(1), 0.0))

    def _set(self, tree: Tensor, rows: Tensor, priority: Tensor) -> None:
        """Both [M, K]: the leaves, and all sums above them."""
        # Not scatter_: a compiled program would copy the tree for each of them.
        member, node = torch.arange(len(tree), device=tree.device).unsqueeze(1), rows + self._leaves
        tree.index_put_((member, node), priority)
        for _ in range(self._depth):
            node = node // 2
            tree.index_put_((member, node), tree.gather(1, 2 * node) + tree.gather(1, 2 * node + 1))

    def _first_rows(self, rows: Tensor) -> Tensor:
        """[M, 1] where each member's rows begin in the arrays."""
        return torch.arange(self._members, device=rows.device).unsqueeze(1) * self.capacity

    def _write(self, rows: slice | np.ndarray, columns: tuple[np.ndarray, ...]) -> None:
        super()._write(rows, columns)
        places = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        for member in np.unique(places // self.capacity).tolist():
            own = torch.from_numpy(places[places // self.capacity == member] % self.capacity).to(self._tree.device)
            largest = self._largest[member].expand(1, len(own))
            self._set(self._tree[member : member + 1], own.unsqueeze(0), largest)

    def diagnostics(self, member: int = 0) -> dict[str, float]:
        """The mean age of what is sampled; and (sum p)^2 / (size * sum p^2), the share of the rows it comes from: 1
        where all priorities are equal, 1 / size where one row gets all draws."""
        written, capacity = int(self._written[member]), self.capacity
        size = min(written, capacity)
        priority = self._tree[member, self._leaves : self._leaves + size]
        total = priority.sum()
        if not total > 0:
            return {}
        age = (written - 1 - torch.arange(size, device=priority.device)) % capacity
        share = total.square() / (size * priority.square().sum())
        return {
            "diagnostics/replay_age": float((priority * age).sum() / total),
            "diagnostics/priority_share": float(share),
        }

    def state_dict(self, member: int = 0) -> dict[str, Tensor]:
        state = super().state_dict(member)
        size = len(state["reward"])
        own = {
            "priority": self._tree[member, self._leaves : self._leaves + size],
            "largest": self._largest[member : member + 1],
            "updates": self._updates[member : member + 1],
        }
        return {**state, **own}

    def load_state_dict(self, state: Mapping[str, Tensor], member: int = 0) -> None:
        super().load_state_dict(state, member)
        size = len(state["reward"])
        if state["priority"].shape != (size,):
            raise ValueError(f"a replay of {size} rows has {len(state['priority'])} priorities")
        tree = self._tree[member]
        tree.zero_()
        tree[self._leaves : self._leaves + size].copy_(state["priority"])
        for level in reversed(range(self._depth)):
            nodes, below = slice(1 << level, 2 << level), tree[2 << level : 4 << level]
            tree[nodes] = below[0::2] + below[1::2]
        self._largest[member : member + 1].copy_(state["largest"])
        self._updates[member : member + 1].copy_(state["updates"])
