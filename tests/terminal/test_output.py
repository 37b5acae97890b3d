"""Standard streams that cannot be written."""

from __future__ import annotations

import ast
import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rltrain
from rltrain.terminal import output
from rltrain.terminal.output import own_output, printing_answers, say, warn


def test_what_fails_once_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with own_output() as output:
            for _ in range(3):
                say("text")
            assert isinstance(output.failure, BrokenPipeError)
            assert output.encoding == stream.encoding and not output.isatty()
        assert sys.stdout is stream  # and what is left in its buffer is written without an error


def test_what_is_written_arrives(capsys: pytest.CaptureFixture[str]) -> None:
    with own_output() as output:
        say("out")
        print("error", file=sys.stderr)
    assert output.failure is None
    assert capsys.readouterr() == ("out\n", "error\n")


def test_standard_output_is_for_what_rltrain_says(capsys: pytest.CaptureFixture[str]) -> None:
    with own_output():
        print("an environment's")
        say("ours")
        with printing_answers():
            print("Hydra's, which was asked")
        print("an environment's again")
    assert capsys.readouterr() == ("ours\nHydra's, which was asked\n", "an environment's\nan environment's again\n")
    say("outside of a command")
    assert capsys.readouterr().out == "outside of a command\n"


def test_streams_that_others_close_or_replace_are_still_ours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_warned", set())
    with own_output():
        sys.stdout.close()
        sys.stdout = sys.stderr = None  # type: ignore[assignment]
        say("ours")
        warn(logging.getLogger("no handlers"), "that")
    assert capsys.readouterr() == ("ours\n", "warning   that\n")
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with own_output():
        stream.close()
        print("nowhere", file=output.errors())


WHOLE_PROCESS = """
import atexit, os, subprocess, sys
from rltrain.terminal.output import answers_file, own_output, say
with own_output(whole_process=True):
    atexit.register(print, "at the end")
    print("python")
    os.write(1, b"C\\n")
    subprocess.run(["echo", "a program"])
    say("ours")
    subprocess.run(["echo", "in our place"], stdout=answers_file())
print("after it")
"""


@pytest.mark.parametrize(
    ("closed", "out", "error"),
    [
        ("", "ours\nin our place\n", "python\nC\na program\nafter it\nat the end\n"),
        ("1>&-", "", "python\nC\na program\nafter it\nat the end\n"),
        ("2>&-", "ours\nin our place\n", ""),
        ("1>&- 2>&-", "", ""),
    ],
)
def test_of_a_whole_process_by_descriptors_too(closed: str, out: str, error: str) -> None:
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", WHOLE_PROCESS]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, out, error)


def test_all_that_rltrain_prints_names_its_stream() -> None:
    """A print without one would be taken for an environment's."""
    for path in Path(rltrain.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                named = any(keyword.arg == "file" for keyword in node.keywords)
                assert named, f"{path.name}:{node.lineno}: rltrain.terminal.output.say is for what rltrain says"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_letter_that_cannot_be_shown_ends_nothing(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding))
    with own_output():
        say("folder \u65e5 \udcff")
        print("folder \u65e5", file=sys.stderr)
    shown = sys.stdout.buffer.getvalue()  # type: ignore[attr-defined]
    letter = "\u65e5" if encoding == "utf-8" else r"\u65e5"
    assert shown == rf"folder {letter} \udcff".encode() + b"\n"


def test_an_absent_stream_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with own_output() as output:
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


def test_a_warning_is_printed_once_where_there_is_no_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python prints what nobody handles."""
    monkeypatch.setattr(output, "_warned", set())
    log = logging.Logger("without handlers")
    warn(log, "slow")
    assert capsys.readouterr() == ("", "warning   slow\n")


def test_a_warning_is_shown_once_in_each_run(capsys: pytest.CaptureFixture[str]) -> None:
    """A notebook trains several."""
    for _ in range(2):
        with own_output():
            for _ in range(2):
                warn(logging.getLogger("rltrain.a_test"), "the disk is slow")
        assert capsys.readouterr().err == "warning   the disk is slow\n"
