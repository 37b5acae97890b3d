"""Writers that are killed, and disks that are full."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rltrain.errors import RunFailed
from rltrain.storage.checkpoint import newest_checkpoint, read_checkpoint, write_checkpoint
from rltrain.storage.checkpoint_folders import best_folder, clean, step_folder, step_folders

WRITER = """
import sys, torch
from pathlib import Path
from rltrain.storage.checkpoint import write_checkpoint
from rltrain.storage.checkpoint_folders import best_folder, prune, step_folder
run, first = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
print("ready", flush=True)
for step in range(first, 1_000_000):
    tensors = {"network": {"w": torch.full((200_000,), float(step))}, "replay": {"r": torch.full((50,), float(step))}}
    for folder in (step_folder(run, step), best_folder(run)):
        write_checkpoint(folder, step=step, manifest={}, tensors=tensors, state={"step": step})
    prune(run, 2)
"""


def check_whole(folder: Path) -> int:
    read = read_checkpoint(folder)
    assert read.tensors["network"]["w"].unique().tolist() == [float(read.step)]
    assert read.tensors["replay"]["r"].unique().tolist() == [float(read.step)]
    assert read.state["step"] == read.step
    return read.step


def kill_writers(run: Path, rounds: int) -> None:
    chance = random.Random(0)
    step = 1
    while rounds:
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(run), str(step)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        # One slow start serves several kills: a stop is as sudden as a kill for whoever reads meanwhile.
        deadline = time.monotonic() + 10
        while not best_folder(run).exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        for _ in range(12):
            time.sleep(chance.uniform(0, 0.02))
            writer.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, writer.pid, os.WSTOPPED)
            newest = newest_checkpoint(run)
            assert newest == step_folders(run)[-1]
            newest_step, best_step = check_whole(newest), check_whole(best_folder(run))
            assert newest_step - 2 <= best_step <= newest_step  # 2: the writer before was killed between the two
            writer.send_signal(signal.SIGCONT)
        time.sleep(chance.uniform(0, 0.02))
        writer.kill()
        writer.communicate()
        newest = newest_checkpoint(run)
        assert newest == step_folders(run)[-1]
        step = check_whole(newest) + 1
        check_whole(best_folder(run))
        clean(run)
        assert all(not name.startswith(".") for name in os.listdir(run / "checkpoints"))
        check_whole(best_folder(run))
        rounds -= 1


def test_a_killed_writer_leaves_whole_checkpoints(tmp_path: Path) -> None:
    kill_writers(tmp_path, rounds=1)


@pytest.mark.slow
def test_many_killed_writers_leave_whole_checkpoints(tmp_path: Path) -> None:
    kill_writers(tmp_path, rounds=25)


def limit_file_size(size: int) -> tuple[int, int]:
    """Writes beyond `size` fail like those on a full disk (EFBIG; Python ignores SIGXFSZ)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    return before


@pytest.mark.parametrize("name", ["step_00000001", "best"])
@pytest.mark.parametrize("file", ["network.safetensors", "state.json"])
def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path, name: str, file: str) -> None:
    folder = tmp_path / "checkpoints" / name
    small, large = {"network": {"w": torch.ones(10)}}, {"network": {"w": torch.zeros(100_000)}}
    write_checkpoint(folder, step=1, manifest={}, tensors=small, state={})
    tensors, state = (small, {"text": "x" * 400_000}) if file == "state.json" else (large, {})
    before = limit_file_size(50_000)
    try:
        with pytest.raises(RunFailed) as caught:
            write_checkpoint(folder, step=2, manifest={}, tensors=tensors, state=state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(folder) in str(caught.value)
    assert "cannot be written: File too large" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert read_checkpoint(folder).step == 1
    assert os.listdir(folder.parent) == [name]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file in the way")
    with pytest.raises(RunFailed, match="checkpoints/step_00000001"):
        write_checkpoint(step_folder(tmp_path, 1), step=1, manifest={}, tensors={}, state={})
