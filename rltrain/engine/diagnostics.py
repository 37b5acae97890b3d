"""Numbers that tell why learning fails, of one member's networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_DORMANT = 0.025
"""Of a layer's mean activation: a unit that is active less than so much is dormant. Sokar et al. 2023, section 3."""


def dormant_share(layers: Sequence[Tensor]) -> float:
    """Share of the units whose mean |activation| is at most 0.025 of their layer's mean. Sokar et al. 2023, definition
    3.1; a plane of a convolution is a unit.

    Args:
        layers: activations [..., units] or [B, planes, height, width] of each hidden layer.
    """
    dormant = units = 0
    for activations in layers:
        of_units = 1 if activations.dim() == 4 else activations.dim() - 1
        dims = [dim for dim in range(activations.dim()) if dim != of_units]
        score = activations.abs().mean(dims)  # [units]
        dormant += int((score <= _DORMANT * score.mean()).sum())
        units += len(score)
    return dormant / units


def distance(params: Tensor, target_params: Tensor) -> float:
    """|theta - theta^-| / |theta|, both [P]."""
    norm = torch.linalg.vector_norm
    return float(norm(params - target_params) / norm(params).clamp_min(torch.finfo(params.dtype).tiny))
