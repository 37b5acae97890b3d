"""Targets and losses of value learning, named as in the papers. Per-sample values: reduction is the caller's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor
from torch.nn import functional as F

PerSample = TypeVar("PerSample", bound=tuple[Tensor, ...])


def select_action_values(q_values: Tensor, action: Tensor) -> Tensor:
    """Q(s, a): q_values [B, A], action [B] int64 -> [B]."""
    return q_values.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def q_learning_next_value(target_q_next: Tensor) -> Tensor:
    """max_a Q(s', a; theta^-): target_q_next [B, A] -> [B]. Mnih et al. 2015, algorithm 1."""
    return target_q_next.amax(-1)


def double_q_next_value(online_q_next: Tensor, target_q_next: Tensor) -> Tensor:
    """Q(s', argmax_a Q(s', a; theta); theta^-): both [B, A] -> [B]. Van Hasselt et al. 2016, equation 4."""
    return select_action_values(target_q_next, online_q_next.argmax(-1))


def soft_log_policy(q_values: Tensor, temperature: float) -> Tensor:
    """temperature * log pi, pi = softmax(Q / temperature): q_values [..., A] -> [..., A], none above 0."""
    return temperature * F.log_softmax(q_values / temperature, -1)


def munchausen_bonus(target_q: Tensor, action: Tensor, temperature: float, lowest: float) -> Tensor:
    """tau log pi(a|s), not below `lowest`: target_q [B, A], action [B] -> [B]. Vieillard et al. 2020, equation 1."""
    return select_action_values(soft_log_policy(target_q, temperature), action).clamp(lowest, 0.0)


def soft_next_value(target_q_next: Tensor, temperature: float) -> Tensor:
    """sum over a' of pi(a'|s') (Q(s', a'; theta^-) - tau log pi(a'|s')): [B, A] -> [B]. The same equation."""
    policy = F.softmax(target_q_next / temperature, -1)  # [B, A]
    return (policy * (target_q_next - soft_log_policy(target_q_next, temperature))).sum(-1)


def td_target(reward: Tensor, discount: Tensor, next_value: Tensor) -> Tensor:
    """r + discount * V(s'), all [B]; discount is gamma^n, and 0 where the MDP terminated."""
    return reward + discount * next_value


def clipped_target(target: Tensor, lowest: float | None, highest: float | None) -> Tensor:
    """The target [B] within the returns that are possible. Andrychowicz et al. 2017, appendix A."""
    return target if lowest is None and highest is None else target.clamp(lowest, highest)


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


def per_sample(losses: PerSample, like: Tensor) -> PerSample:
    """The losses themselves, a named tuple of tensors that are all [B], as `like` is.

    Raises:
        TypeError: it is no tuple.
        ValueError: another shape. Weights [B] times [B, 1] would broadcast to [B, B], and a mean has forgotten samples.
    """
    if not isinstance(losses, tuple):
        raise TypeError(f"losses must be a named tuple of tensors [B], got {type(losses).__name__}")
    if any(loss.shape != like.shape for loss in losses):
        names = getattr(losses, "_fields", range(len(losses)))
        found = ", ".join(f"{name} {tuple(loss.shape)}" for name, loss in zip(names, losses, strict=True))
        raise ValueError(f"losses need the shape of the batch {tuple(like.shape)}, got {found}")
    return losses
