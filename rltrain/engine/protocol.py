"""Protocols between the training loop, agents and environments; and what an agent is built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from rltrain.config.schema import RunConfig
from rltrain.types import ActionScale, ActionSpec, BlockBoundary, BlockRecords, Episode, ObservationSpec, Transition

StateDict = dict[str, dict[str, Any]]
"""`network`, `optimizer`, `replay`, and `frames` where frames are kept once: name -> tensor; `state`: plain data. The
sections are the checkpoint's files.

`rings`, where it is there: section -> Ring, which tells what of it is new since an earlier save; not saved.
"""


class BackgroundCompiler(Protocol):
    """Compiles an agent's programs while the agent learns without them."""

    def start(self, done: float) -> None:
        """Begins to compile once it is time; it is called repeatedly, and later calls do nothing.

        Args:
            done: the share of the uncompiled steps that is made.
        """
        ...

    def wait(self) -> None:
        """Returns when all is compiled."""
        ...


@dataclass(frozen=True)
class AgentContext:
    """The arguments of every agent."""

    config: RunConfig
    observation: ObservationSpec
    action: ActionSpec
    device: torch.device
    compile_update: bool = False
    population: tuple[RunConfig, ...] = ()
    """The members' configs, `config` first among them, where the agent trains several runs as one."""
    cuda_graphs: bool = False
    compile_from: int = 0
    """The environment step of a member from which on updates are compiled, if they are."""
    compiler: BackgroundCompiler | None = None
    """Compiles until then; None where nothing is compiled beside the run."""

    @property
    def configs(self) -> tuple[RunConfig, ...]:
        """One config per member; a single run is its own only member."""
        return self.population or (self.config,)


class Policy(Protocol):
    """Acts greedily: all that evaluation needs."""

    def act_greedy(self, obs: np.ndarray) -> np.ndarray:
        """obs [N, *obs] -> the agent's best actions [N, *action]."""
        ...


@runtime_checkable
class Critic(Policy, Protocol):
    """A policy that can be asked for values, and for what else tells why learning fails."""

    @property
    def gammas(self) -> np.ndarray:
        """[M], float64."""
        ...

    def state_values(self, obs: np.ndarray, member: int = 0) -> np.ndarray:
        """obs [B, *obs] -> V(s) [B] as a member's networks see it, float64; NaN where nothing estimates it."""
        ...

    def diagnostics(self, obs: np.ndarray, member: int = 0) -> dict[str, float]:
        """Diagnostics by tag: of a member's networks in states [B, *obs] that its greedy policy meets, and of its
        experience."""
        ...


class LoadablePolicy(Policy, Protocol):
    """A policy whose weights can come from a checkpoint."""

    def load_network(self, network: Mapping[str, Tensor], member: int = 0) -> None:
        """Takes the weights of the `network` section of a checkpoint.

        Raises:
            ValueError: they do not fit this network.
        """
        ...


@runtime_checkable
class Explorer(Policy, Protocol):
    """A policy that can be asked to act as in training."""

    def exploring(self, seed: int, env_step: int, episodes: int) -> Policy:
        """The policy as it acted at a moment of the training, after so many environment steps and episodes, with draws
        of `seed`; for the only member."""
        ...


class Agent(LoadablePolicy, Protocol):
    """The loop calls act, observe, update, in this order, once per vector step.

    One that trains a population has M * N environments, member by member; its metrics are [M], and state and scalars
    are asked for per member. One that cannot (see `config.population`) may leave `member` alone.
    """

    @property
    def gradient_steps(self) -> int:
        """Made so far, by the member that has made most."""
        ...

    @property
    def active(self) -> np.ndarray:
        """[N] bool: which environments the next vector step moves."""
        ...

    @property
    def waiting(self) -> np.ndarray:
        """[M] bool: members that have all they need for an update, which waits for other members."""
        ...

    @property
    def num_parameters(self) -> dict[str, int]:
        """Parameters per network, for the header."""
        ...

    @property
    def replay_bytes(self) -> int:
        """Bytes that the agent keeps for experience."""
        ...

    def act(self, obs: np.ndarray) -> np.ndarray:
        """obs [N, *obs] -> actions with exploration [N, *action]. Draws random numbers."""
        ...

    def observe(self, transition: Transition, episodes: list[Episode]) -> None:
        """Records one vector step and the episodes that it finished."""
        ...

    def update(self) -> dict[str, Tensor]:
        """Makes the gradient steps that are due; metrics [] by tag, on the device; {} when none was due."""
        ...

    def scalars(self, member: int = 0) -> dict[str, float]:
        """Numbers to log that are known without waiting for the device: epsilon, learning rate, gradient steps."""
        ...

    def abandon_episodes(self, envs: np.ndarray) -> None:
        """The running episodes of environments `envs` (bool [N]) begin anew: they could not be continued exactly."""
        ...

    def retire(self, member: int) -> None:
        """The member's run is over: its environments idle and its state stays as it is."""
        ...

    def state_dict(self, member: int = 0) -> StateDict:
        """All that changes during training."""
        ...

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]], member: int = 0) -> None:
        """Copies in place; `state` has the form that state_dict returns."""
        ...


class Twin(Protocol):
    """The two functions of a batched environment that are computed in the program; lanes are the last axis."""

    def step(self, xp: Any, state: Any, action: Any) -> tuple[Any, Any, Any]: ...
    def observe(self, xp: Any, state: Any) -> Any: ...


class Formulas(Protocol):
    """Wrappers, computed in the program: from rewards [L] and observations [L, *obs] of `lanes` (bool [L]) to those of
    the agent, and from `kept`, the arrays that they compute with, to the same afterwards."""

    def rewarded(self, xp: Any, kept: Mapping[str, Any], reward: Any, lanes: Any) -> tuple[Any, Mapping[str, Any]]: ...
    def stepped(self, xp: Any, kept: Mapping[str, Any], obs: Any, lanes: Any) -> tuple[Any, Mapping[str, Any]]: ...
    def begun(self, xp: Any, kept: Mapping[str, Any], obs: Any, lanes: Any) -> tuple[Any, Mapping[str, Any]]: ...


class SteppedByAgent(Protocol):
    """Environments that an agent steps on its device; it reports the outcome to them afterwards."""

    reward_clip: float | None

    @property
    def twin(self) -> Twin: ...
    @property
    def max_episode_steps(self) -> int | None:
        """Where episodes are cut, None for never."""
        ...

    @property
    def first_action(self) -> int: ...
    @property
    def action_scale(self) -> ActionScale | None: ...
    @property
    def wrappers(self) -> Formulas | None: ...
    def now(self) -> BlockBoundary: ...
    def next_starts(self, depth: int) -> tuple[np.ndarray, np.ndarray]: ...
    def record_block(self, now: BlockBoundary, seen: BlockRecords) -> list[Episode]: ...


class Block(NamedTuple):
    """Vector steps that an agent has made by itself."""

    taken: np.ndarray  # [steps, M] int64, the environment steps of each member in each of them
    episodes: list[Episode]  # that ended, in that order
    learned_at: list[int]  # the U vector steps, from 1, after which gradient steps were made
    metrics: dict[str, np.ndarray]  # of each of them, by tag [U] or [U, M]

    @property
    def steps(self) -> int:
        """Vector steps."""
        return len(self.taken)


class IteratingAgent(Agent, Protocol):
    """An agent that steps environments itself: `env.vectorization=compiled`."""

    def iterate(self, envs: SteppedByAgent, most: int) -> Block:
        """At least one and at most `most` vector steps: act, the environments' step, observe and update."""
        ...


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """{"weight": ...} -> {"prefix.weight": ...}."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries that start with "prefix.", without it."""
    start = f"{prefix}."
    return {name[len(start) :]: tensor for name, tensor in tensors.items() if name.startswith(start)}
