"""PQN as the loop drives it, against an update that is written out plainly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from plain_rollouts import (
    Plain,
    assert_continues_bit_for_bit,
    assert_trains_and_is_finite,
    assert_updates_equal,
    lambda_returns,
)
from small_runs import (
    IMAGES,
    STATES,
    VECTOR,
    ScriptedEnvs,
    drive,
    make_agent,
    network_of,
    optimizer,
    pqn_config,
    run_config,
)
from torch import Tensor
from torch.nn import functional as F

from rltrain.config.schema import CNNConfig, LinearConfig, NetworkConfig, PQNConfig
from rltrain.types import ObservationSpec


class PlainPQN(Plain):
    """With torch's own layer norm."""

    def q_values(self, obs: Tensor) -> Tensor:
        first, bias, gain, shift, last, last_bias = self.weights.values()
        hidden = F.layer_norm(obs @ first.T + bias, (len(bias),), gain, shift)
        return torch.tanh(hidden) @ last.T + last_bias

    def columns(self) -> dict[str, Tensor]:
        assert isinstance(self.algo, PQNConfig)
        best = self.q_values(torch.from_numpy(self.of_steps("next_obs"))).amax(-1).numpy()  # [T, N]
        steps = (self.of_steps(name) for name in ("terminated", "truncated"))
        returns = lambda_returns(self.of_steps("reward"), best, *steps, self.algo.gamma, self.algo.q_lambda)
        return {"returns": torch.from_numpy(returns.reshape(-1)).float()}

    def loss(self, obs: Tensor, action: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        q_value = self.q_values(obs)[torch.arange(len(obs)), action]
        return (q_value - columns["returns"]).square().mean()


VARIANTS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "one step": {"q_lambda": 0.0, "anneal_lr": False, "optimizer": optimizer("radam", lr=1e-2)},
    "all rewards, unclipped": {"q_lambda": 1.0, "gamma": 1.0, "max_grad_norm": None, "minibatches": 4},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_updates_are_those_of_a_plain_implementation(name: str) -> None:
    config = run_config(pqn_config(**VARIANTS[name]), num_envs=3, total_steps=100)
    agent = make_agent(config)
    assert_updates_equal(agent, PlainPQN(agent, config))


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
    assert_trains_and_is_finite(make_agent(run_config(pqn_config(), num_envs=2), observation), observation)


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
    assert_continues_bit_for_bit(make_agent(config), make_agent(replace(config, seed=5)), stop)
