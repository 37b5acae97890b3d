"""Running an update as one compiled function, where that pays."""

from __future__ import annotations

import logging
import math
import os
import shutil
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from rltrain.compute import ahead, recorded
from rltrain.compute.graphs import Graph
from rltrain.config.algorithms import EPISODE_STEPS, card_of
from rltrain.config.schema import DeviceConfig, RunConfig
from rltrain.errors import RequestError
from rltrain.terminal.interrupts import children_shielded
from rltrain.terminal.output import warn

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_R = TypeVar("_R")


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
    config: RunConfig, multiply_adds: Callable[[], int], members: int = 1, cuda_graphs: bool = False
) -> CompileChoice:
    """The choice for `members` runs that train together.

    `device.compile=true` compiles from the first update on. `auto` compiles if the work ahead earns that back: on a
    CPU with a core to spare, beside the run. From whole episodes it does so where environments are stepped on the
    device: that is what compiling speeds up most.

    Args:
        multiply_adds: counts those of one pass forward of the networks that learn, for one observation; asked only
            where a run is long enough.
    """
    if config.device.compile != "auto":
        return CompileChoice(config.device.compile)
    card, on_device = card_of(config.algo), config.env.vectorization == "compiled"
    starts, updates_per_step = card.learning_starts(config.algo), card.updates_per_step(config.algo, config.num_envs)
    passes = members * card.passes(config.algo) if on_device else 0
    if not updates_per_step and not passes:
        return CompileChoice(False)
    steps = config.total_steps
    if config.total_episodes is not None:
        steps = min(steps, config.total_episodes * EPISODE_STEPS)
    cost = _CAPTURED if cuda_graphs else _RECORDED
    saved = updates_per_step * cost.saved(members) + passes * cost.saved_per_pass
    saved += on_device * cost.saved_per_vector_step / config.num_envs
    compiling = cost.compiling + cost.each_further * on_device
    earned = compiling + cost.loading
    if (steps - starts) * saved <= earned:
        return CompileChoice(False)
    if cuda_graphs or len(os.sched_getaffinity(0)) == 1:
        return CompileChoice(True)
    update = _UPDATE if members == 1 else _MEMBER_UPDATE * members
    update *= _relative_update(multiply_adds() * card.samples_per_update(config.algo, config.num_envs))
    per_step = updates_per_step * update + passes * _PASS + _VECTOR_STEP / config.num_envs
    ready = starts + math.ceil(_BESIDE * compiling / per_step)
    return CompileChoice((steps - ready) * saved > earned, ready)


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


def has_compiler() -> bool:
    """Whether there is a C++ compiler for the CPU's code."""
    named = os.environ.get("CXX")
    return any(shutil.which(name) for name in ("c++", "g++", "clang++", *([named] if named else [])))


def compiled(
    update: Callable[_P, _R],
    fallback: Callable[_P, _R],
    *,
    fixed_shapes: bool = False,
) -> Callable[_P, _R]:
    """`update` compiled as one graph at its first call; `fallback`, with one line in the log, where that fails.

    Args:
        fixed_shapes: every call has the first one's shapes, types and devices. Then it is compiled ahead on the CPU;
            elsewhere nothing is checked per call, which a small update would feel.
    """
    chosen: list[Callable[..., _R]] = []

    def call(*args: Any, **kwargs: Any) -> _R:
        if chosen:
            return chosen[0](*args, **kwargs)
        made, result = _tried(lambda: _make(update, fixed_shapes, args), fallback, args, kwargs)
        chosen.append(made)
        return result

    return call


class Bound:
    """A call of `procedure(*args)`, which returns nothing and writes into `args`: always the same tensors.

    Args:
        procedure: what `compile` compiles.
        fallback: the same as it runs where nothing is compiled; on the CPU it is recorded (recorded.py).
        cuda_graphs: whether what runs is captured, and then launched as one.
    """

    def __init__(
        self,
        procedure: Callable[..., None],
        fallback: Callable[..., None],
        args: tuple[Any, ...],
        *,
        cuda_graphs: bool,
    ) -> None:
        self._procedure, self._args = procedure, args
        self._uncompiled = partial(fallback, *args) if cuda_graphs else uncompiled(fallback, args)
        self._run: Callable[[], None] = self._uncompiled
        self._graph = Graph(lambda: self._run(), _device_of(args)) if cuda_graphs else None

    def __call__(self) -> None:
        if self._graph is None:
            self._run()
        else:
            self._graph()

    def compile(self) -> None:
        """Compiles at the next call. With CUDA graphs before the first one, which is captured."""
        self._run = self._compile_and_call

    def make_program(self) -> None:
        """Compiles now, for a later process that finds it on disk, and calls nothing."""
        _make_bound(self._procedure, self._args)

    def _compile_and_call(self) -> None:
        self._run, _ = _tried(lambda: _make_bound(self._procedure, self._args), self._uncompiled, (), {})


def uncompiled(procedure: Callable[..., None], args: tuple[Any, ...]) -> Callable[[], None]:
    """A call of `procedure(*args)` without a compiler, at its fastest."""
    if recorded.available() and _device_of(args).type == "cpu":
        return recorded.Recorded(procedure, args)
    return partial(procedure, *args)


def _tried(
    make: Callable[[], Callable[..., _R]],
    fallback: Callable[..., _R],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> tuple[Callable[..., _R], _R]:
    """Builds with `make` and calls once, since the first call may compile; uses `fallback` if either fails."""
    try:
        # A Ctrl-C that also reaches the C++ compiler would pass for a failure of compiling.
        with children_shielded("the update is compiled"):
            made = make()
            result = made(*args, **kwargs)
    except Exception as error:
        warn(_log, f"compiling failed, the update runs uncompiled: {_reason(error)}")
        return fallback, fallback(*args, **kwargs)
    return made, result


def _reason(error: Exception) -> str:
    """In one line. A first line that ends in a colon says only who complains."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return said[:200] or type(error).__name__


def _make_bound(procedure: Callable[..., None], args: tuple[Any, ...]) -> Callable[[], None]:
    if ahead.available() and _device_of(args).type == "cpu":
        return ahead.Program(procedure).bound(*args)
    return partial(_make(procedure, True, args), *args)


def _make(update: Callable[..., _R], fixed_shapes: bool, args: tuple[Any, ...]) -> Callable[..., _R]:
    """Compiles `update` for `args`; some ways do so only when it is first called."""
    if fixed_shapes and ahead.available() and _device_of(args).type == "cpu":
        return ahead.Program(update)
    # Compiled code of earlier jobs in this process counts towards the limit at which recompiling is given up.
    torch._dynamo.reset()
    unchecked = getattr(torch.compiler, "skip_all_guards_unsafe", None)  # older versions always check
    options = {"guard_filter_fn": unchecked} if fixed_shapes and unchecked else None
    return torch.compile(_own_code(update), fullgraph=True, dynamic=False, options=options)


def _device_of(tree: Any) -> torch.device:
    """The device of the first tensor in a tree of tuples and dicts."""
    while not isinstance(tree, Tensor):
        tree = next(iter(tree.values() if isinstance(tree, dict) else tree))
    device: torch.device = tree.device
    return device


def _own_code(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """A function that calls `function` and shares its code with no other: compiled programs are kept by code, and
    without checks one agent would be given another's."""

    def run(*args: Any, **kwargs: Any) -> _R:
        return function(*args, **kwargs)

    own: Callable[_P, _R] = types.FunctionType(
        run.__code__.replace(), run.__globals__, run.__name__, None, run.__closure__
    )
    return own
