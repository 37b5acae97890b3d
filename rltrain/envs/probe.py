"""Look at an environment before anything else is built. Torch-free."""

from __future__ import annotations

from typing import Any

from gymnasium.spaces import Space

from rltrain.config.schema import EnvConfig
from rltrain.envs.batched import BATCHED_ENVS
from rltrain.envs.batched.environment import make_twin
from rltrain.envs.make import close, find_environment
from rltrain.envs.process_state import process_kept
from rltrain.envs.spaces import action_spec, observation_spec
from rltrain.envs.wrappers import WrapperContext, make_wrappers
from rltrain.errors import RequestError
from rltrain.types import ActionSpec, ObservationSpec


def probe(config: EnvConfig) -> tuple[ObservationSpec, ActionSpec]:
    """Builds the environment once and closes it again; what an agent sees of it, after `env.wrappers`.

    Raises:
        RequestError: no such environment, kwargs that it does not take, a package it needs is missing, a space that is
            not supported, no batched twin, a wrapper that does not fit.
    """
    with process_kept():
        return _probe(config)


def own_observations(config: EnvConfig) -> Space[Any]:
    """The observation space of the environment itself, before it is made one array and `env.wrappers` see it.

    Raises:
        RequestError: as `probe`.
    """
    with process_kept():
        env = find_environment(config)()
        try:
            space: Space[Any] = env.observation_space
            return space
        finally:
            close(env, config.id)


def _probe(config: EnvConfig) -> tuple[ObservationSpec, ActionSpec]:
    make = find_environment(config)
    env = make()
    try:
        observation, action = observation_spec(env.observation_space), action_spec(env.action_space)
        context = WrapperContext(config.id, 1, 1, make.time_limit, frozen=False)
        observation = make_wrappers(config.wrappers, observation, context).spec
    except RequestError as error:
        raise RequestError(f"env={config.id}: {error}") from None
    finally:
        close(env, config.id)
    if config.vectorization in ("batched", "compiled"):
        make_twin(make.spec, config, BATCHED_ENVS, env.observation_space)
    return observation, action
