"""The part of an agent that acts greedily: all that evaluation, export and `rltrain.load` need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from rltrain.engine.algorithm import Algorithm
from rltrain.engine.exploring import ExploringPolicy
from rltrain.engine.members import GreedyModule, MemberNetworks
from rltrain.engine.protocol import AgentContext, without_prefix


class GreedyPolicy:
    """The network that acts, of all members, and its best actions."""

    def __init__(self, algorithms: Sequence[Algorithm], context: AgentContext) -> None:
        """`algorithms`: one of each member."""
        self._device = context.device
        self._algorithms = algorithms
        self._algorithm = algorithms[0]
        acts = self._algorithm.acts
        self.networks = {
            name: MemberNetworks([a.networks[name] for a in algorithms], context.cuda_graphs and name == acts)
            for name in self._algorithm.networks
        }
        self._acting = self.networks[acts]

    def act_greedy(self, obs: np.ndarray) -> np.ndarray:
        return _greedy(self._algorithm, self._acting.outputs, obs)

    def greedy_of(self, members: Sequence[int], rows: int) -> Callable[[np.ndarray], np.ndarray] | None:
        """`act_greedy` of K members alone, as they are now, for obs [K * rows, *obs]: the same actions. None where that
        takes as long as asking all, or is not the same to the last bit."""
        outputs = self._acting.outputs_of(members, rows)
        return None if outputs is None else partial(_greedy, self._algorithm, outputs)

    def exploring(self, seed: int, env_step: int, episodes: int) -> ExploringPolicy:
        """See `Explorer`."""
        return ExploringPolicy(self._algorithm, self._acting, seed, env_step, episodes)

    def greedy_module(self) -> nn.Module:
        """obs [B, *obs] -> actions [B, *action], as a module of its own."""
        return GreedyModule(self._acting.module(), self._algorithm.greedy)

    def load_network(self, network: Mapping[str, Tensor], member: int = 0) -> None:
        self._acting.load_state_dict(without_prefix(self._algorithm.acts, network), member)


def _greedy(algorithm: Algorithm, outputs: Callable[[np.ndarray], Tensor], obs: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        # The one wait for the device per step: the environments need the actions.
        action: np.ndarray = algorithm.greedy(outputs(obs)).cpu().numpy()  # [N, *action]
    return action
