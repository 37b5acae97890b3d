"""Compiled functions without checks per call: each keeps its own program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from whole_runs import COMMON_ARGS, newest, rltrain_here

from rltrain.compute.compiling import compiled, has_compiler


def scaled(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.sin(x) * factor


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
def test_two_functions_of_one_shape_do_not_get_each_other_s_program() -> None:
    x = torch.linspace(0.0, 1.0, 7)
    functions = [compiled(scaled(factor), scaled(factor), fixed_shapes=True) for factor in (2.0, 3.0)]
    for _ in range(2):
        for function, factor in zip(functions, (2.0, 3.0), strict=True):
            torch.testing.assert_close(function(x), torch.sin(x) * factor)


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
