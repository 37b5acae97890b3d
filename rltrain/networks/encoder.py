"""From observations as replay holds them to the floats that a network's first layer takes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rltrain.types import ObservationSpec


def as_float(obs: Tensor) -> Tensor:
    """uint8 becomes [0, 1] and bool 0 or 1, here and nowhere else; floats stay as they are."""
    if obs.dtype == torch.uint8:
        return obs.to(torch.get_default_dtype()) / 255.0
    return obs.to(torch.get_default_dtype()) if obs.dtype == torch.bool else obs


class ObservationEncoder(nn.Module):
    """Discrete observations become one-hot; boxes are flattened, see `as_float`."""

    def __init__(self, spec: ObservationSpec) -> None:
        super().__init__()
        self._spec = spec
        self.out_features = spec.n if spec.kind == "discrete" else math.prod(spec.shape)

    def forward(self, obs: Tensor) -> Tensor:
        """obs [..., *obs] -> [..., out_features] float."""
        if self._spec.kind == "discrete":
            states = torch.arange(self._spec.n, device=obs.device)
            return (obs.unsqueeze(-1) == states).to(torch.get_default_dtype())
        obs = as_float(obs)
        rank = len(self._spec.shape)
        if rank == 0:
            return obs.unsqueeze(-1)
        return obs.flatten(-rank) if rank > 1 else obs
