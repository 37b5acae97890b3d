"""From observations as replay holds them to the floats that a network's first layer takes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rltrain.types import ObservationSpec


class ObservationEncoder(nn.Module):
    """Discrete observations become one-hot; uint8 is scaled to [0, 1], here and nowhere else; boxes are flattened."""

    def __init__(self, spec: ObservationSpec) -> None:
        super().__init__()
        self._spec = spec
        self.out_features = spec.n if spec.kind == "discrete" else math.prod(spec.shape)

    def forward(self, obs: Tensor) -> Tensor:
        """obs [..., *obs] -> [..., out_features] float."""
        if self._spec.kind == "discrete":
            states = torch.arange(self._spec.n, device=obs.device)
            return (obs.unsqueeze(-1) == states).to(torch.get_default_dtype())
        if obs.dtype == torch.uint8:
            obs = obs.to(torch.get_default_dtype()) / 255.0
        rank = len(self._spec.shape)
        if rank == 0:
            return obs.unsqueeze(-1)
        return obs.flatten(-rank) if rank > 1 else obs
