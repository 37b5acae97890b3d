"""The multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

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


def dense(
    width: int, hidden: Sequence[int], activation: str, outputs: int | None = None, output_scale: float = 1.0
) -> list[nn.Module]:
    """Fully connected layers from `width` inputs, each of `hidden` with its activation, then one of `outputs` without.

    Weights start as PyTorch's default draws; the last layer's are then multiplied by `output_scale`, so that a small
    scale gives a policy that starts close to uniform.
    """
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(width, units), ACTIVATIONS[activation]()]
        width = units
    if outputs is not None:
        last = nn.Linear(width, outputs)
        with torch.no_grad():
            for parameter in last.parameters():
                parameter.mul_(output_scale)
        layers.append(last)
    return layers


class MLP(nn.Module):
    """Fully connected layers of `config.hidden` units; `hidden=[]` is a linear function of the observation."""

    def __init__(self, config: NetworkConfig, observation: ObservationSpec, outputs: int) -> None:
        super().__init__()
        encoder = ObservationEncoder(observation)
        layers = dense(encoder.out_features, config.hidden, config.activation, outputs, config.output_scale)
        self.layers = nn.Sequential(encoder, *layers)

    def forward(self, obs: Tensor) -> Tensor:
        """obs [..., *obs] -> [..., outputs]."""
        output: Tensor = self.layers(obs)
        return output
