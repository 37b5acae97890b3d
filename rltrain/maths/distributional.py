"""Losses of distributional value learning. Per-sample values: reduction is the caller's."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def select_action_distributions(of_actions: Tensor, action: Tensor) -> Tensor:
    """The distribution of the action: of_actions [B, A, Z], action [B] int64 -> [B, Z]."""
    index = action.view(-1, 1, 1).expand(-1, 1, of_actions.shape[-1])
    return of_actions.gather(-2, index).squeeze(-2)


def project(reward: Tensor, discount: Tensor, next_p: Tensor, support: Tensor) -> Tensor:
    """The distribution of r + discount * Z' on the atoms of Z. Bellemare et al. 2017, equation 7.

    Args:
        reward, discount: [B].
        next_p: [B, Z'], probabilities of the atoms.
        support: [Z], equally spaced values.
    """
    moved = reward.unsqueeze(-1) + discount.unsqueeze(-1) * support  # [B, Z']
    moved = moved.clamp(support[0], support[-1])
    distance = (moved.unsqueeze(-2) - support.unsqueeze(-1)).abs() / (support[1] - support[0])  # [B, Z, Z']
    return ((1.0 - distance).clamp(0.0, 1.0) * next_p.unsqueeze(-2)).sum(-1)


def midpoints(count: int, like: Tensor) -> Tensor:
    """(i + 1/2) / count, [count]."""
    return (torch.arange(count, device=like.device, dtype=like.dtype) + 0.5) / count


def quantile_huber_loss(quantiles: Tensor, target: Tensor, tau: Tensor | None = None) -> Tensor:
    """Summed over the quantiles, averaged over the target's samples. Dabney et al. 2018, equation 10, with kappa 1.

    Args:
        quantiles: [B, Z].
        target: [B, Z'], equally likely values; carries no gradient.
        tau: [B, Z], the probabilities of `quantiles`; None for (i + 1/2) / Z of the i-th.
    """
    tau = midpoints(quantiles.shape[-1], quantiles) if tau is None else tau
    error = target.detach().unsqueeze(-2) - quantiles.unsqueeze(-1)  # [B, Z, Z']
    huber = F.huber_loss(error, torch.zeros_like(error), reduction="none")
    weight = (tau.unsqueeze(-1) - (error.detach() < 0).to(error.dtype)).abs()
    return (weight * huber).mean(-1).sum(-1)
