"""Deep Q-networks. Mnih et al. 2015 (algorithm 1); double Q-learning, van Hasselt et al. 2016; n-step returns;
Munchausen DQN, Vieillard et al. 2020."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor

from rltrain.agents.epsilon_greedy import EpsilonGreedy
from rltrain.config.schema import DQNConfig, QNetworkConfig
from rltrain.engine.algorithm import Build, Learned, LearningDraw, State, given
from rltrain.engine.cadence import UpdatesPerStep
from rltrain.experience import Batch, WeightedBatch
from rltrain.maths.optimizers import Gradient, descend, init_optimizer
from rltrain.maths.schedules import Schedule, annealed
from rltrain.maths.value import (
    clipped_target,
    double_q_next_value,
    munchausen_bonus,
    per_sample,
    q_learning_next_value,
    select_action_values,
    soft_next_value,
    td_loss,
    td_target,
)

Transitions = Batch | WeightedBatch


class Losses(NamedTuple):
    """Of each sample of a batch."""

    loss: Tensor  # [B]
    q_value: Tensor  # [B], Q(s, a)
    error: Tensor  # [B], from which prioritized replay makes priorities


class DQN(EpsilonGreedy):
    """y = r + discount * max_a Q(s', a; theta^-), or with `double` Q(s', argmax_a Q(s', a; theta); theta^-), and a step
    descends the mean over the batch of loss(Q(s, a; theta), y), y held fixed. Acts epsilon-greedily.

    With `munchausen` (alpha), pi = softmax(Q(.; theta^-) / tau) and y = r + alpha * clip(tau log pi(a|s), l_0, 0)
    + discount * sum over a' of pi(a'|s') (Q(s', a'; theta^-) - tau log pi(a'|s')).
    """

    metrics: tuple[str, ...] = ("train/td_loss", "train/q_value", "train/grad_norm")
    follows: Mapping[str, str] = {"target_network": "q_network"}

    def __init__(self, build: Build) -> None:
        super().__init__(build)
        self.config = config = cast(QNetworkConfig, build.config.algo)
        self.cadence = UpdatesPerStep(config.learning_starts, config.train_period, config.gradient_steps)
        bounds = given(max_grad_norm=config.max_grad_norm, max_grad_value=config.max_grad_value)
        self.knobs: Mapping[str, float] = {"lr": config.optimizer.lr, **bounds}
        self.anneals: Mapping[str, Schedule] = annealed(config.anneal_lr, build.config.total_steps, "lr")

    @property
    def learning_draws(self) -> Mapping[str, LearningDraw]:
        size = self.networks["q_network"].noise_size
        return {"noise": LearningDraw("learning_noise", "normal", (2, size))} if size else {}

    def init_optimizer(self) -> dict[str, Tensor]:
        return init_optimizer(self.config.optimizer, self.networks["q_network"].params)

    def losses(self, params: Tensor, target_params: Tensor, batch: Transitions) -> Losses:
        config = cast(DQNConfig, self.config)
        q_value = select_action_values(self.apply(params, batch.obs), batch.action)  # [B]
        with torch.no_grad():
            target_q_next = self.apply(target_params, batch.next_obs)  # [B, A]
            reward = batch.reward  # [B]
            if config.munchausen is not None:
                target_q, temperature = self.apply(target_params, batch.obs), config.munchausen_temperature  # [B, A]
                bonus = munchausen_bonus(target_q, batch.action, temperature, config.munchausen_clip)  # [B]
                reward = reward + config.munchausen * bonus
                next_value = soft_next_value(target_q_next, temperature)  # [B]
            elif config.double:
                next_value = double_q_next_value(self.apply(params, batch.next_obs), target_q_next)  # [B]
            else:
                next_value = q_learning_next_value(target_q_next)  # [B]
            target = td_target(reward, batch.discount, next_value)  # [B]
            target = clipped_target(target, config.v_min, config.v_max)
        loss = td_loss(config.loss, q_value, target)
        return Losses(loss, q_value, loss if batch.weight is None else q_value - target)

    def learn(self, state: State, batch: Transitions, knobs: Mapping[str, Tensor], gradient: Gradient) -> Learned:
        noise, perturbed = knobs.get("noise"), self.networks["q_network"].perturbed  # [2, E] of a noisy network
        target_params = state.networks["target_network"]
        if noise is not None:
            target_params = perturbed(target_params, noise[1])

        def loss_fn(params: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            params = params if noise is None else perturbed(params, noise[0])
            losses = per_sample(self.losses(params, target_params, batch), batch.reward)
            loss = (losses.loss if batch.weight is None else batch.weight * losses.loss).mean()
            error = {} if batch.weight is None else {"error": losses.error.detach()}
            return loss, {"train/td_loss": loss.detach(), "train/q_value": losses.q_value.detach().mean(), **error}

        grad, found = gradient(loss_fn, state.networks["q_network"])  # [P]
        feedback = {} if batch.weight is None else {"error": found.pop("error")}
        params, optimizer, grad_norm = descend(
            self.config.optimizer, state.networks["q_network"], grad, state.optimizer, knobs
        )
        new = State({**state.networks, "q_network": params}, optimizer)
        return Learned(new, {**found, "train/grad_norm": grad_norm}, feedback)
