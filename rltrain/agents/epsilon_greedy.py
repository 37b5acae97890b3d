"""The part that algorithms with action values share: a Q-network, and acting epsilon-greedily by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from rltrain.engine.algorithm import DURATION, Build, Draw, Noise
from rltrain.maths.persistence import zeta_quantile
from rltrain.maths.schedules import Schedule, always, make_schedule
from rltrain.networks.flat import FlatNetwork


class EpsilonGreedy:
    """A Q-network of `outputs_per_action` (Z) numbers for each action. Acts at random with probability epsilon, else by
    argmax_a Q(s, a)."""

    acts = "q_network"
    critic: str | None = "q_network"
    learns: tuple[str, ...] = ("q_network",)
    noise: Noise = Noise("exploration", "uniform", 2)
    outputs_per_action = 1
    networks: Mapping[str, FlatNetwork]
    schedules: Mapping[str, Schedule]
    acting_draws: Mapping[str, Draw]

    def __init__(self, build: Build) -> None:
        self.num_actions = build.action.n
        network = self.make_network(build)
        self.networks = {"q_network": network}
        self.apply = network.apply
        self.acting_draws = {"explore": Draw(torch.bool), "random_action": Draw(torch.int64)}
        exploration = build.config.exploration
        self.schedules = {} if exploration is None else {"epsilon": make_schedule(exploration)}
        if exploration is not None and exploration.duration is not None:
            self.noise = Noise("exploration", "uniform", 3)
            self.schedules = {**self.schedules, DURATION: always(exploration.duration)}

    def make_network(self, build: Build) -> FlatNetwork:
        """The Q-network, of `outputs_per_action` numbers for each action."""
        return build.network(self.num_actions * self.outputs_per_action, per_action=self.outputs_per_action)

    def of_actions(self, output: Any) -> Any:
        """The network's output [..., outputs] -> the numbers of each action [..., A, Z]."""
        return output.reshape(*output.shape[:-1], self.num_actions, -1)

    def q_values(self, xp: Any, output: Any) -> Any:
        """The network's output [..., outputs] -> Q(s, a) [..., A]."""
        return output

    def draw(self, noise: np.ndarray, scheduled: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        uniform = noise.reshape(*noise.shape[:2], self.noise.size, -1)  # [steps, M, 2 or 3, N]
        drawn = {
            "explore": uniform[:, :, 0] < scheduled["epsilon"],
            "random_action": (uniform[:, :, 1] * self.num_actions).astype(np.int64),
        }
        if DURATION in scheduled:
            exponents = scheduled[DURATION][0, :, 0]  # [M]
            of_members = [zeta_quantile(uniform[:, m, 2], float(mu)) for m, mu in enumerate(exponents)]
            drawn[DURATION] = np.stack(of_members, axis=1)
        return drawn

    def choose_blindly(self, drawn: Mapping[str, np.ndarray]) -> np.ndarray | None:
        return drawn["random_action"] if drawn["explore"].all() else None

    def choose(self, xp: Any, output: Any, drawn: Mapping[str, Any]) -> Any:
        return xp.where(drawn["explore"], drawn["random_action"], self.q_values(xp, output).argmax(-1))

    def state_value(self, output: Tensor) -> Tensor:
        return cast(Tensor, self.q_values(torch, output).amax(-1))

    def greedy(self, output: Tensor) -> Tensor:
        return cast(Tensor, self.q_values(torch, output).argmax(-1))
