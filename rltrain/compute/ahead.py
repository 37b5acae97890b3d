"""A procedure on tensors compiled ahead of time (AOTInductor) to a shared library, which is kept on disk.

`torch.compile` gives small updates the same kernels, but around them Python: for a 64-64 network half of a call's time.
Here a call is one call into the program, and one that is found on disk is loaded in a moment.
"""

from __future__ import annotations

import copy
import fcntl
import hashlib
import logging
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor
from torch.fx import GraphModule

_log = logging.getLogger(__name__)


def program(procedure: Callable[..., None], args: tuple[Any, ...]) -> Callable[[], None]:
    """A call of `procedure(*args)`, which returns nothing and writes into `args`, trees of tuples and dicts of tensors
    on the CPU: always the same tensors. Compiled here, or found as an earlier process compiled it.

    Raises:
        Exception: of any kind, from the compiler or from tracing.
    """
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.utils._pytree import tree_flatten, tree_unflatten

    leaves, form = tree_flatten(args)

    def flat(*tensors: Tensor) -> list[Tensor]:
        procedure(*tree_unflatten(tensors, form))
        return []

    traced = make_fx(flat, {torch.ops.aten.tanh.default: _tanh}, "fake", _allow_non_fake_inputs=True)
    graph = traced(*leaves)
    path = program_folder() / f"{_identity(graph, leaves)}.so"
    _find_or_compile(graph, leaves, path)
    run = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1).run

    def call() -> None:
        run(leaves)

    return call


def available() -> bool:
    """Whether this torch has the runner of AOTInductor, which is private."""
    return hasattr(getattr(torch._C, "_aoti", None), "AOTIModelContainerRunnerCpu")


def program_folder() -> Path:
    """Where programs are kept: in the compiler's own cache."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return Path(cache_dir()) / "rltrain"


# What torch does first, once on a machine, takes longer than a program: it precompiles headers, which pays with many
# programs, and compiles a test for each kind of vector instructions that the processor says it has. The first program
# takes 16 s of processor time without, 41 s with both, and is as fast. Line numbers for profilers are a fifth of what
# compiling the kernels takes.
_QUICK = {
    "aot_inductor.precompile_headers": False,
    "cpp.vec_isa_ok": True,
    "aot_inductor.enable_line_tables": False,
}


def _find_or_compile(graph: GraphModule, leaves: list[Tensor], path: Path) -> None:
    if path.exists():
        return
    with _turn(path):
        if not path.exists():
            _compile(graph, leaves, path)


_LONGEST_TURN = 120.0
"""Seconds: a process that compiles this long may be kept from it by all else that the machine does."""


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Waits while another process compiles the same program: side by side both would take twice as long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline, place = time.monotonic() + _LONGEST_TURN, path.with_suffix(".lock")
    with place.open("a") as lock:
        with suppress(OSError):  # a file system without locks: each compiles its own
            while not _locked(lock) and time.monotonic() < deadline:
                time.sleep(0.05)
        try:
            yield
        finally:
            place.unlink(missing_ok=True)


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _compile(graph: GraphModule, leaves: list[Tensor], path: Path) -> None:
    # Two processes may still compile the same program: each in its own folder, and the last one's stays.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / "program.so"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the inner workings of the compiler
            try:
                _compile_to(made, graph, leaves, _QUICK)
            except Exception as error:  # a compiler that does not know the processor, or a torch without these options
                _log.info("compiling once more, with torch's own options: %s", error)
                _compile_to(made, graph, leaves, {})
        os.replace(made, path)


def _compile_to(path: Path, graph: GraphModule, leaves: list[Tensor], options: dict[str, Any]) -> None:
    from torch._inductor import aot_compile

    aot_compile(copy.deepcopy(graph), tuple(leaves), options={"aot_inductor.output_path": str(path), **options})


# Numerator and denominator of x * P(x^2) / Q(x^2), lowest power first: Eigen's tanh of float32.
_TANH_NUMERATOR = (
    4.89352455891786e-03, 6.37261928875436e-04, 1.48572235717979e-05, 5.12229709037114e-08, -8.60467152213735e-11,
    2.00018790482477e-13, -2.76076847742355e-16,
)  # fmt: skip
_TANH_DENOMINATOR = (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)
_TANH_IS_ONE_FROM = 7.90531110763549805


def _tanh(x: Tensor) -> Any:
    """tanh as a quotient of polynomials, within 4e-7 relative to it: a third of the library function's time, which is
    right to the last bit and takes a sixth of a PPO run."""
    if x.dtype != torch.float32:
        return NotImplemented
    x = x.clamp(-_TANH_IS_ONE_FROM, _TANH_IS_ONE_FROM)
    return x * _polynomial(_TANH_NUMERATOR, x * x) / _polynomial(_TANH_DENOMINATOR, x * x)


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    value = coefficients[-1] * x + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        value = value * x + coefficient
    return value


def _identity(graph: GraphModule, leaves: list[Tensor]) -> str:
    """A name that is the same for one program, on one processor, with one version of torch and one number of
    threads."""
    constants = [(name, tensor.tolist()) for name, tensor in sorted(graph.named_buffers())]
    inputs = [(leaf.dtype, leaf.shape, leaf.stride()) for leaf in leaves]
    build = (torch.__version__, torch.version.git_version, torch.get_num_threads(), _processor())
    return hashlib.sha256(repr((build, inputs, constants, graph.code)).encode()).hexdigest()[:40]


def _processor() -> str:
    """The instructions that compiled code may use: it is made for the processor at hand."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    described = [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
    return "".join(sorted(set(described))) or platform.machine() + platform.processor()
