"""Programs compiled ahead: the same numbers, kept on disk, and never the wrong one."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.fx import Graph, GraphModule

from rltrain.compute import ahead
from rltrain.compute.compiling import Bound, has_compiler

pytestmark = pytest.mark.skipif(not (has_compiler() and ahead.available()), reason="no C++ compiler")


def scaled(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.sin(x) * factor


def computed(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`function(x)` by a program."""
    result = torch.empty_like(x)
    ahead.program(lambda x, result: result.copy_(function(x)), (x, result))()
    return result


class Pair(NamedTuple):
    first: Tensor
    rest: dict[str, Tensor]


@pytest.mark.slow
def test_a_call_reads_and_writes_the_arguments_as_they_are_then() -> None:
    def shuffle(pair: Pair, extra: tuple[Tensor, ...]) -> None:
        difference = extra[0] - pair.first
        pair.first.copy_(pair.rest["x"] * 2.0 + pair.rest["y"].sum())
        pair.rest["x"].copy_(difference)

    pair = Pair(torch.zeros(3), {"x": torch.zeros(3), "y": torch.zeros(3)})
    extra = (torch.zeros(3),)
    run = ahead.program(shuffle, (pair, extra))
    for _ in range(3):
        for tensor in (pair.first, *pair.rest.values(), *extra):
            tensor.normal_()
        expected = Pair(pair.first.clone(), {name: tensor.clone() for name, tensor in pair.rest.items()})
        shuffle(expected, extra)
        run()
        torch.testing.assert_close(pair, expected)


@pytest.mark.slow
def test_a_program_is_loaded_by_whoever_comes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "program_folder", lambda: tmp_path / "programs")
    x = torch.linspace(0.0, 1.0, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a user would see them
        torch.testing.assert_close(computed(scaled(2.0), x), torch.sin(x) * 2.0)
    (kept,) = (tmp_path / "programs").iterdir()
    assert kept.suffix == ".so"
    monkeypatch.setattr(ahead, "_compile", lambda *_: pytest.fail("it is there already"))
    torch.testing.assert_close(computed(scaled(2.0), x), torch.sin(x) * 2.0)


def test_a_program_that_another_process_compiles_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def compile_slowly(_: Any, __: Any, path: Path) -> None:
        time.sleep(0.2)
        path.touch()
        made.append(path)

    monkeypatch.setattr(ahead, "_compile", compile_slowly)
    graph, place = GraphModule(torch.nn.Module(), Graph()), tmp_path / "programs" / "one.so"
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: ahead._find_or_compile(graph, [], place), range(3)))
    assert made == [place]
    assert list(place.parent.iterdir()) == [place], "no lock stays"


def test_a_process_that_never_gets_to_compile_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "_LONGEST_TURN", 0.2)
    with ahead._turn(tmp_path / "one.so"), ahead._turn(tmp_path / "one.so"):
        pass


def test_another_constant_shape_type_or_number_of_threads_is_another_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def refuse(_: Any, __: Any, path: Path) -> None:
        asked.append(path)
        raise OSError("no compiler today")

    monkeypatch.setattr(ahead, "_compile", refuse)
    monkeypatch.setattr(ahead, "program_folder", lambda: tmp_path)
    x, weights = torch.zeros(5), torch.ones(5)
    variants: list[tuple[Callable[[Tensor], Tensor], Tensor]] = [
        (scaled(2.0), x),
        (scaled(3.0), x),
        (scaled(2.0), torch.zeros(6)),
        (scaled(2.0), x.double()),
        (scaled(2.0), torch.zeros(10)[::2]),
        (lambda x: x * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), x),
        (lambda x: x * torch.tensor([1.0, 2.0, 3.0, 4.0, 6.0]), x),
        (lambda x: x * weights, x),
    ]
    for function, argument in variants:
        with pytest.raises(OSError, match="no compiler"):
            computed(function, argument)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.raises(OSError, match="no compiler"):
            computed(scaled(2.0), x)
    finally:
        torch.set_num_threads(threads)
    assert len(set(asked)) == len(variants) + 1


def compiled(procedure: Callable[..., None], fallback: Callable[..., None], *args: Tensor) -> Bound:
    bound = Bound(procedure, fallback, args, cuda_graphs=False)
    bound.compile()
    return bound


def test_what_cannot_be_compiled_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def by_value(x: Tensor) -> None:
        x.mul_(2.0 if x.sum().item() > 0.0 else 1.0)

    x = torch.ones(2)
    run = compiled(by_value, by_value, x)
    run()
    assert x.tolist() == [2.0, 2.0]
    x.neg_()
    run()
    assert x.tolist() == [-2.0, -2.0]
    assert "runs uncompiled" in caplog.text


def test_why_it_cannot_be_compiled_is_said_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Where a first line says only who complains, the second too."""

    def refused(x: Tensor) -> None:
        raise RuntimeError("backend='inductor' raised:\n\nAssertionError: no views\nfrom user code:\n somewhere")

    x = torch.ones(2)
    compiled(refused, lambda x: x.add_(1.0), x)()
    assert x.tolist() == [2.0, 2.0]
    assert [record.message for record in caplog.records if record.name.startswith("rltrain")] == [
        "compiling failed, the update runs uncompiled: backend='inductor' raised: AssertionError: no views"
    ]


def test_a_compiler_that_does_not_know_the_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What makes compiling quick is left out in a second try."""
    tried: list[Any] = []

    def compile_to(path: Path, graph: object, leaves: object, options: Mapping[str, Any]) -> None:
        tried.append(options)
        if options:
            raise RuntimeError("unrecognized command line option")
        path.write_text("a program")

    monkeypatch.setattr(ahead, "_compile_to", compile_to)
    ahead._compile(torch.fx.symbolic_trace(torch.nn.Identity()), [], tmp_path / "p.so")
    assert len(tried) == 2 and (tmp_path / "p.so").read_text() == "a program"


def tanh(x: Tensor) -> Tensor:
    return torch.tanh(x)


@pytest.mark.slow
def test_tanh_is_close_relative_to_its_value_and_its_gradient_is_that_of_tanh() -> None:
    x = torch.cat([torch.linspace(-12.0, 12.0, 20_001), torch.logspace(-30.0, 1.0, 20_001)])
    exact = torch.tanh(x.double())
    found = computed(tanh, x)
    assert ((found - exact).abs() <= 4e-7 * exact.abs()).all()
    assert found.abs().max() <= 1.0
    gradient = computed(torch.func.grad(lambda x: torch.tanh(x).sum()), x)
    torch.testing.assert_close(gradient.double(), 1.0 - exact**2, atol=1e-6, rtol=0.0)


@pytest.mark.slow
def test_tanh_of_what_is_no_number_is_none_and_of_infinity_one() -> None:
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0])
    assert torch.equal(computed(tanh, x)[1:], torch.tensor([1.0, -1.0, 0.0]))
    assert computed(tanh, x)[0].isnan()


@pytest.mark.slow
def test_tanh_of_float64_is_the_library_function() -> None:
    x = torch.linspace(-3.0, 3.0, 101, dtype=torch.float64)
    torch.testing.assert_close(computed(tanh, x), torch.tanh(x), atol=1e-15, rtol=1e-15)
