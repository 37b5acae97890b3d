"""The ATen operations of a procedure of tensors: recorded in its first calls, then replayed without Python.

An eager update of a small network spends most of its time in Python and in autograd, between some hundred and fifty
small operations. They are the same in every call, so they are written down, and from then on torch's own interpreter
runs them: the same kernels in the same order, hence the same bits, in about half the time, with nothing to compile.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

_log = logging.getLogger(__name__)
# The interpreter's graph is made with an example of the arguments, in which tensors of more bytes are zeros: those take
# no memory until written.
_SMALL = 2**20


class _Value(NamedTuple):
    """Stands for a tensor: its number among all that a call has seen, its arguments first."""

    number: int


class _Operation(NamedTuple):
    function: Any  # an overload of ATen
    args: Any  # (args, kwargs) with a _Value in place of each tensor
    results: tuple[int, ...]  # numbers of the tensors that it returns


class _CannotRecordError(Exception):
    """The calls of a procedure are not all the same operations."""


class Recorded:
    """Calls of `procedure(*args)`, which returns nothing and writes into `args`: always the same tensors, on the CPU.

    The first two calls run as they are and are recorded. Where both made the same operations on the same tensors, later
    calls run the recording. Where they did not (control flow on values, numbers taken out of tensors), every call runs
    as it is.
    """

    def __init__(self, procedure: Callable[..., None], args: tuple[Any, ...]) -> None:
        self._procedure, self._args = procedure, args
        self._first: _Recorder | None = None
        self._run: Callable[[], None] | None = None

    @property
    def interpreted(self) -> bool:
        """Whether calls run the recording."""
        return self._run is not None and self._run != self._as_it_is

    def __call__(self) -> None:
        if self._run is not None:
            self._run()
            return
        inputs = tree_flatten(self._args)[0]
        example = tuple(
            torch.zeros_like(x) if x.nbytes > _SMALL else x.clone() for x in inputs
        )  # before the call moves on
        with _Recorder(inputs) as recorder:
            self._procedure(*self._args)
        if self._first is None:
            self._first = recorder
            return
        try:
            _check_same(self._first, recorder)
            self._run = _interpreter(recorder, inputs, example)
        except Exception as error:  # of any kind: these parts of torch promise nothing
            _log.info("not recorded, every call is made from Python: %s", error)
            self._run = self._as_it_is
        self._first = None

    def _as_it_is(self) -> None:
        self._procedure(*self._args)


def available() -> bool:
    """Whether this torch and this Python have the interpreter."""
    optimize = hasattr(torch._C, "_get_graph_executor_optimize") and hasattr(torch._C, "_set_graph_executor_optimize")
    return optimize and hasattr(torch.jit, "trace") and sys.version_info < (3, 14)  # where torch.jit ends


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down every operation that reaches the kernels: below autograd and vmap."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[_Operation] = []
        self.foreign: dict[int, Tensor] = {}  # read, and neither an argument nor made by an operation
        self.refusal: str | None = None
        self._numbers = {id(tensor): number for number, tensor in enumerate(inputs)}
        self._tensors = list(inputs)  # an id is a tensor's own while the tensor lives

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # there is no compiler to hide from, and hiding would import it: a second

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        described = tree_map(self._describe, (args, kwargs or {}))
        made = func(*args, **(kwargs or {}))
        results = tree_flatten(made)[0]
        if not all(isinstance(result, Tensor) for result in results):
            self.refusal = f"{func} takes numbers out of tensors"
        self.operations.append(_Operation(func, described, tuple(map(self._number, results))))
        return made

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)  # type: ignore[no-untyped-call]
        self._tensors.clear()

    def _describe(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if id(leaf) not in self._numbers:
            self.foreign[self._number(leaf)] = leaf
        return _Value(self._number(leaf))

    def _number(self, leaf: Any) -> int:
        number = self._numbers.setdefault(id(leaf), len(self._tensors))
        if number == len(self._tensors):
            self._tensors.append(leaf)
        return number


def _check_same(first: _Recorder, second: _Recorder) -> None:
    """Whether two calls made the same operations on the same tensors.

    Raises:
        _CannotRecordError: they did not, or depend on what no recording can see.
    """
    if second.refusal is not None:
        raise _CannotRecordError(second.refusal)
    if first.operations != second.operations:
        raise _CannotRecordError("two calls made different operations")
    for number, tensor in second.foreign.items():
        before = first.foreign[number]
        constant = before.dim() == tensor.dim() == 0 and torch.equal(before, tensor)  # torch.tensor(0.5)
        if before is not tensor and not constant:
            raise _CannotRecordError("two calls read different tensors that are not their arguments")


def _interpreter(recording: _Recorder, inputs: list[Tensor], example: tuple[Tensor, ...]) -> Callable[[], None]:
    """A call of the recording on `inputs`. Making it runs the operations once, on `example`."""
    operations, views = _split(recording, len(inputs))

    def replay(*tensors: Tensor) -> Tensor:
        values = {**recording.foreign, **dict(zip(numbers, tensors, strict=True))}
        _run(operations, values)
        return tensors[0]  # a trace must return something

    def with_views(tensors: Sequence[Tensor]) -> dict[int, Tensor]:
        values = dict(enumerate(tensors))
        _run(views, values)
        return values

    fixed = with_views(inputs)
    numbers, given = list(fixed), list(fixed.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch recommends its compiler instead
        examples = tuple(with_views(example).values())
        program = torch.jit.trace(replay, examples, check_trace=False)  # type: ignore[no-untyped-call]

    def call() -> None:
        optimize = torch._C._get_graph_executor_optimize()
        torch._C._set_graph_executor_optimize(False)  # it would batch matrix products, for other bits
        try:
            with torch.inference_mode():  # spares every operation its way past autograd, which no_grad does not
                program(*given)
        finally:
            torch._C._set_graph_executor_optimize(optimize)

    return call


def _split(recording: _Recorder, inputs: int) -> tuple[list[_Operation], list[_Operation]]:
    """The operations that every call runs, and those that only look at the `inputs` arguments in another shape: they
    stay the same tensors, so such views are made once. Without autograd a detached tensor is the tensor."""
    same: dict[int, int] = {}  # a detached tensor's number: the tensor's own
    fixed = set(range(inputs))
    in_every_call, once = [], []
    for function, described, results in recording.operations:
        args = tree_map(
            lambda x: _Value(same.get(x.number, x.number)) if _is_value(x) else x, described, is_leaf=_is_value
        )
        read = [leaf.number for leaf in tree_flatten(args, is_leaf=_is_value)[0] if _is_value(leaf)]
        if function is torch.ops.aten.detach.default:
            same[results[0]] = read[0]
        elif function.is_view and fixed.issuperset(read):
            once.append(_Operation(function, args, results))
            fixed.update(results)
        else:
            in_every_call.append(_Operation(function, args, results))
    return in_every_call, once


def _run(operations: Sequence[_Operation], values: dict[int, Tensor]) -> None:
    """Runs `operations` on the tensors in `values`, by number, and adds their results."""
    for function, described, results in operations:
        args, kwargs = tree_map(lambda x: values[x.number] if _is_value(x) else x, described, is_leaf=_is_value)
        values.update(zip(results, tree_flatten(function(*args, **kwargs))[0], strict=True))


def _is_value(node: Any) -> bool:
    return isinstance(node, _Value)
