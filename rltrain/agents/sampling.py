"""The part that policy-gradient algorithms share: a policy that is sampled from, and a value network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rltrain.agents.distributions import DISTRIBUTIONS
from rltrain.config.schema import AnyNetworkConfig, CNNConfig, NetworkConfig
from rltrain.engine.algorithm import Build, Draw, Noise
from rltrain.maths.schedules import Schedule
from rltrain.networks.flat import FlatNetwork


class SampledPolicy:
    """A policy network, whose distribution actions are sampled from, and a value network."""

    acts = "policy"
    critic: str | None = "value"
    follows: Mapping[str, str] = {}
    schedules: Mapping[str, Schedule] = {}

    def __init__(self, build: Build, value_hidden: tuple[int, ...]) -> None:
        self.distribution = DISTRIBUTIONS[build.action.kind](build.action)
        policy = build.network(self.distribution.outputs, 0)
        value = build.network(1, 1, config=_value_network(build.config.network, value_hidden))
        self.networks: Mapping[str, FlatNetwork] = {"policy": policy, "value": value}
        self.policy, self.value = policy.apply, value.apply
        self.noise = Noise("policy", self.distribution.noise, self.distribution.noise_size)
        self.acting_draws: Mapping[str, Draw] = {"noise": Draw(torch.float32, (self.distribution.noise_size,))}

    def draw(self, noise: np.ndarray, scheduled: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        shape = *noise.shape[:2], -1, self.distribution.noise_size
        return {"noise": noise.reshape(shape).astype(np.float32)}

    def choose_blindly(self, drawn: Mapping[str, np.ndarray]) -> np.ndarray | None:
        return None

    def choose(self, xp: Any, output: Any, drawn: Mapping[str, Any]) -> Any:
        sample = self.distribution.sample_in_numpy if xp is np else self.distribution.sample
        return sample(output, drawn["noise"])

    def state_value(self, output: Tensor) -> Tensor:
        return output.squeeze(-1)

    def greedy(self, output: Tensor) -> Tensor:
        return self.distribution.mode(output)


def _value_network(network: AnyNetworkConfig | None, hidden: tuple[int, ...]) -> AnyNetworkConfig:
    """V(s): an MLP of its own, or where the policy has convolutions, the same ones with own weights."""
    if isinstance(network, CNNConfig):
        return replace(network, hidden=hidden, output_scale=1.0)
    # A plug-in's network may have keys of its own.
    if not isinstance(network, NetworkConfig):
        return NetworkConfig("mlp", hidden, "relu", 1.0)
    return NetworkConfig("mlp", hidden, network.activation, 1.0, network.init, network.layer_norm)
