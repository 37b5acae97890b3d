"""Choices that weigh what compiling costs and saves: which runs are compiled, and which members of a population go on
without those that have ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from rltrain.config.algorithms import EPISODE_STEPS, card_of
from rltrain.config.schema import DeviceConfig, RunConfig
from rltrain.errors import RequestError
from rltrain.machine import all_cores


@dataclass(frozen=True)
class _Cost:
    """Seconds that compiling takes and saves: rough figures of small networks, measured on one core."""

    compiling: float  # the first program
    each_further: float
    loading: float
    saved_alone: float  # per gradient step of a single run
    saved_together: float  # per gradient step of a population, and for each of its members
    saved_per_member: float
    saved_per_vector_step: float  # where the environments' twin is stepped in torch
    saved_per_pass: float  # of a gradient through one step of an episode

    def saved(self, members: int) -> float:
        return self.saved_alone if members == 1 else self.saved_together + self.saved_per_member * members


_RECORDED = _Cost(18.0, 10.0, 2.0, 0.3e-3, 0.0, 0.12e-3, 0.3e-3, 0.5e-6)  # beyond what recordings save
_CAPTURED = _Cost(20.0, 10.0, 6.0, 0.09e-3, 0.09e-3, 0.7e-6, 0.1e-3, 0.0)  # beyond what CUDA graphs save
# What an uncompiled run takes on the CPU, per gradient step, for each member, per vector step, and per pass of a
# gradient through one step of an episode; gradient steps of DQN on CartPole-v1.
_UPDATE, _MEMBER_UPDATE, _VECTOR_STEP, _PASS = 0.45e-3, 0.3e-3, 0.2e-3, 1e-6
# Multiply-adds of one pass forward of that network, 4-64-64-2, for its batch; the share of a gradient step that grows
# with them, measured from 4-16-2 to convolutions for Atari: right within a factor of three.
_UPDATE_WORK, _SHARE_OF_WORK = 4480 * 128, 0.3
# The share of the time of an uncompiled step that a compiled one takes at least.
_LEAST = 0.4
# How much sooner the last of a population must be done to be trained without those that have ended.
_GAIN = 1.5
# A niced process beside the run takes longer than compiling alone.
_BESIDE = 1.5


@dataclass(frozen=True)
class CompileChoice:
    """Whether updates are compiled, and from which environment step of a member on.

    Until then the run learns uncompiled and another process compiles. The step is fixed beforehand, so that two runs
    are the same.
    """

    compile: bool
    from_step: int = 0


def choose_compile(
    config: RunConfig, multiply_adds: Callable[[], int], members: int = 1, cuda_graphs: bool = False, done: int = 0
) -> CompileChoice:
    """The choice for `members` runs that train together.

    `device.compile=true` compiles from the first update on. `auto` compiles if the work ahead earns that back: on a
    CPU with a core to spare, beside the run. From whole episodes it does so where environments are stepped on the
    device: that is what compiling speeds up most.

    Args:
        multiply_adds: counts those of one pass forward of the networks that learn, for one observation; asked only
            where a run is long enough.
        done: the environment steps that each has made.
    """
    if config.device.compile != "auto":
        return CompileChoice(config.device.compile)
    card, on_device = card_of(config.algo), config.env.vectorization == "compiled"
    starts, steps = max(done, card.learning_starts(config.algo)), config.total_steps
    if not card.updates_per_step(config.algo, config.num_envs) and not (on_device and card.passes(config.algo)):
        return CompileChoice(False)
    if config.total_episodes is not None:
        steps = min(steps, config.total_episodes * EPISODE_STEPS)
    cost = _CAPTURED if cuda_graphs else _RECORDED
    saved = _saved_per_step(config, members, cost)
    compiling = cost.compiling + cost.each_further * on_device
    earned = compiling + cost.loading
    if (steps - starts) * saved <= earned:
        return CompileChoice(False)
    if cuda_graphs or all_cores() == 1:
        return CompileChoice(True)
    ready = starts + math.ceil(_BESIDE * compiling / _seconds_per_step(config, multiply_adds, members))
    return CompileChoice((steps - ready) * saved > earned, ready)


def choose_leaving(
    config: RunConfig, multiply_adds: Callable[[], int], members: int, compiled_in: float, left: Sequence[int]
) -> bool | None:
    """Whether the last of `members` runs that train together on a CPU go on in a program for them alone (True), or one
    after the other (False); None: nothing is gained. An update of all costs as much for those that have ended.

    Where nothing is gained, fewer steps that are left gain nothing.

    Args:
        multiply_adds: as for `choose_compile`.
        compiled_in: environment steps of each until updates of all are, at the soonest 0.
        left: environment steps that each of the last ones has to go, at most.
    """

    def per_step(count: int, compiled: bool) -> float:
        uncompiled = _seconds_per_step(config, multiply_adds, count)
        saved = compiled * _saved_per_step(config, count, _RECORDED)
        return max(uncompiled - saved, _LEAST * uncompiled)

    def seconds(count: int, steps: int) -> float:
        """Of so many that begin another program together."""
        choice = choose_compile(config, multiply_adds, count, done=config.total_steps - steps)
        beginning = _RECORDED.loading + choice.compile * _RECORDED.compiling
        return beginning + steps * per_step(count, choice.compile)

    together, alone = seconds(len(left), max(left)), sum(seconds(1, steps) for steps in left)
    uncompiled = min(max(left), compiled_in)
    stay = uncompiled * per_step(members, False) + (max(left) - uncompiled) * per_step(members, True)
    if _GAIN * min(together, alone) >= stay:
        return None
    return together < alone


def _seconds_per_step(config: RunConfig, multiply_adds: Callable[[], int], members: int) -> float:
    """Of an uncompiled run, or of a population, on a CPU, for an environment step of each."""
    card = card_of(config.algo)
    update = _UPDATE if members == 1 else _MEMBER_UPDATE * members
    update *= _relative_update(multiply_adds() * card.samples_per_update(config.algo, config.num_envs))
    passes = members * card.passes(config.algo) * (config.env.vectorization == "compiled")
    updates_per_step = card.updates_per_step(config.algo, config.num_envs)
    return updates_per_step * update + passes * _PASS + _VECTOR_STEP / config.num_envs


def _saved_per_step(config: RunConfig, members: int, cost: _Cost) -> float:
    """Of that, what compiling saves."""
    card, on_device = card_of(config.algo), config.env.vectorization == "compiled"
    saved = card.updates_per_step(config.algo, config.num_envs) * cost.saved(members)
    saved += on_device * members * card.passes(config.algo) * cost.saved_per_pass
    return saved + on_device * cost.saved_per_vector_step / config.num_envs


def _relative_update(work: int) -> float:
    """How much longer a gradient step of `work` multiply-adds takes than one of `_UPDATE_WORK`."""
    return 1.0 + _SHARE_OF_WORK * (work / _UPDATE_WORK - 1.0)


def choose_cuda_graphs(config: DeviceConfig, device: torch.device) -> bool:
    """Whether what runs on `device` is captured in CUDA graphs; `auto` does wherever there can be some.

    Raises:
        RequestError: they are asked for, and the device has none.
    """
    on_gpu = device.type == "cuda"
    if config.cuda_graphs is True and not on_gpu:
        raise RequestError(f"device.cuda_graphs=true: needs a CUDA device, and this run is on the {device}")
    return on_gpu if config.cuda_graphs == "auto" else config.cuda_graphs
