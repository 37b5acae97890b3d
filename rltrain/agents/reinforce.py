"""REINFORCE. Williams 1992; with a baseline Sutton & Barto 2018, section 13.4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from rltrain.agents.distributions import DISTRIBUTIONS, Distribution
from rltrain.agents.reinforce_update import ReinforceState, Update, make_hyperparameters, make_update
from rltrain.compiling import compiled
from rltrain.config.schema import AnyNetworkConfig, CNNConfig, NetworkConfig, ReinforceConfig, RunConfig
from rltrain.engine.members import GreedyModule, MemberNetworks, keep_retired, member_of, stack_members
from rltrain.engine.protocol import AgentContext, StateDict, with_prefix, without_prefix
from rltrain.networks import make_network
from rltrain.networks.flat import FlatNetwork
from rltrain.optimizers import functional_gradient, init_optimizer
from rltrain.replay.rollout import RolloutBuffer
from rltrain.seeding import RandomBlock, RandomBlocks, derive_seed, make_generator
from rltrain.types import Episode, Transition


class GreedyPolicy:
    """The policy network and the most likely action of its distribution."""

    def __init__(self, context: AgentContext) -> None:
        self._device = context.device
        self._distribution: Distribution = DISTRIBUTIONS[context.action.kind](context.action)
        outputs = self._distribution.outputs
        networks = [
            make_network(c.network, context.observation, outputs, derive_seed(c.seed, "network", 0), self._device)
            for c in context.configs
        ]
        self.policy = MemberNetworks(networks, context.compile_update, context.cuda_graphs)

    def act_greedy(self, obs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            output = self.policy(torch.from_numpy(obs).to(self._device))  # [N, head]
            action: np.ndarray = self._distribution.mode(output).cpu().numpy()
        return action

    def greedy_module(self) -> nn.Module:
        """obs [B, *obs] -> actions [B, *action], as a module of its own."""
        return GreedyModule(self.policy.module(), self._distribution.mode)

    def load_network(self, network: Mapping[str, Tensor], member: int = 0) -> None:
        self.policy.load_state_dict(without_prefix("policy", network), member)


class Reinforce(GreedyPolicy):
    """The agent: samples from its policy, keeps whole episodes, and updates once it has `episodes_per_update`.

    The members of a population wait for each other: they update together, each from its own episodes.
    """

    def __init__(self, context: AgentContext) -> None:
        super().__init__(context)
        configs, run, device = context.configs, context.config, context.device
        config = cast(ReinforceConfig, run.algo)
        self._config, self._configs = config, configs
        self._members, self._num_envs = len(configs), run.num_envs
        self._running = np.ones(self._members, dtype=bool)
        self.value = MemberNetworks([_value_network(c, context) for c in configs])
        policy, value = (networks.of_member(networks.params, 0) for networks in (self.policy, self.value))
        self._optimizer = stack_members([init_optimizer(config.optimizer, policy) for _ in configs])
        self._value_optimizer = stack_members([init_optimizer(config.optimizer, value) for _ in configs])
        algos = [cast(ReinforceConfig, c.algo) for c in configs]
        self._hyperparameters = stack_members([make_hyperparameters(algo, device) for algo in algos])
        self._update = self._make_update(context.compile_update)
        sizes = config.episodes_per_update, run.num_envs
        self._rollout = RolloutBuffer(*sizes, context.observation, context.action, self._members)
        self._draws = RandomBlocks(
            [RandomBlock(make_generator(c.seed, "policy"), self._distribution.noise) for c in configs]
        )
        self._gradient_steps = np.zeros(self._members, dtype=np.int64)  # [M]

    def _make_update(self, compile_update: bool) -> Update:
        networks = self.policy.apply, self.value.apply
        functional = make_update(self._config, *networks, self._distribution, functional_gradient)
        if self._members > 1:
            eager: Update = torch.vmap(functional)
            return compiled(eager, eager) if compile_update else eager
        eager = make_update(self._config, *networks, self._distribution)
        return compiled(functional, eager) if compile_update else eager

    @property
    def gradient_steps(self) -> int:
        return int(self._gradient_steps.max())

    @property
    def active(self) -> np.ndarray:
        active: np.ndarray = self._rollout.active & np.repeat(self._running, self._num_envs)
        return active

    @property
    def waiting(self) -> np.ndarray:
        waiting: np.ndarray = self._rollout.full & self._running
        return waiting

    @property
    def num_parameters(self) -> dict[str, int]:
        sizes = {"policy": self.policy.params.shape[-1]}
        return {**sizes, "value": self.value.params.shape[-1]} if self._config.baseline == "value" else sizes

    @property
    def replay_bytes(self) -> int:
        return self._rollout.nbytes

    def act(self, obs: np.ndarray) -> np.ndarray:
        # A member that waits for the others draws nothing, as the single run of its seed would not.
        playing = np.flatnonzero(self._running & ~self._rollout.full).tolist()
        count = self._num_envs * self._distribution.noise_size
        noise = self._draws.take(count, playing).reshape(len(obs), -1)  # [M * N, noise]
        with torch.no_grad():
            output = self.policy.act(obs)  # [M * N, head]
            draws = torch.from_numpy(noise.astype(np.float32)).to(self._device)  # [M * N, noise]
            # The one wait for the device per step: the environments need the actions.
            action: np.ndarray = self._distribution.sample(output, draws).cpu().numpy()
        return action

    def observe(self, transition: Transition, episodes: list[Episode]) -> None:
        self._rollout.add(transition)

    def update(self) -> dict[str, Tensor]:
        if not self._rollout.full[self._running].all():
            return {}
        policy, value = self.policy.params, self.value.params
        state = ReinforceState(policy, self._optimizer, value, self._value_optimizer)
        rollout = self._rollout.take(self._device)  # of a population [M, K, T, ...]
        with torch.no_grad():
            new_state, metrics = self._update(state, rollout, self._hyperparameters)
            running = None if self._running.all() else torch.from_numpy(self._running).to(self._device)  # [M]
            policy.copy_(keep_retired(running, new_state.params, policy))
            value.copy_(keep_retired(running, new_state.value_params, value))
        self._optimizer, self._value_optimizer = (
            {name: keep_retired(running, tensor, old[name]) for name, tensor in new.items()}
            for new, old in (
                (new_state.optimizer, self._optimizer),
                (new_state.value_optimizer, self._value_optimizer),
            )
        )
        self._gradient_steps += self._running
        return metrics

    def scalars(self, member: int = 0) -> dict[str, float]:
        return {
            "train/learning_rate": cast(ReinforceConfig, self._configs[member].algo).optimizer.lr,
            "train/gradient_steps": float(self._gradient_steps[member]),
        }

    def retire(self, member: int) -> None:
        self._running[member] = False

    def abandon_episodes(self, envs: np.ndarray) -> None:
        self._rollout.forget(envs)

    def state_dict(self, member: int = 0) -> StateDict:
        optimizers = (member_of(tree, member, self._members) for tree in (self._optimizer, self._value_optimizer))
        policy_optimizer, value_optimizer = optimizers
        return {
            "network": {
                **with_prefix("policy", self.policy.state_dict(member)),
                **with_prefix("value", self.value.state_dict(member)),
            },
            "optimizer": {
                **with_prefix("policy", policy_optimizer),
                **with_prefix("value", value_optimizer),
            },
            "replay": with_prefix("rollout", self._rollout.state_dict(member)),
            "state": {
                "gradient_steps": int(self._gradient_steps[member]),
                "draws": self._draws[member].state_dict(),
            },
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]], member: int = 0) -> None:
        self.load_network(state["network"], member)
        for prefix, tree in (("policy", self._optimizer), ("value", self._value_optimizer)):
            own = member_of(tree, member, self._members)
            for name, tensor in without_prefix(prefix, state["optimizer"]).items():
                own[name].copy_(tensor)
        self._rollout.load_state_dict(without_prefix("rollout", state["replay"]), member)
        self._gradient_steps[member] = state["state"]["gradient_steps"]
        self._draws[member].load_state_dict(state["state"]["draws"])

    def load_network(self, network: Mapping[str, Tensor], member: int = 0) -> None:
        super().load_network(network, member)
        self.value.load_state_dict(without_prefix("value", network), member)


def _value_network(run: RunConfig, context: AgentContext) -> FlatNetwork:
    """The baseline b(s; w): an MLP of its own, or where the policy has convolutions, the same ones with own weights."""
    hidden = cast(ReinforceConfig, run.algo).value.hidden
    network: AnyNetworkConfig
    if isinstance(run.network, CNNConfig):
        network = replace(run.network, hidden=hidden, output_scale=1.0)
    else:
        # A plug-in's network may have keys of its own.
        activation = run.network.activation if isinstance(run.network, NetworkConfig) else "relu"
        network = NetworkConfig("mlp", hidden, activation, 1.0)
    return make_network(network, context.observation, 1, derive_seed(run.seed, "network", 1), context.device)
