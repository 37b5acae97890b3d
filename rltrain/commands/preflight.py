"""Checks of a request that need the environment or the device, made before there is a run folder."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rltrain.config.algorithms import card_of, that_take
from rltrain.config.schema import CNNConfig, EnvConfig, RunConfig
from rltrain.errors import RequestError
from rltrain.machine import available_cores
from rltrain.terminal.text import shortened

if TYPE_CHECKING:
    from rltrain.types import ActionSpec, ObservationSpec


def preflight(config: RunConfig) -> None:
    """Refuses what the environment or the machine, which are asked here, cannot do.

    Raises:
        RequestError: in words for the user.
    """
    if config.init_from is not None:
        _check_place(config.init_from)
    available_cores()  # refuses a share of the cores that is no number
    from rltrain.envs.probe import probe

    try:
        observation, actions = probe(config.env)
    except RequestError as error:
        from rltrain.config.env_refusal import explain_environment

        raise explain_environment(config.env, error) from error
    _check_spaces(config, observation, actions)
    if isinstance(config.network, CNNConfig):
        from rltrain.maths.images import convolutions

        convolutions(config.network, observation)
    if config.device.name == "cuda":
        from rltrain.compute.device import resolve_device

        resolve_device(config.device)
    for name in config.loggers:
        from rltrain.loggers.further import find_logger

        find_logger(name)
    if config.init_from is not None:
        from rltrain.jobs.initial_network import check_initial_network

        check_initial_network(config, observation, actions)


def _check_place(init_from: str) -> None:
    from rltrain.commands.find import find_run, source_in

    try:
        source_in(find_run(init_from))
    except RequestError as error:  # which begins with the folder
        raise RequestError(f"init_from={error}") from error


def _check_spaces(config: RunConfig, observation: ObservationSpec, actions: ActionSpec) -> None:
    name, card = config.algo.name, card_of(config.algo)
    others = f"algorithms that can: {', '.join(that_take(observation, actions))}"
    if card.discrete_observations and observation.kind != "discrete":
        whose, made = f"those of {config.env.id}", _wrapper_of_arrays(config.env)
        arrays = f"arrays of {list(observation.shape)}"
        what = f"{made} makes {whose} {arrays}" if made else f"{whose} are {_parts(config.env) or arrays}"
        raise RequestError(f"algo={name}: needs Discrete observations, and {what}\n{others}")
    if card.discrete_actions and actions.kind != "discrete":
        box = f"has continuous ones (Box{list(actions.shape)})"
        what = box if actions.kind == "box" else f"takes {len(actions.sizes)} numbers at once (shape {actions.shape})"
        raise RequestError(f"algo={name}: needs discrete actions, and {config.env.id} {what}\n{others}")


def _parts(env: EnvConfig) -> str:
    """The environment's own observation space where an array is made of its parts; or nothing."""
    from rltrain.envs.probe import own_observations

    space = own_observations(env)
    return "" if type(space).__name__ == "Box" else shortened(" ".join(str(space).split()), 200)


def _wrapper_of_arrays(env: EnvConfig) -> str | None:
    """The wrapper after which Discrete observations are none any more; None where they never were."""
    from rltrain.envs.probe import probe

    kinds = [probe(replace(env, wrappers=env.wrappers[:count]))[0].kind for count in range(len(env.wrappers) + 1)]
    last = max((count for count, kind in enumerate(kinds) if kind == "discrete"), default=None)
    return None if last is None else f"env.wrappers[{last}]={env.wrappers[last].name}"
