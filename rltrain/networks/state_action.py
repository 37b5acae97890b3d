"""The Q-network that takes a state and an action and returns one number."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rltrain.config.schema import StateActionConfig
from rltrain.networks.encoder import ObservationEncoder
from rltrain.networks.mlp import dense
from rltrain.types import ObservationSpec


class StateAction(nn.Module):
    """Q(s, a; theta) of the observation and the one-hot action; one number per forward pass.

    The maximum over A actions takes A passes, made here as one batch that is A times as large. Mnih et al. 2015
    (methods, "Model architecture") name that cost as the reason to take the state alone and return all A values.
    """

    def __init__(self, config: StateActionConfig, observation: ObservationSpec, outputs: int) -> None:
        super().__init__()
        self._actions = outputs
        self.encoder = ObservationEncoder(observation)
        width = self.encoder.out_features + outputs
        self.layers = nn.Sequential(*dense(width, config.hidden, config.activation, 1, config.output_scale))

    def forward(self, obs: Tensor) -> Tensor:
        """obs [..., *obs] -> [..., A], the values of all actions."""
        state = self.encoder(obs).unsqueeze(-2)  # [..., 1, F]
        action = torch.eye(self._actions, dtype=state.dtype, device=state.device)  # [A, A]
        lead = state.shape[:-2]
        pairs = torch.cat(
            [state.expand(*lead, self._actions, state.shape[-1]), action.expand(*lead, self._actions, self._actions)],
            dim=-1,
        )  # [..., A, F + A]
        q_value: Tensor = self.layers(pairs)  # [..., A, 1]
        return q_value.squeeze(-1)
