"""The protocol of an algorithm: one member's maths as pure functions of tensors, and what the engine must know.

An algorithm holds no state that changes and never sees an axis of members. The engine keeps the state, stacks members,
draws, steps, compiles, captures, saves and resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from rltrain.config.schema import AnyNetworkConfig, RunConfig
from rltrain.engine.cadence import EveryEpisodes, EveryRollout, UpdatesPerStep
from rltrain.experience.rollout import Rollout
from rltrain.maths.optimizers import Gradient
from rltrain.maths.schedules import Schedule
from rltrain.networks import make_network
from rltrain.networks.flat import FlatNetwork
from rltrain.seeding import Kind, Purpose, derive_seed
from rltrain.types import ActionSpec, ObservationSpec


class State(NamedTuple):
    """All that learning changes, of one member; a checkpoint has the same names."""

    networks: dict[str, Tensor]  # name -> flat parameters [P], target networks last
    optimizer: dict[str, Tensor]  # moments [P] and step counts []

    def tensors(self) -> list[Tensor]:
        """All tensors, always in the same order."""
        return [*self.networks.values(), *(self.optimizer[name] for name in sorted(self.optimizer))]


def given(**numbers: float | None) -> dict[str, float]:
    """The hyperparameters that are given: those that are None, such as a bound that is not set, are left out."""
    return {name: number for name, number in numbers.items() if number is not None}


class Learned(NamedTuple):
    """The outcome of one update."""

    state: State
    metrics: dict[str, Tensor]  # each []
    feedback: dict[str, Tensor]  # each [B], for a replay that asks for it by giving weights; else {}


@dataclass(frozen=True)
class Build:
    """The arguments of an algorithm: the config of one member, the spaces, the device."""

    config: RunConfig
    observation: ObservationSpec
    action: ActionSpec
    device: torch.device

    def network(
        self, outputs: int, *keys: int, config: AnyNetworkConfig | None = None, per_action: int = 1,
        around: Callable[[nn.Module], nn.Module] | None = None,
    ) -> FlatNetwork:  # fmt: skip
        """The network of the run's config, or of `config`; its first parameters are those of the seed and `keys`.

        Args:
            per_action: the numbers of each action among `outputs`.
            around: makes the module whose parameters these are of the network's.
        """
        seed = derive_seed(self.config.seed, "network", *keys)
        return make_network(
            config or self.config.network, self.observation, outputs, seed, self.device, per_action, around
        )


DURATION = "duration"
"""Name of the schedule and of the draw of random actions that are repeated (ez-greedy): the draws "explore" and
"random_action" say where one begins and which, and this one for how many vector steps."""


class Noise(NamedTuple):
    """The random numbers of acting: how many per environment and vector step, of which kind, from the stream of which
    purpose."""

    purpose: Purpose
    kind: Kind
    size: int


NETWORK_NOISE = "network_noise"
"""The draw of acting that a noisy network takes: for each vector step, and shared by the environments of a run."""


class LearningDraw(NamedTuple):
    """Random numbers of each update, from the stream of a purpose."""

    purpose: Purpose
    kind: Kind
    shape: tuple[int, ...]


class Draw(NamedTuple):
    """The form of a draw for each environment and vector step."""

    dtype: torch.dtype
    shape: tuple[int, ...] = ()


class Algorithm(Protocol):
    """One member's maths and its declarations. Tensors in the docstrings have no axis of members."""

    networks: Mapping[str, FlatNetwork]  # structure and initial parameters
    acts: str  # the network that acting asks
    critic: str | None  # the network whose output `state_value` takes; None: nothing estimates values
    learns: tuple[str, ...]  # the networks that updates change
    follows: Mapping[str, str]  # target network -> the network that it follows
    schedules: Mapping[str, Schedule]  # numbers of acting that change with the steps, such as epsilon
    knobs: Mapping[str, float]  # numbers of learning that may differ from member to member, such as lr
    anneals: Mapping[str, Schedule]  # knob -> what it is multiplied with, by the steps before those learned from
    noise: Noise  # what acting draws
    acting_draws: Mapping[str, Draw]  # what `draw` makes of it
    metrics: tuple[str, ...]  # the tags of `Learned.metrics`, in their order

    @property
    def cadence(self) -> UpdatesPerStep | EveryEpisodes | EveryRollout:
        """When updates are due: as environment steps are made, once whole episodes are there, or after rollouts of
        fixed length, which takes a `RolloutAlgorithm`."""
        ...

    def init_optimizer(self) -> dict[str, Tensor]:
        """Zero moments and step counts."""
        ...

    def draw(self, noise: np.ndarray, scheduled: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Random choices of some vector steps, made on the host for all members.

        Args:
            noise: [steps, M, N * size] numbers of `noise`.
            scheduled: the numbers of `schedules`, each [steps, M, 1].

        Returns:
            By name of `acting_draws` [steps, M, N, *shape].
        """
        ...

    def choose_blindly(self, drawn: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """The actions [N] where none depends on the network, else None."""
        ...

    def choose(self, xp: Any, output: Any, drawn: Mapping[str, Any]) -> Any:
        """The network's output [N, outputs] -> actions [N, *action]; `xp` is numpy on the host, torch in a program."""
        ...

    def greedy(self, output: Tensor) -> Tensor:
        """The network's output [N, outputs] -> the best actions [N, *action]."""
        ...

    def state_value(self, output: Tensor) -> Tensor:
        """The critic's output [N, outputs] -> V(s) [N]."""
        ...

    def learn(self, state: State, batch: Any, knobs: Mapping[str, Tensor], gradient: Gradient) -> Learned:
        """One update. Pure, and without control flow on values; target networks are the engine's to move.

        Args:
            knobs: the numbers of `knobs`, and of a `ReplayAlgorithm` the draws of `learning_draws`.
        """
        ...


class ReplayAlgorithm(Algorithm, Protocol):
    """An algorithm that learns from a replay. The batch of `learn` is a `Batch` or a `WeightedBatch`."""

    @property
    def learning_draws(self) -> Mapping[str, LearningDraw]:
        """Draws of each update beside those of the replay, by the names under which `learn` finds them."""
        ...


class Prepared(NamedTuple):
    """The outcome of looking at a rollout before its first gradient step."""

    columns: dict[str, Tensor]  # by name of `RolloutAlgorithm.columns`, each [T, N]
    metrics: dict[str, Tensor]  # by tag of `RolloutAlgorithm.rollout_metrics`, each []


class RolloutAlgorithm(Algorithm, Protocol):
    """An algorithm that learns from rollouts of fixed length, in epochs of shuffled minibatches. The batch of `learn`
    is a `Minibatch`."""

    columns: tuple[str, ...]  # numbers per step that all minibatches of a rollout share, such as advantages
    rollout_metrics: tuple[str, ...]  # the tags of `Prepared.metrics`, in their order
    limits: Mapping[str, float]  # tag of a metric -> no further epoch once its mean over an epoch is above

    def prepare(self, state: State, steps: Rollout, knobs: Mapping[str, Tensor]) -> Prepared:
        """Columns and metrics of a rollout, from the parameters that made it. Pure, no control flow on values."""
        ...
