"""Returns and advantages of trajectories that may hold several episodes: time is the first axis."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_LEAST_VARIANCE = 1e-12


def discounted_sum(x: Tensor, discount: Tensor) -> Tensor:
    """y_t = x_t + discount_t y_{t+1}, nothing behind the last step: x [T, N], discount [T, N] -> [T, N].

    A discount of 0 ends a sum, as at the end of an episode. Doubling: after j rounds each entry sums 2^j terms, so T
    steps take log2(T) rounds of tensor operations and no loop over time. Hillis & Steele 1986.
    """
    span = 1
    while span < len(x):
        x = x + discount * _later(x, span)
        discount = discount * _later(discount, span)
        span *= 2
    return x


def _later(x: Tensor, span: int) -> Tensor:
    """x_{t + span}, 0 behind the end."""
    return F.pad(x[span:], (0, 0, 0, span))


def generalized_advantage(
    reward: Tensor, discount: Tensor, value: Tensor, next_value: Tensor, ended: Tensor, decay: Tensor
) -> Tensor:
    """A_t = delta_t + decay A_{t+1} within an episode, delta_t = r_t + discount_t V(s_{t+1}) - V(s_t). Schulman et al.
    2016, equation 16.

    Args:
        reward: [T, N].
        discount: gamma * (1 - terminated) [T, N]: a terminated episode has no value behind its end, a cut one has.
        value: V(s_t) [T, N].
        next_value: V(s_{t+1}) [T, N] of the true successor, also where the episode ended.
        ended: [T, N] bool, terminated or cut: the next step is of another episode.
        decay: gamma * lambda [].

    Returns:
        [T, N]
    """
    delta = reward + discount * next_value - value
    return discounted_sum(delta, decay * ~ended)


def lambda_return(reward: Tensor, discount: Tensor, next_value: Tensor, ended: Tensor, lam: Tensor) -> Tensor:
    """G_t = r_t + discount_t ((1 - lambda) V(s_{t+1}) + lambda G_{t+1}) within an episode; where the episode or the
    rollout ends, r_t + discount_t V(s_{t+1}). Sutton & Barto 2018, equation 12.18.

    Args:
        reward: [T, N].
        discount: gamma * (1 - terminated) [T, N].
        next_value: V(s_{t+1}) [T, N] of the true successor, also where the episode ended.
        ended: [T, N] bool, terminated or cut: the next step is of another episode.
        lam: lambda [].

    Returns:
        [T, N]
    """
    goes_on = _later(torch.ones_like(reward), 1) * ~ended
    weight = lam * goes_on
    return discounted_sum(reward + discount * (1.0 - weight) * next_value, discount * weight)


def explained_variance(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - Var(target - prediction) / Var(target) of all entries, []: 1 is perfect, 0 no better than their mean. 0 where
    the target does not vary but by rounding."""
    variance, rest = target.var(correction=0), (target - prediction).var(correction=0)
    return torch.where(variance > _LEAST_VARIANCE, 1.0 - rest / variance.clamp(min=_LEAST_VARIANCE), 0.0)
