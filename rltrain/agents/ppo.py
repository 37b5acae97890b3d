"""Proximal policy optimization. Schulman et al. 2017; advantages of Schulman et al. 2016; A2C (Mnih et al. 2016) is the
case of one epoch and one minibatch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from rltrain.agents.sampling import SampledPolicy
from rltrain.config.schema import PPOConfig
from rltrain.engine.algorithm import Build, Learned, Prepared, State, given
from rltrain.engine.cadence import EveryRollout
from rltrain.experience.rollout import Minibatch, Rollout
from rltrain.maths.optimizers import Gradient, descend, init_optimizer
from rltrain.maths.policy import approx_kl, clip_fraction, clipped_policy_loss, clipped_value_loss, normalize
from rltrain.maths.returns import explained_variance, generalized_advantage
from rltrain.maths.schedules import Schedule, annealed


class PPO(SampledPolicy):
    """A step descends the mean over a minibatch of -min(rho A, clip(rho) A) + value.coef (V(s) - G)^2 - entropy_coef
    H(pi(.|s)), with rho = pi(a|s) / pi_old(a|s), generalized advantages A and returns G = A + V_old(s). Policy and
    value have a network each, and one optimizer together. Acts by sampling."""

    learns: tuple[str, ...] = ("policy", "value")
    columns: tuple[str, ...] = ("log_prob", "advantage", "returns", "value")
    rollout_metrics: tuple[str, ...] = ("train/explained_variance",)
    metrics: tuple[str, ...] = (
        "train/policy_loss", "train/value_loss", "train/entropy", "train/approx_kl", "train/clip_fraction",
        "train/grad_norm",
    )  # fmt: skip

    def __init__(self, build: Build) -> None:
        self.config = config = cast(PPOConfig, build.config.algo)
        super().__init__(build, config.value.hidden)
        self.cadence = EveryRollout(config.rollout_steps, config.epochs, config.minibatches)
        self.knobs: Mapping[str, float] = given(
            lr=config.optimizer.lr, gamma=config.gamma, gae_lambda=config.gae_lambda, clip=config.clip,
            entropy_coef=config.entropy_coef, value_coef=config.value.coef, max_grad_norm=config.max_grad_norm,
        )  # fmt: skip
        self.anneals: Mapping[str, Schedule] = annealed(config.anneal_lr, build.config.total_steps, "lr")
        self.limits: Mapping[str, float] = {} if config.target_kl is None else {"train/approx_kl": config.target_kl}
        self._sizes = [len(network.params) for network in self.networks.values()]

    def init_optimizer(self) -> dict[str, Tensor]:
        return init_optimizer(self.config.optimizer, torch.cat([n.params for n in self.networks.values()]))

    def prepare(self, state: State, steps: Rollout, knobs: Mapping[str, Tensor]) -> Prepared:
        params, gamma = state.networks["value"], knobs["gamma"]
        value, next_value = (self.value(params, obs).squeeze(-1) for obs in (steps.obs, steps.next_obs))  # [T, N]
        discount, decay = gamma * ~steps.terminated, gamma * knobs["gae_lambda"]
        advantage = generalized_advantage(steps.reward, discount, value, next_value, steps.ended, decay)
        log_prob = self.distribution.log_prob(self.policy(state.networks["policy"], steps.obs), steps.action)
        returns = advantage + value
        columns = {"log_prob": log_prob, "advantage": advantage, "returns": returns, "value": value}
        return Prepared(columns, {"train/explained_variance": explained_variance(value, returns)})

    def learn(self, state: State, batch: Minibatch, knobs: Mapping[str, Tensor], gradient: Gradient) -> Learned:
        columns, clip = batch.columns, knobs["clip"]
        advantage = columns["advantage"]
        if self.config.normalize_advantage:
            advantage = normalize(advantage, torch.ones_like(advantage), (-1,))

        def loss_fn(both: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            params, value_params = torch.split(both, self._sizes)
            output = self.policy(params, batch.obs)  # [B, outputs]
            log_ratio = self.distribution.log_prob(output, batch.action) - columns["log_prob"]  # [B]
            policy_loss = clipped_policy_loss(log_ratio, advantage, clip).mean()
            value = self.value(value_params, batch.obs).squeeze(-1)  # [B]
            value_loss = self.value_loss(value, columns).mean()
            entropy = self.distribution.entropy(output).mean()
            loss = policy_loss + knobs["value_coef"] * value_loss - knobs["entropy_coef"] * entropy
            shown = policy_loss, value_loss, entropy, approx_kl(log_ratio).mean(), clip_fraction(log_ratio, clip).mean()
            return loss, {tag: x.detach() for tag, x in zip(self.metrics[:-1], shown, strict=True)}

        both = torch.cat([state.networks["policy"], state.networks["value"]])  # [P + V]
        grad, metrics = gradient(loss_fn, both)
        both, optimizer, grad_norm = descend(self.config.optimizer, both, grad, state.optimizer, knobs)
        networks = dict(zip(self.learns, torch.split(both, self._sizes), strict=True))
        return Learned(State(networks, optimizer), {**metrics, "train/grad_norm": grad_norm}, {})

    def value_loss(self, value: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        """(V(s) - G)^2, or with `value.clip` that of a V(s) that may not leave V_old(s) so far: [B]."""
        if self.config.value.clip is None:
            return (value - columns["returns"]).square()
        return clipped_value_loss(value, columns["value"], columns["returns"], self.config.value.clip)
