"""What REINFORCE computes when it learns, as pure functions of tensors: what is vmapped or compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rltrain.agents.distributions import Distribution
from rltrain.config.schema import ReinforceConfig
from rltrain.losses.policy import masked_mean, normalize, policy_gradient_loss, reward_to_go
from rltrain.networks.flat import Apply
from rltrain.optimizers import Gradient, OptimizerState, clip_gradient, eager_gradient, optimizer_step
from rltrain.replay.rollout import Rollout


class ReinforceState(NamedTuple):
    """What one update reads and writes. Without a value network the last two are empty."""

    params: Tensor  # [P], theta of the policy
    optimizer: OptimizerState
    value_params: Tensor  # [V], w of the baseline
    value_optimizer: OptimizerState


Hyperparameters = dict[str, Tensor]
"""`lr`, `gamma`, `entropy_coef`, `value_lr`, and `max_grad_norm` where gradients are clipped; each []."""
Metrics = dict[str, Tensor]
Update = Callable[[ReinforceState, Rollout, Hyperparameters], tuple[ReinforceState, Metrics]]


def make_update(
    config: ReinforceConfig,
    policy: Apply,
    value: Apply,
    distribution: Distribution,
    gradient: Gradient = eager_gradient,
) -> Update:
    """One update of one member from K whole episodes.

    Ascends the mean over episodes (or steps) of log pi(a_t|s_t) (G_t - b(s_t)); then fits the baseline to G_t. The
    gamma^t of the exact gradient of the discounted objective is left out, as in nearly all practice.
    """

    def reduce(x: Tensor, mask: Tensor) -> Tensor:
        """x [K, T] -> []: the mean over all steps, or the mean over episodes of their sums."""
        total = (x * mask).sum()
        return total / mask.sum() if config.loss_reduction == "mean" else total / mask.shape[0]

    def update(
        state: ReinforceState, rollout: Rollout, hyperparameters: Hyperparameters
    ) -> tuple[ReinforceState, Metrics]:
        with torch.no_grad():
            returns, advantage = _returns_and_advantage(
                config, value, state.value_params, rollout, hyperparameters["gamma"]
            )

        def loss_fn(params: Tensor) -> tuple[Tensor, Metrics]:
            output = policy(params, rollout.obs)  # [K, T, head]
            log_prob = distribution.log_prob(output, rollout.action)  # [K, T]
            policy_loss = reduce(policy_gradient_loss(log_prob, advantage), rollout.mask)
            entropy = distribution.entropy(output)  # [K, T]
            loss = policy_loss - hyperparameters["entropy_coef"] * reduce(entropy, rollout.mask)
            mean_entropy = (entropy.detach() * rollout.mask).sum() / rollout.mask.sum()
            return loss, {"train/policy_loss": policy_loss.detach(), "train/entropy": mean_entropy}

        grad, metrics = gradient(loss_fn, state.params)  # [P]
        grad, grad_norm = clip_gradient(grad, hyperparameters.get("max_grad_norm"), None)
        params, optimizer = optimizer_step(config.optimizer, state.params, grad, state.optimizer, hyperparameters["lr"])
        state = state._replace(params=params, optimizer=optimizer)
        metrics = {**metrics, "train/grad_norm": grad_norm}
        if config.baseline != "value":
            return state, metrics
        state, value_metrics = _fit_value(config, value, gradient, state, rollout, returns, hyperparameters["value_lr"])
        return state, {**metrics, **value_metrics}

    return update


def _returns_and_advantage(
    config: ReinforceConfig, value: Apply, value_params: Tensor, rollout: Rollout, gamma: Tensor
) -> tuple[Tensor, Tensor]:
    """G_t, and what multiplies the gradient of log pi(a_t|s_t): both [K, T]."""
    reward = rollout.reward
    if config.baseline == "value":
        # A cut episode goes on: its last reward is followed by the value of the observation after it.
        final_value = value(value_params, rollout.final_obs).squeeze(-1) * rollout.truncated  # [K]
        reward = reward + rollout.last * gamma * final_value.unsqueeze(-1)
    returns = reward_to_go(reward, gamma)  # [K, T]
    advantage = returns
    if config.baseline == "value":
        advantage = returns - value(value_params, rollout.obs).squeeze(-1)
    elif config.baseline == "mean":
        advantage = returns - masked_mean(returns, rollout.mask, (-2, -1))
    if config.normalize_returns != "none":
        axes = (-1,) if config.normalize_returns == "episode" else (-2, -1)
        advantage = normalize(advantage, rollout.mask, axes)
    return returns, advantage


def _fit_value(
    config: ReinforceConfig,
    value: Apply,
    gradient: Gradient,
    state: ReinforceState,
    rollout: Rollout,
    returns: Tensor,
    lr: Tensor,
) -> tuple[ReinforceState, Metrics]:
    """`value.steps` steps down the mean squared error of b(s_t) against G_t [K, T]."""

    def loss_fn(value_params: Tensor) -> tuple[Tensor, Metrics]:
        error = value(value_params, rollout.obs).squeeze(-1) - returns  # [K, T]
        loss = (error.square() * rollout.mask).sum() / rollout.mask.sum()
        return loss, {"train/value_loss": loss.detach()}

    params, optimizer = state.value_params, state.value_optimizer
    metrics: Metrics = {}
    for _ in range(config.value.steps):
        grad, metrics = gradient(loss_fn, params)  # [V]
        params, optimizer = optimizer_step(config.optimizer, params, grad, optimizer, lr)
    return state._replace(value_params=params, value_optimizer=optimizer), metrics


def make_hyperparameters(config: ReinforceConfig, device: torch.device) -> Hyperparameters:
    values = {
        "lr": config.optimizer.lr,
        "gamma": config.gamma,
        "entropy_coef": config.entropy_coef,
        "value_lr": config.value.lr,
        "max_grad_norm": config.max_grad_norm,
    }
    return {name: torch.tensor(number, device=device) for name, number in values.items() if number is not None}
