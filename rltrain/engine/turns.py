"""Members of a population that learn some at a time: on a CPU the activations of all would not fit into its caches."""

from __future__ import annotations

from collections.abc import Mapping

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
    """The state and knobs of `count` members in memory of their own, so that one program serves all in turn."""

    def __init__(self, state: State, knobs: Mapping[str, Tensor], count: int) -> None:
        """`count` of one: without the axis M."""
        self._all_state, self._all_knobs = state, knobs
        self._count = count
        networks, optimizer, self.knobs = (
            {name: self._of(tensor, slice(count)).clone() for name, tensor in stacked.items()}
            for stacked in (*state, knobs)
        )
        self.state = State(networks, optimizer)

    def load(self, members: slice) -> None:
        """Copies the state and the knobs of these members in."""
        for own, stacked in zip(self.state.tensors(), self._all_state.tensors(), strict=True):
            own.copy_(self._of(stacked, members))
        for name, own in self.knobs.items():
            own.copy_(self._of(self._all_knobs[name], members))

    def store(self, members: slice) -> None:
        """Copies the new state back to these members."""
        for own, stacked in zip(self.state.tensors(), self._all_state.tensors(), strict=True):
            self._of(stacked, members).copy_(own)

    def _of(self, stacked: Tensor, members: slice) -> Tensor:
        """A view."""
        return stacked[members.start or 0] if self._count == 1 else stacked[members]
