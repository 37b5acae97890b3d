"""C51: DQN that learns the distribution of returns. Bellemare et al. 2017."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from rltrain.agents.dqn import DQN, Losses, Transitions
from rltrain.config.schema import C51Config
from rltrain.engine.algorithm import Build
from rltrain.maths.distributional import project, select_action_distributions


class C51(DQN):
    """The network gives each action the logits of `atoms` returns from v_min to v_max; Q(s, a) is their mean. The loss
    is the cross-entropy against the projected distribution of r + discount * Z(s', a*; theta^-). Priorities follow the
    divergence from it, as in Hessel et al. 2018: the cross-entropy of what is right would be that of a wide target."""

    def __init__(self, build: Build) -> None:
        config = cast(C51Config, build.config.algo)
        self.outputs_per_action = config.atoms
        super().__init__(build)
        self.support = torch.linspace(config.v_min, config.v_max, config.atoms, device=build.device)  # [Z]

    def q_values(self, xp: Any, output: Any) -> Any:
        logits = self.of_actions(output)
        probability = xp.exp(logits - xp.amax(logits, -1)[..., None])  # up to a factor
        support = self.support if xp is torch else self.support.cpu().numpy()
        return (probability * support).sum(-1) / probability.sum(-1)

    def losses(self, params: Tensor, target_params: Tensor, batch: Transitions) -> Losses:
        logits = select_action_distributions(self.of_actions(self.apply(params, batch.obs)), batch.action)  # [B, Z]
        log_p = F.log_softmax(logits, -1)
        with torch.no_grad():
            next_output = self.apply(target_params, batch.next_obs)  # [B, A * Z]
            chooser = self.apply(params, batch.next_obs) if self.config.double else next_output
            best = self.greedy(chooser)  # [B]
            next_p = F.softmax(select_action_distributions(self.of_actions(next_output), best), -1)  # [B, Z]
            target = project(batch.reward, batch.discount, next_p, self.support)  # [B, Z]
        loss = -(target * log_p).sum(-1)
        divergence = loss.detach() - torch.special.entr(target).sum(-1)  # KL(target || p)
        return Losses(loss, log_p.exp() @ self.support, divergence)
