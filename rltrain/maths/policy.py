"""Returns, advantages and log-probabilities of policy gradients.

Rows are episodes: [K, T] with a mask [K, T] that is 1.0 where a step was taken and 0.0 in the padding behind the
episode's end. Every mean, deviation and sum here respects the mask.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
_LOG_STD_RANGE = (-5.0, 2.0)
_STD_EPS = 1e-8


def reward_to_go(reward: Tensor, gamma: Tensor) -> Tensor:
    """G_t = sum_k gamma^k r_{t+k} along the last axis: reward [K, T], zero in the padding -> [K, T].

    Sutton & Barto 2018, equation 3.8. Doubling: after j rounds each entry sums 2^j rewards, so T steps take log2(T)
    tensor operations, no loop over time and no [T, T] matrix. T must be a power of two.
    """
    steps = reward.shape[-1]
    if steps & (steps - 1):
        raise ValueError(f"reward_to_go needs a padded length that is a power of two, got {steps}")
    total = reward
    span = 1
    while span < steps:
        total = total + gamma**span * F.pad(total[..., span:], (0, span))  # [K, T]
        span *= 2
    return total


def masked_mean(x: Tensor, mask: Tensor, dim: tuple[int, ...]) -> Tensor:
    """Mean of x [K, T] over `dim` where mask is 1; the reduced axes are kept with size 1."""
    return (x * mask).sum(dim, keepdim=True) / mask.sum(dim, keepdim=True).clamp(min=1.0)


def normalize(x: Tensor, mask: Tensor, dim: tuple[int, ...]) -> Tensor:
    """(x - mean) / std over `dim` (the deviation of a sample, with n - 1): x [K, T] -> [K, T].

    A group of one value is left as it is: it has no deviation, and 0 would silence the episode.
    """
    count = mask.sum(dim, keepdim=True)
    centred = x - masked_mean(x, mask, dim)
    # The mean of equal values may be off by a rounding, which the division would make a 1: centred twice it is gone.
    centred = (centred - masked_mean(centred, mask, dim)) * mask
    std = (centred.square().sum(dim, keepdim=True) / (count - 1.0).clamp(min=1.0)).sqrt()
    return torch.where(count > 1.0, centred / (std + _STD_EPS), x * mask)


def categorical_log_prob(logits: Tensor, action: Tensor) -> Tensor:
    """log pi(a|s) of logits [..., A] and action [...] int64 -> [...], by log-softmax: softmax, then log, underflows."""
    return F.log_softmax(logits, -1).gather(-1, action.unsqueeze(-1)).squeeze(-1)


def categorical_entropy(logits: Tensor) -> Tensor:
    """-sum_a pi log pi of logits [..., A] -> [...]."""
    log_probs = F.log_softmax(logits, -1)
    return -(log_probs.exp() * log_probs).sum(-1)


def sample_categorical(logits: Tensor, uniform: Tensor) -> Tensor:
    """An action by inverting the distribution function: logits [N, A], uniform [N] in [0, 1) -> [N] int64."""
    cumulative = F.softmax(logits, -1).cumsum(-1)  # [N, A]
    # Rounding may leave the last cumulative value below 1, and a draw above it.
    return (cumulative <= uniform.unsqueeze(-1)).sum(-1).clamp(max=logits.shape[-1] - 1)


def split_gaussian(output: Tensor) -> tuple[Tensor, Tensor]:
    """The head's [..., 2A] -> mean [..., A] and log_std [..., A], the latter kept in a range that cannot overflow."""
    mean, log_std = output.chunk(2, -1)
    return mean, log_std.clamp(*_LOG_STD_RANGE)


def gaussian_log_prob(mean: Tensor, log_std: Tensor, action: Tensor) -> Tensor:
    """log density of a diagonal Gaussian, summed over action dimensions: three times [..., A] -> [...]."""
    z = (action - mean) * torch.exp(-log_std)
    return (-0.5 * z.square() - log_std - _LOG_SQRT_2PI).sum(-1)


def gaussian_entropy(log_std: Tensor) -> Tensor:
    """Entropy of a diagonal Gaussian: log_std [..., A] -> [...]."""
    return (log_std + 0.5 + _LOG_SQRT_2PI).sum(-1)


def policy_gradient_loss(log_prob: Tensor, advantage: Tensor) -> Tensor:
    """-log pi(a_t|s_t) A_t, both [K, T] -> [K, T]; the advantage carries no gradient. Williams 1992."""
    return -log_prob * advantage.detach()
