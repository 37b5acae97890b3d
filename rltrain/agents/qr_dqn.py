"""QR-DQN: DQN that learns quantiles of returns. Dabney et al. 2018."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from rltrain.agents.dqn import DQN, Losses, Transitions
from rltrain.config.schema import QRDQNConfig
from rltrain.engine.algorithm import Build
from rltrain.maths.distributional import quantile_huber_loss, select_action_distributions


class QRDQN(DQN):
    """The network gives each action `quantiles` returns of equal probability; Q(s, a) is their mean."""

    def __init__(self, build: Build) -> None:
        self.outputs_per_action = cast(QRDQNConfig, build.config.algo).quantiles
        super().__init__(build)

    def q_values(self, xp: Any, output: Any) -> Any:
        return self.of_actions(output).mean(-1)

    def losses(self, params: Tensor, target_params: Tensor, batch: Transitions) -> Losses:
        quantiles = select_action_distributions(self.of_actions(self.apply(params, batch.obs)), batch.action)  # [B, Z]
        with torch.no_grad():
            next_output = self.apply(target_params, batch.next_obs)  # [B, A * Z]
            chooser = self.apply(params, batch.next_obs) if self.config.double else next_output
            best = self.greedy(chooser)  # [B]
            next_quantiles = select_action_distributions(self.of_actions(next_output), best)  # [B, Z']
            target = batch.reward.unsqueeze(-1) + batch.discount.unsqueeze(-1) * next_quantiles  # [B, Z']
        loss = quantile_huber_loss(quantiles, target)
        return Losses(loss, quantiles.mean(-1), loss)
