"""The record of a run: pictures that cannot be written, and failures in words."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from small_runs import dqn_config, run_config

import rltrain.report.curve
from rltrain.jobs.record import draw, explained
from rltrain.storage.run_folder import RunFolder


def test_a_picture_that_cannot_be_written_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(run: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device", str(run / "learning_curve.png"))

    monkeypatch.setattr(rltrain.report.curve, "plot_learning_curve", full)
    agent: Any = None
    assert draw(RunFolder(tmp_path), run_config(dqn_config()), agent, curve=True) == {}
    assert capsys.readouterr().err.endswith("learning_curve.png: cannot be used: No space left on device\n")


def test_a_file_that_fails_a_run_is_named_in_words(tmp_path: Path) -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "/data/maze.txt")
    failure = explained(error, RunFolder(tmp_path))
    assert str(failure) == f"/data/maze.txt: cannot be used: Permission denied (traceback in {tmp_path / 'run.log'})"
