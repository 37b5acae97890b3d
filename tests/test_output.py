"""Standard streams that cannot be written."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest

from rltrain import output
from rltrain.output import outliving_output, warn


def test_what_fails_once_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with outliving_output() as output:
            for _ in range(3):
                print("text", flush=True)
            assert isinstance(output.failure, BrokenPipeError)
            assert sys.stdout.encoding == stream.encoding and not sys.stdout.isatty()
        assert sys.stdout is stream  # and what is left in its buffer is written without an error


def test_what_is_written_arrives(capsys: pytest.CaptureFixture[str]) -> None:
    with outliving_output() as output:
        print("out")
        print("error", file=sys.stderr)
    assert output.failure is None
    assert capsys.readouterr() == ("out\n", "error\n")


def test_an_absent_stream_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with outliving_output() as output:
        assert not sys.stdout.isatty()
        print("text", flush=True)
    assert output.failure is None


def test_a_warning_is_in_the_log_each_time_and_on_the_terminal_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(output, "_warned", set())
    log = logging.getLogger("rltrain.test")
    for message in ("slow", "slow", "slower"):
        warn(log, message)
    assert capsys.readouterr() == ("", "warning   slow\nwarning   slower\n")
    assert [record.message for record in caplog.records] == ["slow", "slow", "slower"]
