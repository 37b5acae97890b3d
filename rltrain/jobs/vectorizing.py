"""Which way of stepping environments a run takes: what `env.vectorization=auto` means for it."""

from __future__ import annotations

from dataclasses import replace
from typing import cast, get_args

import numpy as np
import torch

from rltrain.agents import AGENTS
from rltrain.config.algorithms import card_of
from rltrain.config.contradictions import check_contradictions
from rltrain.config.schema import RunConfig
from rltrain.engine.stepping import check_in_torch, make_to_env
from rltrain.envs.agent_stepped import AgentSteppedEnv
from rltrain.envs.choice import (
    ON_DEVICE_COMPILED_FROM,
    ON_DEVICE_FROM,
    Choice,
    Way,
    choose_exact,
    lacks_twin,
    pays_from,
    random_actions,
    trial_envs,
)
from rltrain.envs.probe import probe
from rltrain.errors import RequestError, RunFailed


def choose_vectorization(
    config: RunConfig, members: int, device: torch.device, compiled: bool, before: object = None
) -> Choice:
    """How the environments of a run, or of all members of a population, are stepped.

    `auto` takes the fastest way that gives the numbers of `sync`: bit for bit, or, where updates round in their own way
    in any case (compiled, of a population, on a GPU), up to rounding too: then twins are stepped on the device.

    Args:
        compiled: whether updates are, or are captured in CUDA graphs.
        before: what a checkpoint's manifest says that `auto` chose before: it is chosen again.

    Raises:
        RequestError: a foreign manifest, whose way is none for this config.
    """
    if config.env.vectorization != "auto":
        return Choice(config.env.vectorization)
    if before in get_args(Way):
        check_contradictions(stepped(config, cast(Way, before)))
        return Choice(cast(Way, before), "as before")
    rounding = _rounds_anyway(members, device, compiled)
    quick = compiled or device.type != "cpu"
    least = ON_DEVICE_COMPILED_FROM if quick else pays_from(config.env, ON_DEVICE_FROM)
    # Members that learn from whole episodes step most of the time, and uncompiled NumPy steps them faster than torch.
    pays = quick or not card_of(config.algo).passes(config.algo)
    if rounding is not None and pays and members * config.num_envs >= least and _runs_on_device(config):
        return Choice("compiled", f"on the {device.type}; equal to sync up to rounding, as {rounding} is")
    return choose_exact(config.env, members * config.num_envs)


def stepped(config: RunConfig, way: Way) -> RunConfig:
    """`config` with its way of stepping environments decided."""
    return replace(config, env=replace(config.env, vectorization=way))


def _rounds_anyway(members: int, device: torch.device, compiled: bool) -> str | None:
    """Why a run equals the plainest one up to rounding only; None where it is equal bit for bit."""
    if device.type != "cpu":
        return "all on a GPU"
    return "a population" if members > 1 else "a compiled update" if compiled else None


def _runs_on_device(config: RunConfig) -> bool:
    """Whether `env.vectorization=compiled` would not be refused, and its twin computes with torch what it does with
    NumPy, up to rounding."""
    # An agent of its own is not run by the engine. An environment without a twin is not even made.
    if config.algo.name in AGENTS or lacks_twin(config.env):
        return False
    on_device = stepped(config, "compiled")
    try:
        check_contradictions(on_device)
        probe(on_device.env)
        envs = cast(AgentSteppedEnv, trial_envs(config.env, "compiled"))
        envs.reset()
        state, twin = envs.now().state, envs.twin
        to_env = make_to_env(envs.first_action, envs.action_scale, torch.device("cpu"))
        action = to_env(torch.from_numpy(random_actions(envs.action_spec, envs.num_envs, np.random.default_rng(0))))
        check_in_torch(twin, torch.from_numpy(state), action)
    except (RequestError, RunFailed):
        return False
    with_numpy = twin.step(np, state, action.numpy())
    with_torch = twin.step(torch, torch.from_numpy(state), action)
    return all(np.allclose(a, b.numpy(), rtol=1e-6) for a, b in zip(with_numpy, with_torch, strict=True))
