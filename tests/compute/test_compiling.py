"""Compiled functions without checks per call: each keeps its own program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from whole_runs import COMMON_ARGS, newest, rltrain_here

from rltrain.compute.compiling import Bound, has_compiler


def multiplying(factor: float) -> Callable[[Tensor], None]:
    def multiply(x: Tensor) -> None:
        x.mul_(factor)

    return multiply


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
@pytest.mark.parametrize("is_ahead", [True, False])
def test_two_procedures_of_one_shape_do_not_get_each_other_s_program(
    is_ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rltrain.compute.ahead.available", lambda: is_ahead)
    tensors = {2.0: torch.ones(7), 3.0: torch.ones(7)}
    programs = [Bound(multiplying(by), multiplying(by), (x,), cuda_graphs=False) for by, x in tensors.items()]
    for program in programs:
        program.compile()
    for times in (1, 2):
        for program, (by, x) in zip(programs, tensors.items(), strict=True):
            program()
            assert (x == by**times).all()


@pytest.mark.parametrize(("choice", "reason"), [("true", True), ("auto", False), ("false", False)])
def test_without_a_compiler_runs_train_uncompiled_and_say_so_where_it_is_why(
    choice: str, reason: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rltrain.jobs.build.has_compiler", lambda: False)
    run = [*COMMON_ARGS, "total_steps=80", "algo.learning_starts=50", "algo.batch_size=8", "log_period=10"]
    assert rltrain_here(tmp_path, *run, f"device.compile={choice}", "hydra.run.dir=run") == 0
    said = capsys.readouterr()
    assert (", not compiled (there is no C++ compiler)" in said.out) is reason
    assert "compiled at" not in said.out and "failed" not in said.out + said.err
    assert (tmp_path / "run" / "run.log").read_text() == ""
    assert newest(tmp_path / "run").manifest["compile"] is False
