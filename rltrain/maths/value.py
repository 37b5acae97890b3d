"""Targets and losses of value learning, named as in the papers. Per-sample values: reduction is the caller's."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F


def select_action_values(q_values: Tensor, action: Tensor) -> Tensor:
    """Q(s, a): q_values [B, A], action [B] int64 -> [B]."""
    return q_values.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def q_learning_next_value(target_q_next: Tensor) -> Tensor:
    """max_a Q(s', a; theta^-): target_q_next [B, A] -> [B]. Mnih et al. 2015, algorithm 1."""
    return target_q_next.amax(-1)


def double_q_next_value(online_q_next: Tensor, target_q_next: Tensor) -> Tensor:
    """Q(s', argmax_a Q(s', a; theta); theta^-): both [B, A] -> [B]. Van Hasselt et al. 2016, equation 4."""
    return select_action_values(target_q_next, online_q_next.argmax(-1))


def td_target(reward: Tensor, discount: Tensor, next_value: Tensor) -> Tensor:
    """r + discount * V(s'), all [B]; discount is gamma^n, and 0 where the MDP terminated."""
    return reward + discount * next_value


def _mse(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).square()


def _huber(prediction: Tensor, target: Tensor) -> Tensor:
    return F.huber_loss(prediction, target, reduction="none")


TD_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": _mse, "huber": _huber}
"""(prediction [B], target [B]) -> loss [B]. `mse` is the squared error itself, without the 1/2; `huber` has delta 1."""


def td_loss(name: str, prediction: Tensor, target: Tensor) -> Tensor:
    """The loss called `name` of prediction [B] against target [B] -> [B]; the target carries no gradient.

    Raises:
        ValueError: the shapes differ. [B, 1] against [B] would broadcast to [B, B] and train on garbage.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"td_loss needs equal shapes, got {tuple(prediction.shape)} and {tuple(target.shape)}")
    return TD_LOSSES[name](prediction, target.detach())
