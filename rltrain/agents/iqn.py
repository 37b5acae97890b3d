"""IQN: DQN that learns the quantile function of returns. Dabney et al. 2018 (ICML)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from rltrain.agents.dqn import DQN, Losses, Transitions
from rltrain.config.schema import IQNConfig
from rltrain.engine.algorithm import Build, Learned, LearningDraw, State
from rltrain.maths.distributional import quantile_huber_loss, select_action_distributions
from rltrain.maths.optimizers import Gradient
from rltrain.networks.flat import FlatNetwork
from rltrain.networks.implicit_quantile import ImplicitQuantile


class WithFractions(NamedTuple):
    """A batch, and the probabilities of the quantiles that its update compares."""

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    discount: Tensor
    weight: Tensor | None
    tau: Tensor  # [B, N]
    next_tau: Tensor  # [B, N']


class IQN(DQN):
    """The network takes a state and a probability tau and gives each action its return's tau-quantile. An update draws
    N of them for Z_tau(s, a) and N' for the target r + discount * Z_tau'(s', a*; theta^-). Q(s, a) is the mean of K
    quantiles, at the midpoints (k + 1/2) / K where the paper draws them."""

    def __init__(self, build: Build) -> None:
        self.iqn = config = cast(IQNConfig, build.config.algo)
        self.numbers = [config.quantiles, config.target_quantiles]
        super().__init__(build)

    def make_network(self, build: Build) -> FlatNetwork:
        config = self.iqn
        return build.network(
            self.num_actions, around=lambda network: ImplicitQuantile(network, config.cosines, config.acting_quantiles)
        )

    @property
    def learning_draws(self) -> Mapping[str, LearningDraw]:
        shape = self.iqn.batch_size, sum(self.numbers)
        return {**super().learning_draws, "fractions": LearningDraw("fractions", "uniform", shape)}

    def q_values(self, xp: Any, output: Any) -> Any:
        return self.of_actions(output).mean(-1)

    def learn(self, state: State, batch: Transitions, knobs: Mapping[str, Tensor], gradient: Gradient) -> Learned:
        tau, next_tau = torch.split(knobs["fractions"], self.numbers, -1)
        fractions: Any = WithFractions(*batch[:5], batch.weight, tau, next_tau)
        return super().learn(state, fractions, knobs, gradient)

    def losses(self, params: Tensor, target_params: Tensor, batch: Any) -> Losses:
        of_actions = self.of_actions(self.apply(params, batch.obs, batch.tau))  # [B, A, N]
        quantiles = select_action_distributions(of_actions, batch.action)  # [B, N]
        with torch.no_grad():
            best = self.greedy(self.apply(params if self.config.double else target_params, batch.next_obs))  # [B]
            of_next = self.of_actions(self.apply(target_params, batch.next_obs, batch.next_tau))  # [B, A, N']
            next_quantiles = select_action_distributions(of_next, best)  # [B, N']
            target = batch.reward.unsqueeze(-1) + batch.discount.unsqueeze(-1) * next_quantiles  # [B, N']
        loss = quantile_huber_loss(quantiles, target, batch.tau)
        return Losses(loss, quantiles.mean(-1), loss)
