"""Running an update as one compiled function, where that pays."""

from __future__ import annotations

import logging
import os
import shutil
import types
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rltrain.compute import ahead, recorded
from rltrain.compute.graphs import Graph
from rltrain.terminal.interrupts import children_shielded
from rltrain.terminal.output import warn

_log = logging.getLogger(__name__)


def has_compiler() -> bool:
    """Whether there is a C++ compiler for the CPU's code."""
    named = os.environ.get("CXX")
    return any(shutil.which(name) for name in ("c++", "g++", "clang++", *([named] if named else [])))


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
        try:
            # A Ctrl-C that also reaches the C++ compiler would pass for a failure of compiling.
            with children_shielded("the update is compiled"):
                self._run = _make_bound(self._procedure, self._args)
                self._run()  # the first call may compile
        except Exception as error:
            warn(_log, f"compiling failed, the update runs uncompiled: {_reason(error)}")
            self._run = self._uncompiled
            self._run()


def uncompiled(procedure: Callable[..., None], args: tuple[Any, ...]) -> Callable[[], None]:
    """A call of `procedure(*args)` without a compiler, at its fastest."""
    if recorded.available() and _device_of(args).type == "cpu":
        return recorded.Recorded(procedure, args)
    return partial(procedure, *args)


def _reason(error: Exception) -> str:
    """In one line. A first line that ends in a colon says only who complains."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    return said[:200] or type(error).__name__


def _make_bound(procedure: Callable[..., None], args: tuple[Any, ...]) -> Callable[[], None]:
    """Compiles `procedure` for `args`, one graph; some ways do so only when it is first called."""
    if ahead.available() and _device_of(args).type == "cpu":
        return ahead.program(procedure, args)
    # Compiled code of earlier jobs in this process counts towards the limit at which recompiling is given up.
    torch._dynamo.reset()
    unchecked = getattr(torch.compiler, "skip_all_guards_unsafe", None)  # older versions always check
    options = {"guard_filter_fn": unchecked} if unchecked else None
    return partial(torch.compile(_own_code(procedure), fullgraph=True, dynamic=False, options=options), *args)


def _device_of(tree: Any) -> torch.device:
    """The device of the first tensor in a tree of tuples and dicts."""
    while not isinstance(tree, Tensor):
        tree = next(iter(tree.values() if isinstance(tree, dict) else tree))
    device: torch.device = tree.device
    return device


def _own_code(function: Callable[..., None]) -> Callable[..., None]:
    """A function that calls `function` and shares its code with no other: compiled programs are kept by code, and
    without checks one agent would be given another's."""

    def run(*args: Any) -> None:
        function(*args)

    own: Callable[..., None] = types.FunctionType(
        run.__code__.replace(), run.__globals__, run.__name__, None, run.__closure__
    )
    return own
