"""The record of a run: pictures that cannot be written, and failures in words."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import dqn_config, run_config

import rltrain.report.curve
from rltrain.jobs.record import draw, explained
from rltrain.maths.value import td_loss
from rltrain.storage.run_folder import RunFolder


def test_a_picture_that_cannot_be_written_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(run: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device", str(run / "learning_curve.png"))

    monkeypatch.setattr(rltrain.report.curve, "plot_learning_curve", full)
    member: Any = None
    assert draw(RunFolder(tmp_path), run_config(dqn_config()), member, curve=True) == {}
    assert capsys.readouterr().err.endswith("learning_curve.png: cannot be used: No space left on device\n")


def test_a_job_s_curve_that_is_there_is_drawn_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job has one where it once went on alone, and its sweep goes on from there."""
    run = RunFolder(tmp_path)
    monkeypatch.setattr(rltrain.report.curve, "plot_learning_curve", lambda run: run / "learning_curve.png")
    member: Any = None
    assert draw(run, run_config(dqn_config()), member, curve=False) == {}
    run.learning_curve.write_bytes(b"of fewer steps")
    assert draw(run, run_config(dqn_config()), member, curve=False) == {"learning curve": run.learning_curve}


def test_a_file_that_fails_a_run_is_named_in_words(tmp_path: Path) -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "/data/maze.txt")
    failure = explained(error, RunFolder(tmp_path))
    assert str(failure) == f"/data/maze.txt: cannot be used: Permission denied (traceback in {tmp_path / 'run.log'})"


@pytest.mark.parametrize(("body", "line"), [("None.loss", 4), ("torch.ones(2) @ torch.ones(3)", 4)])
def test_a_failure_in_a_plug_in_names_its_place(body: str, line: int, tmp_path: Path) -> None:
    file = tmp_path / "plug_in.py"
    file.write_text(f"import torch\n\ndef losses():\n    return {body}\n")
    names: dict[str, Any] = {}
    exec(compile(file.read_text(), str(file), "exec"), names)
    with pytest.raises((AttributeError, RuntimeError)) as failed:
        names["losses"]()
    assert f", at {file}:{line} (traceback in " in str(explained(failed.value, RunFolder(tmp_path)))


def test_a_failure_of_ours_has_no_place_but_the_log(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="equal shapes") as failed:
        td_loss("mse", torch.ones(2, 1), torch.ones(2))
    trace = failed.value.__traceback__
    assert trace is not None
    own = failed.value.with_traceback(trace.tb_next)  # less this file
    assert ", at " not in str(explained(own, RunFolder(tmp_path)))


def test_losses_that_a_population_cannot_compute_are_told_what_trains_them(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^vmap: ") as failed:
        torch.vmap(lambda loss: loss * loss.item())(torch.ones(2))
    assert "; hydra/launcher=basic trains one job after the other (trace" in str(
        explained(failed.value, RunFolder(tmp_path))
    )
    alone = explained(ValueError("too small"), RunFolder(tmp_path))
    assert "launcher" not in str(alone)
