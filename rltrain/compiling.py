"""Running an update as one compiled function, where that pays."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from rltrain import ahead, recorded
from rltrain.config.schema import DeviceConfig, QLearningConfig, QNetworkConfig, RunConfig
from rltrain.errors import RequestError
from rltrain.graphs import Graph
from rltrain.interrupts import children_shielded
from rltrain.output import warn

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_R = TypeVar("_R")

# An episode's length is not known beforehand; where episodes end the run it is taken for this.
_EPISODE_STEPS = 100


@dataclass(frozen=True)
class _Cost:
    """What compiling takes without and with the compiler's cache, and what it saves: rough guesses for small networks,
    from a few runs, in seconds."""

    cold: float
    warm: float
    saved_alone: float  # per gradient step of a single run
    saved_together: float  # per gradient step of a population, and for each of its members
    saved_per_member: float
    saved_per_vector_step: float  # where the environments' twin is stepped in torch

    def saved(self, members: int) -> float:
        return self.saved_alone if members == 1 else self.saved_together + self.saved_per_member * members


_EAGER = _Cost(20.0, 1.0, 0.3e-3, 0.0, 0.12e-3, 0.3e-3)  # beyond what recording saves anyway
_CAPTURED = _Cost(20.0, 6.0, 0.09e-3, 0.09e-3, 0.7e-6, 0.1e-3)  # beyond what CUDA graphs save anyway


def choose_compile(config: RunConfig, members: int = 1, cuda_graphs: bool = False) -> bool:
    """Whether to compile the update of `members` runs; `auto` does where the gradient steps ahead earn the time back.

    REINFORCE makes few and large updates in several shapes: there `auto` is false.
    """
    if config.device.compile != "auto":
        return config.device.compile
    algo = config.algo
    if not isinstance(algo, QNetworkConfig):
        return False
    steps = config.total_steps
    if config.total_episodes is not None:
        steps = min(steps, config.total_episodes * _EPISODE_STEPS)
    gradient_steps = (steps - algo.learning_starts) // algo.train_period * algo.gradient_steps
    cost = _CAPTURED if cuda_graphs else _EAGER
    saved = gradient_steps * cost.saved(members)
    if config.env.vectorization == "compiled":
        saved += steps / config.num_envs * cost.saved_per_vector_step
    return saved > (cost.warm if _marker(config, members, cuda_graphs).exists() else cost.cold)


def choose_cuda_graphs(config: DeviceConfig, device: torch.device) -> bool:
    """Whether what runs on `device` is captured in CUDA graphs; `auto` does wherever there can be some.

    Raises:
        RequestError: they are asked for, and the device has none.
    """
    on_gpu = device.type == "cuda"
    if config.cuda_graphs is True and not on_gpu:
        raise RequestError(f"device.cuda_graphs=true: needs a CUDA device, and this run is on the {device}")
    return on_gpu if config.cuda_graphs == "auto" else config.cuda_graphs


def note_compiled(config: RunConfig, members: int = 1, cuda_graphs: bool = False) -> None:
    """Remembers, beside the compiler's cache, that it holds this program."""
    marker = _marker(config, members, cuda_graphs)
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError:
        _log.info("%s cannot be written", marker)


def _marker(config: RunConfig, members: int, cuda_graphs: bool) -> Path:
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    # The numbers that a program takes as tensors do not make it another program.
    algo = replace(config.algo, gamma=1.0)
    if not isinstance(algo, QLearningConfig):
        algo = replace(algo, optimizer=replace(algo.optimizer, lr=1.0))
    program = repr((torch.__version__, algo, config.network, config.env, config.num_envs, members, cuda_graphs))
    return Path(cache_dir()) / "rltrain" / hashlib.sha256(program.encode()).hexdigest()[:32]


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


def bound(
    procedure: Callable[..., None],
    fallback: Callable[..., None],
    args: tuple[Any, ...],
    *,
    compile: bool,
    cuda_graphs: bool,
    done: Callable[[], None] = lambda: None,
) -> Callable[[], None]:
    """A call of `procedure(*args)`, which returns nothing and writes into `args`, always the same tensors.

    Args:
        procedure: what is compiled, at the first call, where `compile` asks for it.
        fallback: the same as it runs where nothing is compiled; on the CPU it is recorded (rltrain/recorded.py).
        cuda_graphs: whether what runs is captured, and then launched as one.
        done: called once, when compiling has worked.
    """
    as_it_is = partial(fallback, *args) if cuda_graphs else uncompiled(fallback, args)
    chosen: list[Callable[[], None]] = [] if compile else [as_it_is]

    def call() -> None:
        if chosen:
            chosen[0]()
        else:
            chosen.append(_tried(lambda: _make_bound(procedure, args), as_it_is, (), {}, done)[0])

    return Graph(call, _device_of(args)) if cuda_graphs else call


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
    done: Callable[[], None] = lambda: None,
) -> tuple[Callable[..., _R], _R]:
    """What `make` makes and what its first call gives, which may be when it is compiled; or of `fallback` the same."""
    try:
        # A Ctrl-C that also reaches the C++ compiler would pass for a failure of compiling.
        with children_shielded("the update is compiled"):
            made = make()
            result = made(*args, **kwargs)
        done()
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
    """What compiles `update` when it is first called, with `args`."""
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
