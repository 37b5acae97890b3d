"""REINFORCE. Williams 1992; with a baseline Sutton & Barto 2018, section 13.4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from rltrain.agents.sampling import SampledPolicy
from rltrain.config.schema import ReinforceConfig
from rltrain.engine.algorithm import Build, Learned, State, given
from rltrain.engine.cadence import EveryEpisodes
from rltrain.engine.protocol import with_prefix, without_prefix
from rltrain.experience.episodes import EpisodeBatch
from rltrain.maths.optimizers import Gradient, clip_gradient, init_optimizer, optimizer_step
from rltrain.maths.policy import masked_mean, normalize, policy_gradient_loss, reward_to_go
from rltrain.maths.schedules import Schedule, annealed


class Reinforce(SampledPolicy):
    """A step ascends the mean over episodes (or steps) of log pi(a_t|s_t) (G_t - b(s_t)), from whole episodes of the
    present policy; then the baseline is fitted to G_t. The gamma^t of the exact gradient of the discounted objective is
    left out, as in nearly all practice. Acts by sampling."""

    def __init__(self, build: Build) -> None:
        self.config = config = cast(ReinforceConfig, build.config.algo)
        super().__init__(build, config.value.hidden)
        self.learns: tuple[str, ...] = ("policy", "value") if config.baseline == "value" else ("policy",)
        self.cadence = EveryEpisodes(config.episodes_per_update)
        self.knobs: Mapping[str, float] = given(
            lr=config.optimizer.lr, gamma=config.gamma, entropy_coef=config.entropy_coef, value_lr=config.value.lr,
            max_grad_norm=config.max_grad_norm,
        )  # fmt: skip
        self.anneals: Mapping[str, Schedule] = annealed(config.anneal_lr, build.config.total_steps, "lr", "value_lr")
        self.critic = "value" if config.baseline == "value" else None
        fitted = ("train/value_loss",) if config.baseline == "value" else ()
        self.metrics: tuple[str, ...] = ("train/policy_loss", "train/entropy", "train/grad_norm", *fitted)

    def init_optimizer(self) -> dict[str, Tensor]:
        networks = self.networks.items()
        states = [
            with_prefix(name, init_optimizer(self.config.optimizer, network.params)) for name, network in networks
        ]
        return {name: tensor for state in states for name, tensor in state.items()}

    def learn(self, state: State, batch: EpisodeBatch, knobs: Mapping[str, Tensor], gradient: Gradient) -> Learned:
        with torch.no_grad():
            returns, advantage = self.returns_and_advantage(state.networks["value"], batch, knobs["gamma"])

        def loss_fn(params: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            output = self.policy(params, batch.obs)  # [K, T, outputs]
            log_prob = self.distribution.log_prob(output, batch.action)  # [K, T]
            policy_loss = self.reduce(policy_gradient_loss(log_prob, advantage), batch.mask)
            entropy = self.distribution.entropy(output)  # [K, T]
            loss = policy_loss - knobs["entropy_coef"] * self.reduce(entropy, batch.mask)
            mean_entropy = (entropy.detach() * batch.mask).sum() / batch.mask.sum()
            return loss, {"train/policy_loss": policy_loss.detach(), "train/entropy": mean_entropy}

        grad, metrics = gradient(loss_fn, state.networks["policy"])  # [P]
        grad, grad_norm = clip_gradient(grad, knobs.get("max_grad_norm"), None)
        state = self.descend(state, "policy", grad, knobs["lr"])
        metrics = {**metrics, "train/grad_norm": grad_norm}
        if self.config.baseline == "value":
            state, value_loss = self.fit_value(state, batch, returns, knobs["value_lr"], gradient)
            metrics = {**metrics, **value_loss}
        return Learned(state, metrics, {})

    def reduce(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [K, T] -> []: the mean over all steps, or the mean over episodes of their sums."""
        total = (x * mask).sum()
        return total / mask.sum() if self.config.loss_reduction == "mean" else total / mask.shape[0]

    def returns_and_advantage(self, value_params: Tensor, batch: EpisodeBatch, gamma: Tensor) -> tuple[Tensor, Tensor]:
        """G_t, and what multiplies the gradient of log pi(a_t|s_t): both [K, T]."""
        config, reward = self.config, batch.reward
        if config.baseline == "value":
            # A cut episode goes on: its last reward is followed by the value of the observation after it.
            final_value = self.value(value_params, batch.final_obs).squeeze(-1) * batch.truncated  # [K]
            reward = reward + batch.last * gamma * final_value.unsqueeze(-1)
        returns = reward_to_go(reward, gamma)  # [K, T]
        advantage = returns
        if config.baseline == "value":
            advantage = returns - self.value(value_params, batch.obs).squeeze(-1)
        elif config.baseline == "mean":
            advantage = returns - masked_mean(returns, batch.mask, (-2, -1))
        if config.normalize_returns != "none":
            axes = (-1,) if config.normalize_returns == "episode" else (-2, -1)
            advantage = normalize(advantage, batch.mask, axes)
        return returns, advantage

    def fit_value(
        self, state: State, batch: EpisodeBatch, returns: Tensor, lr: Tensor, gradient: Gradient
    ) -> tuple[State, dict[str, Tensor]]:
        """`value.steps` steps down the mean squared error of b(s_t) against G_t [K, T]."""

        def loss_fn(params: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            error = self.value(params, batch.obs).squeeze(-1) - returns  # [K, T]
            loss = (error.square() * batch.mask).sum() / batch.mask.sum()
            return loss, {"train/value_loss": loss.detach()}

        metrics: dict[str, Tensor] = {}
        for _ in range(self.config.value.steps):
            grad, metrics = gradient(loss_fn, state.networks["value"])  # [V]
            state = self.descend(state, "value", grad, lr)
        return state, metrics

    def descend(self, state: State, name: str, grad: Tensor, lr: Tensor) -> State:
        """A step of the optimizer of the network `name`."""
        own = without_prefix(name, state.optimizer)
        params, own = optimizer_step(self.config.optimizer, state.networks[name], grad, own, lr)
        return State({**state.networks, name: params}, {**state.optimizer, **with_prefix(name, own)})
