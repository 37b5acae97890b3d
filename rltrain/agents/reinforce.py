"""REINFORCE. Williams 1992; with a baseline Sutton & Barto 2018, section 13.4."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from rltrain.agents.agent import AgentContext, StateDict, with_prefix, without_prefix
from rltrain.agents.distributions import DISTRIBUTIONS, Distribution
from rltrain.compiling import compiled
from rltrain.config.schema import NetworkConfig, ReinforceConfig
from rltrain.losses.policy import masked_mean, normalize, policy_gradient_loss, reward_to_go
from rltrain.networks import make_network
from rltrain.networks.flat import Apply
from rltrain.optimizers import (
    Gradient,
    OptimizerState,
    clip_gradient,
    eager_gradient,
    functional_gradient,
    init_optimizer,
    optimizer_step,
)
from rltrain.replay.rollout import Rollout, RolloutBuffer
from rltrain.seeding import RandomBlock, derive_seed, make_generator
from rltrain.types import Episode, Transition


class ReinforceState(NamedTuple):
    """What one update reads and writes. Without a value network the last two are empty."""

    params: Tensor  # [P], theta of the policy
    optimizer: OptimizerState
    value_params: Tensor  # [V], w of the baseline
    value_optimizer: OptimizerState


Hyperparameters = dict[str, Tensor]
"""`lr`, `gamma`, `entropy_coef`, `value_lr`, and `max_grad_norm` where gradients are clipped; each []."""
Update = Callable[[ReinforceState, Rollout, Hyperparameters], tuple[ReinforceState, dict[str, Tensor]]]


def make_update(
    config: ReinforceConfig,
    policy: Apply,
    value: Apply,
    distribution: Distribution,
    gradient: Gradient = eager_gradient,
) -> Update:
    """One update of one member from K whole episodes, as a pure function of tensors.

    Ascends the mean over episodes (or steps) of log pi(a_t|s_t) (G_t - b(s_t)); then fits the baseline to G_t. The
    gamma^t of the exact gradient of the discounted objective is left out, as in nearly all practice.
    """

    def reduce(x: Tensor, mask: Tensor) -> Tensor:
        """x [K, T] -> []: the mean over all steps, or the mean over episodes of their sums."""
        total = (x * mask).sum()
        return total / mask.sum() if config.loss_reduction == "mean" else total / mask.shape[0]

    def returns_and_advantage(value_params: Tensor, rollout: Rollout, gamma: Tensor) -> tuple[Tensor, Tensor]:
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

    def fit_value(
        state: ReinforceState, rollout: Rollout, returns: Tensor, lr: Tensor
    ) -> tuple[Tensor, OptimizerState, dict[str, Tensor]]:
        """`value.steps` steps down the mean squared error of b(s_t) against G_t."""

        def loss_fn(value_params: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            error = value(value_params, rollout.obs).squeeze(-1) - returns  # [K, T]
            loss = (error.square() * rollout.mask).sum() / rollout.mask.sum()
            return loss, {"train/value_loss": loss.detach()}

        params, optimizer = state.value_params, state.value_optimizer
        metrics: dict[str, Tensor] = {}
        for _ in range(config.value.steps):
            grad, metrics = gradient(loss_fn, params)  # [V]
            params, optimizer = optimizer_step(config.optimizer, params, grad, optimizer, lr)
        return params, optimizer, metrics

    def update(
        state: ReinforceState, rollout: Rollout, hyperparameters: Hyperparameters
    ) -> tuple[ReinforceState, dict[str, Tensor]]:
        with torch.no_grad():
            returns, advantage = returns_and_advantage(state.value_params, rollout, hyperparameters["gamma"])

        def loss_fn(params: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
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
        metrics = {**metrics, "train/grad_norm": grad_norm}
        state = state._replace(params=params, optimizer=optimizer)
        if config.baseline == "value":
            value_params, value_optimizer, value_metrics = fit_value(
                state, rollout, returns, hyperparameters["value_lr"]
            )
            state = state._replace(value_params=value_params, value_optimizer=value_optimizer)
            metrics = {**metrics, **value_metrics}
        return state, metrics

    return update


def make_hyperparameters(config: ReinforceConfig, device: torch.device) -> Hyperparameters:
    values = {
        "lr": config.optimizer.lr,
        "gamma": config.gamma,
        "entropy_coef": config.entropy_coef,
        "value_lr": config.value.lr,
        "max_grad_norm": config.max_grad_norm,
    }
    return {name: torch.tensor(number, device=device) for name, number in values.items() if number is not None}


class GreedyPolicy:
    """The policy network and the most likely action of its distribution."""

    def __init__(self, context: AgentContext) -> None:
        run = context.config
        self._device = context.device
        self._distribution: Distribution = DISTRIBUTIONS[context.action.kind](context.action)
        outputs, init_seed = self._distribution.outputs, derive_seed(run.seed, "network", 0)
        self.policy = make_network(run.network, context.observation, outputs, init_seed, self._device)

    def act_greedy(self, obs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            output = self.policy(torch.from_numpy(obs).to(self._device))  # [N, head]
            action: np.ndarray = self._distribution.mode(output).cpu().numpy()
        return action

    def load_network(self, network: Mapping[str, Tensor]) -> None:
        self.policy.load_state_dict(without_prefix("policy", network))


class Reinforce(GreedyPolicy):
    """The agent: samples from its policy, keeps whole episodes, and updates once it has `episodes_per_update`."""

    def __init__(self, context: AgentContext) -> None:
        super().__init__(context)
        run, device = context.config, context.device
        config = cast(ReinforceConfig, run.algo)
        self._config = config
        # A plug-in's network may have keys of its own.
        activation = run.network.activation if isinstance(run.network, NetworkConfig) else "relu"
        value_config = NetworkConfig("mlp", config.value.hidden, activation, 1.0)
        value_seed = derive_seed(run.seed, "network", 1)
        self.value = make_network(value_config, context.observation, 1, value_seed, device)
        self._optimizer = init_optimizer(config.optimizer, self.policy.params)
        self._value_optimizer = init_optimizer(config.optimizer, self.value.params)
        self._hyperparameters = make_hyperparameters(config, device)
        networks = self.policy.apply, self.value.apply
        self._update = make_update(config, *networks, self._distribution)
        if context.compile_update:
            functional = make_update(config, *networks, self._distribution, functional_gradient)
            self._update = compiled(functional, self._update)
        self._rollout = RolloutBuffer(config.episodes_per_update, run.num_envs, context.observation, context.action)
        self._draws = RandomBlock(make_generator(run.seed, "policy"), self._distribution.noise)
        self.gradient_steps = 0

    @property
    def active(self) -> np.ndarray:
        return self._rollout.active

    @property
    def num_parameters(self) -> dict[str, int]:
        sizes = {"policy": self.policy.params.numel()}
        return {**sizes, "value": self.value.params.numel()} if self._config.baseline == "value" else sizes

    @property
    def replay_bytes(self) -> int:
        return self._rollout.nbytes

    def act(self, obs: np.ndarray) -> np.ndarray:
        noise = self._draws.take(len(obs) * self._distribution.noise_size).reshape(len(obs), -1)
        with torch.inference_mode():
            output = self.policy(torch.from_numpy(obs).to(self._device))  # [N, head]
            draws = torch.from_numpy(noise.astype(np.float32)).to(self._device)  # [N, noise]
            # The one wait for the device per step: the environments need the actions.
            action: np.ndarray = self._distribution.sample(output, draws).cpu().numpy()
        return action

    def observe(self, transition: Transition, episodes: list[Episode]) -> None:
        self._rollout.add(transition)

    def update(self) -> dict[str, Tensor]:
        if not self._rollout.full:
            return {}
        state = ReinforceState(self.policy.params, self._optimizer, self.value.params, self._value_optimizer)
        rollout = self._rollout.take(self._device)
        with torch.no_grad():
            new_state, metrics = self._update(state, rollout, self._hyperparameters)
            self.policy.params.copy_(new_state.params)
            self.value.params.copy_(new_state.value_params)
        self._optimizer, self._value_optimizer = new_state.optimizer, new_state.value_optimizer
        self.gradient_steps += 1
        return metrics

    def scalars(self) -> dict[str, float]:
        return {
            "train/learning_rate": self._config.optimizer.lr,
            "train/gradient_steps": float(self.gradient_steps),
        }

    def abandon_episodes(self, envs: np.ndarray) -> None:
        self._rollout.forget(envs)

    def state_dict(self) -> StateDict:
        return {
            "network": {
                **with_prefix("policy", self.policy.state_dict()),
                **with_prefix("value", self.value.state_dict()),
            },
            "optimizer": {
                **with_prefix("policy", self._optimizer),
                **with_prefix("value", self._value_optimizer),
            },
            "replay": with_prefix("rollout", self._rollout.state_dict()),
            "state": {"gradient_steps": self.gradient_steps, "draws": self._draws.state_dict()},
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        self.load_network(state["network"])
        optimizer = {name: tensor.to(self._device) for name, tensor in state["optimizer"].items()}
        self._optimizer = without_prefix("policy", optimizer)
        self._value_optimizer = without_prefix("value", optimizer)
        self._rollout.load_state_dict(without_prefix("rollout", state["replay"]))
        self.gradient_steps = state["state"]["gradient_steps"]
        self._draws.load_state_dict(state["state"]["draws"])

    def load_network(self, network: Mapping[str, Tensor]) -> None:
        super().load_network(network)
        self.value.load_state_dict(without_prefix("value", network))
