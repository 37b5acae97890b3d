"""What DQN computes when it learns, as pure functions of tensors: what is vmapped, compiled or captured."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rltrain.agents.agent import mean_metrics
from rltrain.config.schema import DQNConfig
from rltrain.losses.value import double_q_next_value, q_learning_next_value, select_action_values, td_loss, td_target
from rltrain.networks.flat import Apply
from rltrain.optimizers import Gradient, OptimizerState, clip_gradient, eager_gradient, optimizer_step
from rltrain.replay import Batch, gather
from rltrain.target_update import polyak


class DQNState(NamedTuple):
    """What learning reads and writes. `Update` leaves the target alone; `Phase` moves one that follows every step."""

    params: Tensor  # [P], theta
    target_params: Tensor  # [P], theta^-
    optimizer: OptimizerState

    def tensors(self) -> list[Tensor]:
        """All of them, in an order that stays."""
        return [self.params, self.target_params, *(self.optimizer[name] for name in sorted(self.optimizer))]


Hyperparameters = dict[str, Tensor]
"""`lr` [], `tau` [] where the target follows every gradient step, and `max_grad_norm` [], `max_grad_value` [] where
gradients are clipped."""
METRICS = ("train/td_loss", "train/q_value", "train/grad_norm")
"""The tags that an update returns, each []."""
Metrics = dict[str, Tensor]
Update = Callable[[DQNState, Batch, Hyperparameters], tuple[DQNState, Metrics]]
Phase = Callable[[DQNState, Batch, Tensor, Hyperparameters], tuple[DQNState, Metrics]]
"""State, the replay's arrays, rows [K, B] of them, hyperparameters -> state, the metrics' means over K gradient steps;
of a population all but the arrays have an axis M, the rows after K."""


def make_update(config: DQNConfig, q_network: Apply, gradient: Gradient = eager_gradient) -> Update:
    """One gradient step of one member.

    y = r + discount * max_a Q(s', a; theta^-), or with `double` Q(s', argmax_a Q(s', a; theta); theta^-), and the step
    descends the mean over the batch of loss(Q(s, a; theta), y), y held fixed.
    """

    def loss_fn(params: Tensor, target_params: Tensor, batch: Batch) -> tuple[Tensor, Metrics]:
        q_value = select_action_values(q_network(params, batch.obs), batch.action)  # [B]
        with torch.no_grad():
            target_q_next = q_network(target_params, batch.next_obs)  # [B, A]
            if config.double:
                next_value = double_q_next_value(q_network(params, batch.next_obs), target_q_next)  # [B]
            else:
                next_value = q_learning_next_value(target_q_next)  # [B]
            target = td_target(batch.reward, batch.discount, next_value)  # [B]
        loss = td_loss(config.loss, q_value, target).mean()
        return loss, {"train/td_loss": loss.detach(), "train/q_value": q_value.detach().mean()}

    def update(state: DQNState, batch: Batch, hyperparameters: Hyperparameters) -> tuple[DQNState, Metrics]:
        grad, metrics = gradient(lambda params: loss_fn(params, state.target_params, batch), state.params)  # [P]
        grad, grad_norm = clip_gradient(
            grad, hyperparameters.get("max_grad_norm"), hyperparameters.get("max_grad_value")
        )
        params, optimizer = optimizer_step(config.optimizer, state.params, grad, state.optimizer, hyperparameters["lr"])
        return state._replace(params=params, optimizer=optimizer), {**metrics, "train/grad_norm": grad_norm}

    return update


def make_phase(update: Update) -> Phase:
    """K gradient steps of all members, the target following each where `tau` is given: one program when compiled.

    The batches are gathered inside.
    """

    def phase(
        state: DQNState, arrays: Batch, rows: Tensor, hyperparameters: Hyperparameters
    ) -> tuple[DQNState, Metrics]:
        steps = []
        for of_step in rows.unbind():  # [B] or [M, B]
            state, metrics = update(state, gather(arrays, of_step), hyperparameters)
            steps.append(metrics)
            if "tau" in hyperparameters:
                tau = hyperparameters["tau"].unsqueeze(-1)  # [1] or [M, 1]
                state = state._replace(target_params=polyak(state.target_params, state.params, tau))
        return state, mean_metrics(steps)

    return phase


def make_hyperparameters(config: DQNConfig, device: torch.device, tau: float | None = None) -> Hyperparameters:
    values = {
        "lr": config.optimizer.lr,
        "tau": tau,
        "max_grad_norm": config.max_grad_norm,
        "max_grad_value": config.max_grad_value,
    }
    return {name: torch.tensor(value, device=device) for name, value in values.items() if value is not None}
