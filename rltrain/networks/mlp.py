"""The multilayer perceptron."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rltrain.config.schema import NetworkConfig
from rltrain.networks.encoder import ObservationEncoder
from rltrain.types import ObservationSpec

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


class MLP(nn.Module):
    """Fully connected layers of `config.hidden` units; `hidden=[]` is a linear function of the observation.

    Weights start as PyTorch's default draws; the last layer's are then multiplied by `config.output_scale`, so that a
    small scale gives a policy that starts close to uniform.
    """

    def __init__(self, config: NetworkConfig, observation: ObservationSpec, outputs: int) -> None:
        super().__init__()
        encoder = ObservationEncoder(observation)
        layers: list[nn.Module] = [encoder]
        width = encoder.out_features
        for units in config.hidden:
            layers += [nn.Linear(width, units), ACTIVATIONS[config.activation]()]
            width = units
        last = nn.Linear(width, outputs)
        with torch.no_grad():
            for parameter in last.parameters():
                parameter.mul_(config.output_scale)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, obs: Tensor) -> Tensor:
        """obs [..., *obs] -> [..., outputs]."""
        output: Tensor = self.layers(obs)
        return output
