"""`init_from`: a run that starts from another run's network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from rltrain.agents import Agent, AgentContext, make_agent
from rltrain.config.algorithms import card_of
from rltrain.config.plain import at, leaves, show, to_plain
from rltrain.config.schema import RunConfig
from rltrain.config.wrappers import changes_observations
from rltrain.envs.vector import VectorEnv
from rltrain.envs.wrappers.stack import statistics_in
from rltrain.errors import CheckpointError, RequestError
from rltrain.policy.source import checkpoint_of
from rltrain.storage.checkpoint import read_checkpoint
from rltrain.terminal.shell import command_folder, quoted
from rltrain.types import ActionSpec, ObservationSpec

_SHAPING = ("network", "algo.value.hidden", "algo.atoms", "algo.cosines")
_SHAPELESS = ("activation", "output_scale", "init", "memory_format")  # keys of networks


def load_initial_network(agent: Agent, config: RunConfig, envs: VectorEnv | None, member: int = 0) -> None:
    """`init_from`: the weights of another run's newest checkpoint, or of the checkpoint that is named, and what else of
    it the algorithm's card says; and the running statistics through which its networks saw, and in whose units they
    value rewards, which `envs` goes on with.

    Raises:
        RequestError: there is none, or it does not fit, in what it sees or in what its outputs stand for.
    """
    assert config.init_from is not None
    path = command_folder() / config.init_from
    sections = card_of(config.algo).carried(config.algo)
    source = read_checkpoint(checkpoint_of(path), only=())
    if lacking := [name for name in sections if f"{name}.safetensors" not in source.manifest["files"]]:
        why = f"has no {lacking[0]}.safetensors, with which algo={config.algo.name} begins too; a run's newest has"
        raise RequestError(f"init_from={config.init_from}: {why}")
    source = read_checkpoint(source.folder, only=sections)
    theirs: Any = source.manifest.get("config")
    ours = to_plain(config)
    if (before := _wrappers(theirs, observations=True)) != (now := _wrappers(ours, observations=True)):
        raise RequestError(
            f"init_from={config.init_from}: was trained with env.wrappers=[{before}]; this run has [{now}]"
        )
    if (atoms := _atoms(theirs)) != (own := _atoms(ours)) and atoms and own:
        raise RequestError(f"init_from={config.init_from}: its atoms span {atoms}, and those of this run {own}")
    try:
        # A plug-in's agent that trains no populations need not know of members.
        tensors = {name: tensor for section in sections for name, tensor in source.tensors[section].items()}
        agent.load_network(tensors, *([member] if member else []))
    except (ValueError, KeyError) as error:
        algo = at(theirs, ["algo", "name"]) or config.algo.name
        other = f"is a network of algo={show(algo)}, from which {config.algo.name} cannot start"
        why = f"{error}{_otherwise_shaped(theirs, ours)}" if algo == config.algo.name else other
        raise RequestError(f"init_from={config.init_from}: {why}") from error
    if envs is not None:
        rewards = {key: array for key, array in envs.statistics().items() if ".normalize_reward" in key}
        try:
            envs.load_statistics({**_of(rewards, member), **statistics_in(source.state.get("envs", {}))}, member)
        except CheckpointError as error:
            raise RequestError(f"init_from={config.init_from}: {error}") from error


def _of(statistics: Mapping[str, np.ndarray], member: int) -> dict[str, np.ndarray]:
    return {key: array[member : member + 1] for key, array in statistics.items()}


def _wrappers(config: Any, observations: bool) -> str:
    """The wrappers of a plain config that change observations, or those that do not, as text to compare and to show."""
    listed = at(config, ["env", "wrappers"])
    wrappers = [
        wrapper
        for wrapper in (listed if isinstance(listed, list) else [])
        if isinstance(wrapper, Mapping) and changes_observations(str(wrapper.get("name"))) == observations
    ]
    return ", ".join("{" + ", ".join(f"{key}: {show(value)}" for key, value in w.items()) + "}" for w in wrappers)


def other_rewards(config: RunConfig) -> str:
    """That the network of `init_from` learned from rewards in other units than this run's, in which its values are
    then; or nothing."""
    assert config.init_from is not None
    source = read_checkpoint(checkpoint_of(command_folder() / config.init_from), only=())
    before, now = (_rewards(plain) for plain in (source.manifest.get("config"), to_plain(config)))
    return "" if before == now else f"; it learned from rewards with {before}, and this run has {now}"


def _rewards(config: Any) -> str:
    """The scaling and clipping of rewards in a plain config, as text to compare and to show."""
    clip = show(at(config, ["env", "reward_clip"]))
    return f"env.wrappers=[{_wrappers(config, observations=False)}] env.reward_clip={clip}"


def _atoms(config: Any) -> str:
    """The returns that the atoms of a plain config stand for, as text to compare and to show; empty: it has none."""
    algo = at(config, ["algo"])
    if not isinstance(algo, Mapping) or "atoms" not in algo:
        return ""
    return f"algo.v_min={show(algo.get('v_min'))} algo.v_max={show(algo.get('v_max'))}"


def _otherwise_shaped(theirs: Any, ours: Mapping[str, Any]) -> str:
    """The keys that shape the networks of one algorithm, where theirs have other values, as they are typed."""
    before, now = (
        leaves({key: value for key in _SHAPING if (value := at(config, key.split("."))) is not None})
        for config in (theirs, ours)
    )
    shaping = {key: value for key, value in before.items() if key.rpartition(".")[2] not in _SHAPELESS}
    typed = [
        quoted(f"{key.removesuffix('.name')}={show(value).replace(', ', ',')}")
        for key, value in shaping.items()
        if value != now.get(key) and (value or now.get(key))  # layer_norm=null is mostly layer_norm=false
    ]
    return f"; it was trained with {' '.join(typed)}" if typed else ""


def check_initial_network(config: RunConfig, observation: ObservationSpec, action: ActionSpec) -> None:
    """Whether `init_from` can be taken up, found out without the memory that training takes.

    Raises:
        RequestError: as `load_initial_network`.
    """
    assert config.init_from is not None
    smallest = replace(config, algo=card_of(config.algo).smallest(config.algo))
    context = AgentContext(smallest, observation, action, torch.device("cpu"))
    load_initial_network(make_agent(context), config, envs=None)
