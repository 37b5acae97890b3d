"""PQN as the loop drives it, against an update that is written out plainly."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import (
    IMAGES,
    STATES,
    VECTOR,
    ScriptedEnvs,
    assert_same_state,
    drive,
    make_agent,
    network_of,
    optimizer,
    pqn_config,
    run_config,
)
from torch import Tensor
from torch.nn import functional as F

from rltrain.config.schema import CNNConfig, LinearConfig, NetworkConfig, PQNConfig, RunConfig
from rltrain.engine.protocol import Agent
from rltrain.seeding import make_generator
from rltrain.types import ObservationSpec, Transition


class Plain:
    """PQN with autograd, torch's own RAdam and loops over time, as a textbook would have it."""

    def __init__(self, agent: Agent, config: RunConfig) -> None:
        assert isinstance(config.algo, PQNConfig)
        self.algo, self.config = config.algo, config
        self.weights = {name: w.requires_grad_() for name, w in network_of(agent).items()}
        self.optimizer = torch.optim.RAdam(self.weights.values(), lr=self.algo.optimizer.lr)
        self.order = make_generator(config.seed, "minibatches")
        self.steps: list[Transition] = []
        self.updates = 0

    def q_values(self, obs: Tensor) -> Tensor:
        first, bias, gain, shift, last, last_bias = self.weights.values()
        hidden = F.layer_norm(obs @ first.T + bias, (len(bias),), gain, shift)
        return torch.tanh(hidden) @ last.T + last_bias

    def returns(self) -> np.ndarray:
        """[T, N]: of each step by itself the mean over n of n-step returns, weighted by (1 - lambda) lambda^(n-1)."""
        found = np.zeros((len(self.steps), self.config.num_envs))
        for env in range(self.config.num_envs):
            for start in range(len(self.steps)):
                so_far, discount, weight = 0.0, 1.0, 1.0
                for step in self.steps[start:]:
                    so_far += discount * step.reward[env]
                    discount *= self.algo.gamma
                    with torch.no_grad():
                        best = max(self.q_values(torch.from_numpy(step.next_obs[env])).tolist())
                    n_step = so_far + (0.0 if step.terminated[env] else discount * best)
                    if step.terminated[env] or step.truncated[env] or step is self.steps[-1]:
                        found[start, env] += weight * n_step
                        break
                    found[start, env] += weight * (1 - self.algo.q_lambda) * n_step
                    weight *= self.algo.q_lambda
        return found

    def update(self) -> None:
        algo, size = self.algo, len(self.steps) * self.config.num_envs
        obs = torch.from_numpy(np.concatenate([step.obs for step in self.steps]))  # [T * N, *obs]
        action = torch.from_numpy(np.concatenate([step.action for step in self.steps]))
        returns = torch.from_numpy(self.returns().reshape(-1)).float()
        if algo.anneal_lr:
            begun = self.updates * size
            self.optimizer.param_groups[0]["lr"] = algo.optimizer.lr * (1 - begun / self.config.total_steps)
        for _ in range(algo.epochs):
            order = torch.from_numpy(self.order.random(size).argsort())
            for rows in order.chunk(algo.minibatches):
                q_value = self.q_values(obs[rows])[torch.arange(len(rows)), action[rows]]
                self.optimizer.zero_grad()
                (q_value - returns[rows]).square().mean().backward()
                if algo.max_grad_norm is not None:
                    torch.nn.utils.clip_grad_norm_(self.weights.values(), algo.max_grad_norm)
                self.optimizer.step()
        self.steps, self.updates = [], self.updates + 1


VARIANTS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "one step": {"q_lambda": 0.0, "anneal_lr": False, "optimizer": optimizer("radam", lr=1e-2)},
    "all rewards, unclipped": {"q_lambda": 1.0, "gamma": 1.0, "max_grad_norm": None, "minibatches": 4},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_updates_are_those_of_a_plain_implementation(name: str) -> None:
    config = run_config(pqn_config(**VARIANTS[name]), num_envs=3, total_steps=100)
    agent = make_agent(config)
    envs, plain, updates = ScriptedEnvs(3), Plain(agent, config), 0
    while updates < 3:
        transition, episodes = envs.step(agent.act(envs.obs), agent.active)
        plain.steps.append(transition)
        agent.observe(transition, episodes)
        if agent.update():
            updates += 1
            plain.update()
            for weight, (key, expected) in zip(network_of(agent).values(), plain.weights.items(), strict=True):
                torch.testing.assert_close(weight, expected.detach(), rtol=1e-3, atol=2e-5, msg=f"{key} {updates}")


@pytest.mark.parametrize("num_envs", [1, 4])
def test_epsilon_falls_with_the_environment_steps_between_updates_too(num_envs: int) -> None:
    config = run_config(pqn_config(), num_envs=num_envs, exploration=LinearConfig("linear", 1.0, 0.0, 40))
    agent, seen = make_agent(config), []
    for number, _ in enumerate(drive(agent, ScriptedEnvs(num_envs), 40 // num_envs), 1):
        seen.append(agent.scalars()["train/epsilon"])
        assert seen[-1] == pytest.approx(1 - number * num_envs / 40)
    obs = np.random.default_rng(0).normal(size=(num_envs, 3)).astype(np.float32)
    assert seen[-1] == 0.0 and all(np.array_equal(agent.act(obs), agent.act_greedy(obs)) for _ in range(20))


@pytest.mark.parametrize("observation", [VECTOR, STATES, IMAGES], ids=["vector", "states", "images"])
def test_every_observation_trains_and_is_finite(observation: ObservationSpec) -> None:
    agent = make_agent(run_config(pqn_config(), num_envs=2), observation)
    before = network_of(agent)
    found = [metrics for metrics in drive(agent, ScriptedEnvs(2, observation), 16) if metrics]
    assert len(found) == 2
    assert all(math.isfinite(value.item()) for metrics in found for value in metrics.values())
    assert all(not torch.equal(before[name], tensor) for name, tensor in network_of(agent).items())


@pytest.mark.parametrize("said", [None, True, False])
def test_layers_are_normalised_unless_the_config_says_no(said: bool | None) -> None:
    mlp = NetworkConfig("mlp", (8,), "tanh", 1.0, layer_norm=said)
    cnn = CNNConfig("cnn", (3,), (2,), (1,), (8,), False, "auto", "relu", 1.0, layer_norm=said)
    image = ObservationSpec("box", (4, 4, 3), "uint8")
    for network, observation, layers in ((mlp, VECTOR, 2), (cnn, image, 3)):
        agent = make_agent(run_config(pqn_config(), network=network), observation)
        assert len(network_of(agent)) == 2 * layers + (0 if said is False else 2 * (layers - 1))


@pytest.mark.parametrize("stop", [3, 8, 13])
def test_it_continues_bit_for_bit_in_the_middle_of_a_rollout(stop: int) -> None:
    config = run_config(pqn_config(), num_envs=2, exploration=LinearConfig("linear", 1.0, 0.2, 60, duration=1.5))
    whole, envs = make_agent(config), ScriptedEnvs(2)
    list(drive(whole, envs, stop))
    state = {section: dict(part) for section, part in whole.state_dict().items()}
    state["network"] = network_of(whole)
    state["optimizer"] = {name: tensor.clone() for name, tensor in state["optimizer"].items()}
    continued = make_agent(replace(config, seed=5))
    continued.load_state_dict(state)
    assert_same_state(whole, continued)
    for _ in range(20):
        action = whole.act(envs.obs)
        assert np.array_equal(action, continued.act(envs.obs))
        transition, episodes = envs.step(action, whole.active)
        for agent in (whole, continued):
            agent.observe(transition, episodes)
            agent.update()
    assert_same_state(whole, continued)
