"""Dueling networks. Wang et al. 2016."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from rltrain.config.schema import DuelingConfig
from rltrain.networks.encoder import ObservationEncoder
from rltrain.networks.mlp import dense
from rltrain.types import ObservationSpec


def combine_streams(value: Tensor, advantage: Tensor) -> Tensor:
    """Q(s, a) = V(s) + A(s, a) - mean over a' of A(s, a'). Wang et al. 2016, equation 9.

    value [..., 1], advantage [..., A] -> [..., A].
    """
    return value + advantage - advantage.mean(-1, keepdim=True)


class DuelingHead(nn.Module):
    """Two streams of `hidden` units each, one of the state's value and one of the actions' advantages.

    Differs from the paper: the gradient that leaves the streams is not multiplied by 1 / sqrt(2).
    """

    def __init__(
        self, width: int, hidden: Sequence[int], activation: str, outputs: int, output_scale: float,
        layer_norm: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.value = nn.Sequential(*dense(width, hidden, activation, 1, output_scale, layer_norm))
        self.advantage = nn.Sequential(*dense(width, hidden, activation, outputs, output_scale, layer_norm))

    @property
    def stacks(self) -> tuple[nn.Sequential, nn.Sequential]:
        return self.value, self.advantage

    def forward(self, features: Tensor) -> Tensor:
        """features [..., width] -> [..., outputs]."""
        return combine_streams(self.value(features), self.advantage(features))


class Dueling(nn.Module):
    """Shared fully connected layers of `config.hidden` units, then the two streams of `config.stream` units each."""

    def __init__(self, config: DuelingConfig, observation: ObservationSpec, outputs: int) -> None:
        super().__init__()
        encoder = ObservationEncoder(observation)
        width = config.hidden[-1] if config.hidden else encoder.out_features
        self.body = nn.Sequential(encoder, *dense(encoder.out_features, config.hidden, config.activation))
        self.head = DuelingHead(width, config.stream, config.activation, outputs, config.output_scale)

    def forward(self, obs: Tensor) -> Tensor:
        """obs [..., *obs] -> [..., outputs]."""
        output: Tensor = self.head(self.body(obs))
        return output
