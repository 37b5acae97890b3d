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
        layer_norm: bool = False, per_action: int = 1,
    ) -> None:  # fmt: skip
        """per_action: the numbers Z that each action has, which are combined one by one; `outputs` is A * Z."""
        super().__init__()
        self._per_action = per_action
        self.value = nn.Sequential(*dense(width, hidden, activation, per_action, output_scale, layer_norm))
        self.advantage = nn.Sequential(*dense(width, hidden, activation, outputs, output_scale, layer_norm))

    @property
    def stacks(self) -> tuple[nn.Sequential, nn.Sequential]:
        return self.value, self.advantage

    def forward(self, features: Tensor) -> Tensor:
        """features [..., width] -> [..., outputs]."""
        value, advantage = self.value(features), self.advantage(features)  # [..., Z], [..., A * Z]
        if self._per_action == 1:
            return combine_streams(value, advantage)
        of_actions = advantage.unflatten(-1, (-1, self._per_action)).transpose(-1, -2)  # [..., Z, A]
        return combine_streams(value.unsqueeze(-1), of_actions).transpose(-1, -2).flatten(-2)


class Dueling(nn.Module):
    """Shared fully connected layers of `config.hidden` units, then the two streams of `config.stream` units each."""

    def __init__(self, config: DuelingConfig, observation: ObservationSpec, outputs: int, per_action: int = 1) -> None:
        super().__init__()
        encoder = ObservationEncoder(observation)
        width = config.hidden[-1] if config.hidden else encoder.out_features
        self.body = nn.Sequential(encoder, *dense(encoder.out_features, config.hidden, config.activation))
        self.head = DuelingHead(
            width, config.stream, config.activation, outputs, config.output_scale, per_action=per_action
        )

        self.feature_width = width

    def forward(self, obs: Tensor) -> Tensor:
        """obs [..., *obs] -> [..., outputs]."""
        return self.values(self.features(obs))

    def features(self, obs: Tensor) -> Tensor:
        """The output of the layers that the streams share, [..., feature_width]."""
        output: Tensor = self.body(obs)
        return output

    def values(self, features: Tensor) -> Tensor:
        """[..., feature_width] -> [..., outputs]."""
        output: Tensor = self.head(features)
        return output
