"""How numbers, paths and lines are written."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import shlex
import shutil
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from rltrain.terminal.shell import quoted, rltrain_command, shell_word, shown_path
from rltrain.terminal.text import draws_bars, mean_and_std, name_ranges, number, terminal_width, wrapped, wrapped_table

WORDS = [
    "rltrain", "network.hidden=[64,64]", "=ls", "a b", "it's", "~", "!!", "$HOME", "`id`", "*", "#a", "x=~/y", "{a,b}",
    "seed=range(0,5)", "^a", "a;b", "\x1b[31m'", "tab\there", "line\nbreak", "b\udcffc", "höhe", "", "-n", "a\\\x07b",
]  # fmt: skip


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_command_is_read_by_the_shell_as_it_was_meant(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    script = f"printf '%s\\0' {' '.join(map(quoted, WORDS))}"
    done = subprocess.run([shell, "-f" if shell == "zsh" else "--norc", "-c", script], capture_output=True, check=True)
    assert [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]] == WORDS


def test_a_command_works_in_another_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it needs of this one's variables is part of it; a module that this process imported is trusted."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "of_mine.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "lib")
    run, mine = tmp_path / "my run", "of_mine:Env-v0"

    def variables(**values: str) -> None:
        for name in ("PYTHONPATH", "RLTRAIN_CONF", "RLTRAIN_PLUGINS"):
            monkeypatch.setenv(name, values.get(name, ""))

    variables()
    assert (
        rltrain_command("resume", run) == rltrain_command("resume", run, imports=["A-v0"]) == "rltrain resume 'my run'"
    )
    assert rltrain_command("evaluate", run, imports=[mine]) == "rltrain evaluate 'my run' trust=true"
    assert rltrain_command(f"env={mine}", "a=[]") == "rltrain env=of_mine:Env-v0 'a=[]'"
    variables(PYTHONPATH="lib:elsewhere", RLTRAIN_CONF="conf")
    assert (
        rltrain_command("export", run, imports=[mine]) == "PYTHONPATH=lib:elsewhere rltrain export 'my run' trust=true"
    )
    assert rltrain_command(f"env={mine}") == f"PYTHONPATH=lib:elsewhere RLTRAIN_CONF=conf rltrain env={mine}"
    assert rltrain_command("env=A-v0") == "RLTRAIN_CONF=conf rltrain env=A-v0"
    variables(PYTHONPATH="elsewhere", RLTRAIN_PLUGINS="of_mine, json")
    assert rltrain_command("resume", run, imports=[mine]) == "RLTRAIN_PLUGINS=of_mine,json rltrain resume 'my run'"
    both = rltrain_command("tune", run, imports=[mine, "its:Logger"])
    assert both == "RLTRAIN_PLUGINS=of_mine,json rltrain tune 'my run' trust=true"
    variables(PYTHONPATH="lib")
    assert rltrain_command("loggers=[of_mine:Logger]") == "PYTHONPATH=lib rltrain 'loggers=[of_mine:Logger]'"


def test_a_terminal_without_the_letters_shows_words_that_mean_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert (quoted("日 x"), quoted("x")) == (r"$'\xe6\x97\xa5 x'", "x")


def test_a_folder_is_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (shell_word(Path("-m")), shell_word(tmp_path / "a b")) == ("./-m", "'a b'")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (487.31, "487.3"), (10.0, "10.0"), (-145.26, "-145.3"), (9.994, "9.99"), (0.97, "0.97"), (1.0, "1.00"),
        (0.1, "0.10"), (0.0123, "0.012"), (-0.00045, "-0.00045"), (0.0, "0.0"), (1e-30, "0.000000000"),
        (float("nan"), "nan"), (float("-inf"), "-inf"), (1234567.0, "1234567.0"),
    ],
)  # fmt: skip
def test_a_number_has_the_decimals_of_its_size(value: float, text: str) -> None:
    assert number(value) == text


def test_a_mean_and_its_deviation_have_the_same_decimals() -> None:
    assert mean_and_std(0.97, 0.0) == "0.97 +- 0.00"
    assert mean_and_std(487.31, 10.2) == "487.3 +- 10.2"
    assert mean_and_std(-0.5, 12.0) == "-0.5 +- 12.0"
    assert mean_and_std(0.0, 0.02) == "0.000 +- 0.020"


def test_bars_are_drawn_where_a_terminal_has_room_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with open(ours, "w") as other, open(theirs, "w") as terminal, open(os.devnull, "w") as file:
        for columns in (0, 80):
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            assert draws_bars(terminal) == (columns > 0) and other
        assert not draws_bars(file)
        with monkeypatch.context() as notebook:
            notebook.setitem(sys.modules, "ipykernel", sys)
            assert draws_bars(file)
        monkeypatch.setenv("TERM", "dumb")
        assert not draws_bars(terminal)


def test_lines_are_wrapped_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns, width in (("20", 40), ("72", 72), ("500", 120)):
        monkeypatch.setenv("COLUMNS", columns)
        assert terminal_width() == width
    monkeypatch.setenv("COLUMNS", "40")
    assert wrapped("x" * 200) == "x" * 200
    assert wrapped("tuned     " + "word " * 10).splitlines() == [
        "tuned     word word word word word word", "          word word word word",
    ]  # fmt: skip
    assert wrapped_table("  name  " + "word " * 8 + "\n\nshort").splitlines() == [
        "  name  word word word word word word", "        word word", "", "short",
    ]  # fmt: skip
    assert wrapped_table("  " + "l" * 25 + "  " + "word " * 4).splitlines()[1] == "      word word word word"
    assert wrapped_table("  name  " + "w" * 35).splitlines() == ["  name", "      " + "w" * 35]
    assert wrapped_table("  name  one\n        two\n  second  three") == "  name  one two\n  second  three"


def test_paths_are_shown_as_they_are_typed_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert shown_path(tmp_path / "here" / "run") == shown_path(Path("run")) == Path("run")
    assert shown_path(tmp_path / "there") == tmp_path / "there"
    assert shlex.split(shell_word(tmp_path / "here" / "my $run")) == ["my $run"]


@pytest.mark.parametrize(
    ("names", "longest", "shown"),
    [
        (["0", "1", "2", "7", "9", "10"], 99, "0 to 2, 7, 9, 10"),
        (["a/8", "a/9", "a/10", "b/11"], 99, "a/8 to 10, b/11"),
        (["x", "lr=0.1", "lr=0.2", "lr=0.3", "x"], 99, "x, lr=0.1, lr=0.2, lr=0.3, x"),
        ([f"trial_{t}_seed_{s}" for t in (0, 2, 5) for s in (7, 8, 9)], 99, "trial_0_seed_7 to 9, "
         "trial_2_seed_7 to 9, trial_5_seed_7 to 9"),
        ([f"trial_{t}_seed_{s}" for t in (0, 2, 5) for s in (7, 8, 9)], 40, "trial_0_seed_7 to 9 and 6 more"),
        ([str(2 * n) for n in range(14)], 999, "0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22 and 2 more"),
        (["a" * 50, "b"], 40, "a" * 50 + " and 1 more"),
    ],
)  # fmt: skip
def test_names_are_told_in_ranges(names: list[str], longest: int, shown: str) -> None:
    assert name_ranges(names, longest) == shown
