"""The interface of batched environments, and how the twin of a Gymnasium id is found."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
from gymnasium import Space
from gymnasium.envs.registration import EnvSpec

from rltrain.config.schema import EnvConfig
from rltrain.envs.flatten import name_of
from rltrain.envs.spaces import ObservationWriter, observation_spec
from rltrain.envs.wrappers import WRAPPERS
from rltrain.envs.wrappers.computed import computes_in_torch
from rltrain.errors import RequestError
from rltrain.types import FLOATS, ObservationSpec

Array = Any
"""A NumPy array or a torch tensor; lanes are its last axis."""


class BatchedEnvironment(Protocol):
    """The twin of a Gymnasium environment: the same arithmetic, for all lanes at once.

    Lanes are always the LAST axis, so that a step reads as if it were that of one environment. `xp` is the module whose
    functions compute: numpy, or torch for tensors of any device (under torch.compile too: there is no control flow on
    values). Everything that is made takes its device and dtype from what is given: in torch an integer tensor times
    0.1 would be float32. A function writes into none of its arguments, and what it returns is new. Of `env.kwargs` a
    twin supports those that its constructor takes.
    """

    def start_state(self, rng: np.random.Generator) -> np.ndarray:
        """[*state]: what Gymnasium's `reset(seed=...)` draws with `rng` as its `np_random`, in its own dtype."""

    def step(self, xp: Any, state: Array, action: Array) -> tuple[Array, Array, Array]:
        """state [*state, L] and action, as the environment takes it ([L] integers or [*action, L] floats) ->
        (next state, reward [L], terminated [L] bool). A time limit is not the environment's."""

    def observe(self, xp: Any, state: Array) -> Array:
        """state [*state, L] -> obs [*obs, L]."""


def _check_wrappers(config: EnvConfig, observation: ObservationSpec) -> None:
    """Whether the agent can compute what is between the twin, whose numbers it takes as float32, and itself."""
    others = [wrapper.name for wrapper in config.wrappers if not computes_in_torch(WRAPPERS[wrapper.name])]
    if observation.dtype == "float64":
        others = [wrapper.name for wrapper in config.wrappers]
    if others:
        raise RequestError(
            f"env.vectorization=compiled: the agent steps the twin itself, without env.wrappers=[{', '.join(others)}]"
            " (a tuned file may set some); use batched, or leave them out"
        )


class UniformStart:
    """A twin whose first state is a function of uniform numbers, so that many episodes begin at once."""

    start_draws: ClassVar[int]

    def from_uniform(self, uniform: np.ndarray) -> np.ndarray:
        """[start_draws, ...] from [0, 1), as `rng.random()` gives them one after the other -> [*state, ...], in the
        dtype of `start_state`."""
        raise NotImplementedError

    def start_state(self, rng: np.random.Generator) -> np.ndarray:
        return self.from_uniform(rng.random(self.start_draws))


class SeededStart:
    """A twin whose environment draws from a generator of its own, not from `np_random`."""

    def from_seeds(self, seeds: np.ndarray) -> np.ndarray:
        """The first states [*state, K] of the episodes with these seeds [K]."""
        raise NotImplementedError

    def start_state(self, rng: np.random.Generator) -> np.ndarray:
        sequence: Any = rng.bit_generator.seed_seq
        return self.from_seeds(np.array([sequence.entropy]))[..., 0]


def between(low: float, high: float, uniform: np.ndarray) -> np.ndarray:
    """Scales `rng.random()` as `rng.uniform(low, high)` does."""
    return low + (high - low) * uniform


def make_twin(
    spec: EnvSpec, config: EnvConfig, twins: Mapping[str, type], observation_space: Space[Any]
) -> BatchedEnvironment:
    """The twin of a registered environment.

    Raises:
        RequestError: it has none, or none that supports these `env.kwargs`, or shows what a twin cannot.
    """
    kwargs, vectorization = config.kwargs, config.vectorization
    if spec.id not in twins:
        raise RequestError(
            f"env.vectorization={vectorization}: {spec.id} has no batched twin; use sync or async;"
            f" those that have one: {', '.join(sorted(twins))}"
        )
    twin = twins[spec.id]
    taken = inspect.signature(twin).parameters
    for key in kwargs:
        if key not in taken:
            raise RequestError(
                f"env.kwargs.{key}: the batched twin of {spec.id} takes {', '.join(taken) or 'no kwargs'};"
                " use env.vectorization=sync or async"
            )
    if ObservationWriter(observation_space).flattens:
        raise RequestError(
            f"env.vectorization={vectorization}: a twin shows Box or Discrete, and the observation space of {spec.id}"
            f" is {name_of(observation_space)}; use sync or async"
        )
    if vectorization == "compiled" and observation_spec(observation_space).dtype not in (*FLOATS, "bool"):
        raise RequestError(
            f"env.vectorization=compiled: takes observations of floats or bools, and {spec.id} shows"
            f" {name_of(observation_space)}; use batched"
        )
    if vectorization == "compiled":
        _check_wrappers(config, observation_spec(observation_space))
    made: BatchedEnvironment = twin(**{**spec.kwargs, **kwargs})
    return made
