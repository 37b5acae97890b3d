"""Returns, advantages and log-probabilities of policy gradients.

Rows are episodes: [K, T] with a mask [K, T] that is 1.0 where a step was taken and 0.0 in the padding behind the
episode's end. Every mean, deviation and sum here respects the mask.
"""

from __future__ import annotations

import math

import numpy as np
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
    """An action by inverting the distribution function: logits [..., A], uniform [...] in [0, 1) -> [...] int64."""
    cumulative = F.softmax(logits, -1).cumsum(-1)  # [..., A]
    # Rounding may leave the last cumulative value below 1, and a draw above it.
    return (cumulative <= uniform.unsqueeze(-1)).sum(-1).clamp(max=logits.shape[-1] - 1)


def sample_categorical_in_numpy(logits: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """`sample_categorical`, bit for bit, in half the time for the few rows that acting takes: torch's softmax, whose
    exponential NumPy rounds otherwise, and its sums, which are of doubles."""
    probability = F.softmax(torch.from_numpy(logits), -1).cpu().numpy()
    cumulative = np.add.accumulate(probability, -1, np.float64).astype(probability.dtype)  # [..., A]
    action: np.ndarray = np.minimum(np.add.reduce(cumulative <= uniform[..., None], -1), logits.shape[-1] - 1)
    return action


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


def clipped_policy_loss(log_ratio: Tensor, advantage: Tensor, clip: Tensor) -> Tensor:
    """-min(rho A, clip(rho, 1 - clip, 1 + clip) A) with rho = pi(a|s) / pi_old(a|s), each [B] -> [B]. Schulman et al.
    2017, equation 7. It is a lower bound: a ratio that has gone too far the right way has no gradient, one that has
    gone the wrong way keeps it."""
    ratio = log_ratio.exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage)


def approx_kl(log_ratio: Tensor) -> Tensor:
    """An estimate of KL(pi_old || pi) from actions of pi_old that is never negative: rho - 1 - log rho, [B] -> [B].
    Schulman 2020, "Approximating KL divergence"."""
    return torch.expm1(log_ratio) - log_ratio


def clip_fraction(log_ratio: Tensor, clip: Tensor) -> Tensor:
    """1.0 where the ratio has left 1 - clip .. 1 + clip, else 0.0: [B] -> [B]."""
    return (torch.expm1(log_ratio).abs() > clip).to(log_ratio.dtype)


def clipped_value_loss(value: Tensor, old_value: Tensor, returns: Tensor, clip: float) -> Tensor:
    """max((V - G)^2, (V_old + clip(V - V_old, -c, c) - G)^2), each [B] -> [B]. Of the implementation of Schulman et al.
    2017; Engstrom et al. 2020 and Andrychowicz et al. 2021 found no use in it."""
    near = old_value + (value - old_value).clamp(-clip, clip)
    return torch.maximum((value - returns).square(), (near - returns).square())
