"""The process of a task: its exit code is kept, and it ends with whatever ran it."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rltrain.cluster import runner
from rltrain.cluster.runner import Runner
from rltrain.storage.task_folder import TaskFolder, last_line

SAVES = """\
import os, signal, sys, time
from rltrain.terminal.interrupts import stops_with
def save(*_):
    open("saved", "w").close()
    os._exit(143)
signal.signal(signal.SIGTERM, save)
stops_with(int(sys.argv.pop(1)))
open("begun", "w").close()
time.sleep(60)
"""


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def made(folder: Path, *words: str) -> Runner:
    return Runner(str(folder), 0, words, str(folder), {})


def test_runs_a_command_and_keeps_its_end(tmp_path: Path) -> None:
    task = TaskFolder(tmp_path, 0)
    assert made(tmp_path, "--version")() == 0
    assert task.read_end() == 0
    assert last_line(task.log).startswith("rltrain ")
    assert made(tmp_path, "--nonsense")() == 2
    assert task.read_end() == 2
    assert last_line(task.log) == "see rltrain --help"


def test_a_task_that_is_stopped_saves_and_says_by_which_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM, as Slurm and Ray send it before they take a node away."""
    monkeypatch.setattr(runner, "_START", SAVES)
    task = made(tmp_path)

    def stop() -> None:
        wait_for(tmp_path / "begun")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    assert task() == 143
    assert (tmp_path / "saved").exists()
    assert TaskFolder(tmp_path, 0).read_end() == 143
    assert pickle.loads(pickle.dumps(task)) == made(tmp_path)  # goes back into the queue without its process


def test_slurms_warning_reaches_only_what_answers_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGUSR2 may go to all processes of a task; who is not told of it would end without saving."""
    monkeypatch.setattr(runner, "_START", "import os, signal; os.kill(os.getpid(), signal.SIGUSR2)")
    assert made(tmp_path)() == 0


def test_a_task_ends_with_the_process_that_runs_it(tmp_path: Path) -> None:
    code = f"from rltrain.cluster import runner; runner._START = {SAVES!r}; "
    code += f"runner.Runner({str(tmp_path)!r}, 0, (), {str(tmp_path)!r}, {{}})()"
    process = subprocess.Popen([sys.executable, "-c", code])
    wait_for(tmp_path / "begun")
    process.kill()
    process.wait()
    wait_for(tmp_path / "saved")
