"""Updates of some members of a population: in groups, so that activations fit into the caches of a CPU, and without
those that have ended."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rltrain.engine.algorithm import State


def parts_of(members: int, most: int, least: int, device: torch.device) -> list[slice]:
    """All members on a GPU; on a CPU parts of one size, from `least` to `most`, so that one program serves all. Where
    no such size divides the number of members, all."""
    sizes = [size for size in range(least, most + 1) if members % size == 0] if device.type == "cpu" else []
    size = max(sizes, default=members)
    return [slice(first, first + size) for first in range(0, members, size)]


class Turns:
    """Buffers for state and hyperparameters of one group at a time, the same for all groups: one program serves them.
    Where all learn at once it is the population's own, and nothing is copied.

    Attributes:
        count: the members of a part; of one without the axis M.
    """

    def __init__(self, state: State, knobs: dict[str, Tensor], parts: list[slice]) -> None:
        """`parts` as of `parts_of`."""
        self.parts, self.count = parts, parts[0].stop
        self.state, self.knobs = state, knobs
        self._copied: list[tuple[Tensor, Tensor]] = []  # own memory, and the population's
        if len(parts) > 1:
            networks, optimizer, self.knobs = (
                {name: self._of(tensor, parts[0]).clone() for name, tensor in stacked.items()}
                for stacked in (*state, knobs)
            )
            self.state = State(networks, optimizer)
            of_knobs = [(own, knobs[name]) for name, own in self.knobs.items()]
            self._copied = [*zip(self.state.tensors(), state.tensors(), strict=True), *of_knobs]

    def parts_with(self, running: np.ndarray) -> list[slice]:
        """The parts that have a member that runs, bool [M]; where there is one part alone, that."""
        return [part for part in self.parts if len(self.parts) == 1 or running[part].any()]

    def joined(self, metrics: Sequence[tuple[slice, dict[str, Tensor]]]) -> dict[str, Tensor]:
        """The metrics of parts, [M'] each, as those of all members [M]; 0 for members of no part."""
        if len(self.parts) == 1:
            return metrics[0][1]
        joined = {tag: torch.zeros(self.parts[-1].stop) for _, found in metrics for tag in found}
        for part, found in metrics:
            for tag, value in found.items():
                joined[tag][part] = value
        return joined

    def load(self, members: slice) -> None:
        """Copies the state and the knobs of these members in."""
        for own, stacked in self._copied:
            own.copy_(self._of(stacked, members))

    def store(self, members: slice) -> None:
        """Copies the new state back to these members."""
        for own, stacked in self._copied:
            self._of(stacked, members).copy_(own)

    def _of(self, stacked: Tensor, members: slice) -> Tensor:
        """A view."""
        return stacked[members.start or 0] if self.count == 1 else stacked[members]


class KeptState:
    """A snapshot of retired members' state, restored after each gradient step, which updates all members."""

    def __init__(self, state: State, members: np.ndarray) -> None:
        """members: bool [M]."""
        self._tensors = state.tensors()
        self._members = torch.from_numpy(np.flatnonzero(members)).to(self._tensors[0].device)
        self._kept = [tensor[self._members] for tensor in self._tensors]

    def restore(self) -> None:
        """Writes what was kept back, in place."""
        for tensor, kept in zip(self._tensors, self._kept, strict=True):
            tensor.index_copy_(0, self._members, kept)
