"""Whole runs in this process: trained, stopped where a test wants, continued, and compared file by file."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rltrain.jobs.job
import rltrain.jobs.training
import rltrain.report.curve
import rltrain.report.q_values
import rltrain.training.member
from rltrain.cli import main
from rltrain.config.schema import RunConfig
from rltrain.config.validate import validate
from rltrain.errors import Interrupted
from rltrain.loggers.jsonl import read_rows
from rltrain.storage.checkpoint import Checkpoint, newest_checkpoint, read_checkpoint, write_checkpoint
from rltrain.storage.checkpoint_files import RESERVED_KEYS

CLOCKS = {"time/steps_per_second", "train_seconds", "row_seconds"}
"""What may differ between two runs that are the same."""

COMMON_ARGS = ["tuned=none", "device=cpu", "device.compile=false", "network.hidden=[8]", "log_period=100"]
_PERIODS = ["total_steps=450", "eval.period=200", "eval.episodes=3", "checkpoint.period=100", "checkpoint.keep=2"]
DQN_ARGS = [*COMMON_ARGS, *_PERIODS, "algo.learning_starts=50", "algo.batch_size=8"]
REINFORCE_ARGS = [*COMMON_ARGS, *_PERIODS, "algo=reinforce", "env=Pendulum-v1", "env.max_episode_steps=20"]


class StopAfter:
    """Stands in for StopSignal: after `looks` looks at it a stop is requested. The loop looks once per vector step, of
    training and of evaluations alike, so that any moment of a run has its number."""

    exit_code = 143
    answer = "stopping"
    came = False

    def __init__(self, looks: int | None = None) -> None:
        self._allowed = looks
        self.looks = 0

    @property
    def requested(self) -> bool:
        self.looks += 1
        return self._allowed is not None and self.looks > self._allowed

    def take_save_request(self) -> bool:
        return False

    def __enter__(self) -> StopAfter:
        return self

    def __exit__(self, *_: object) -> None: ...

    def aftermath(self) -> None:
        """Called when the command has ended."""


class Crash(BaseException):
    """Ends a run on the spot."""


class KillAfter(StopAfter):
    """Leaves of the run what `kill -9` leaves at that look: its files as they are on the disk then."""

    def __init__(self, looks: int | None, run: Path) -> None:
        super().__init__(looks)
        self._run, self._copy = run, run.with_name("killed")

    @property
    def requested(self) -> bool:
        if super().requested:
            shutil.copytree(self._run, self._copy)
            raise Crash
        return False

    def aftermath(self) -> None:
        if self._copy.exists():
            shutil.rmtree(self._run)
            self._copy.rename(self._run)


class SaveAndKill(KillAfter):
    """A checkpoint is asked for at each of the looks `saves`, before the kill at `looks` (None: the run ends)."""

    def __init__(self, saves: Collection[int], looks: int | None, run: Path) -> None:
        super().__init__(looks, run)
        self._saves = saves

    def take_save_request(self) -> bool:
        return self.looks + 1 in self._saves  # it is asked just before `requested`


@contextmanager
def stopping(stop: Any) -> Iterator[None]:
    """Runs inside look at `stop`. What would be most of a short run's time is short too: no learning curve is drawn,
    and a reported result is of 10 episodes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rltrain.jobs.job, "StopSignal", lambda *_: stop)
        patch.setattr(rltrain.jobs.training, "REPORT_EPISODES", 10)
        patch.setattr(rltrain.training.member, "REPORT_EPISODES", 10)
        patch.setattr(rltrain.report.curve, "plot_learning_curve", lambda run: run / "learning_curve.png")
        patch.setattr(rltrain.report.q_values, "plot_q_values", lambda run, *_: run / "q_values.png")
        yield


def train(config: RunConfig, folder: Path, stop: StopAfter | None = None) -> int:
    """One run in a new folder; returns how often it looked whether to stop. A stopped one is an exit code 143."""
    stop = stop or StopAfter()
    folder.mkdir(parents=True)
    with stopping(stop):
        try:
            rltrain.jobs.job.train(config, folder, console=False)
        except (Interrupted, Crash):
            assert stop._allowed is not None
    stop.aftermath()
    return stop.looks


def resume(folder: Path, *args: str, stop: StopAfter | None = None) -> int:
    """`rltrain resume folder ...`, to the end or until `stop`; returns the exit code (-1: it crashed)."""
    return _command(["resume", str(folder), *args], stop)


def newest(run: Path) -> Checkpoint:
    return read_checkpoint(newest_checkpoint(run))


def rows(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl, without what the clock says."""
    return [{tag: value for tag, value in row.items() if tag not in CLOCKS} for row in read_rows(run / "metrics.jsonl")]


def event_series(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value) as TensorBoard shows it, from all event files of the run; of the evaluations that ended it,
    where it was extended, the last."""
    accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)][-1 if tag.startswith("final/") else 0 :]
        for tag in accumulator.Tags()["scalars"]
        if tag not in CLOCKS
    }


def assert_same_data(a: Any, b: Any, where: str = "state") -> None:
    """Nested plain data, arrays and tensors are equal, bit for bit."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a.keys() - CLOCKS:
            assert_same_data(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes(), where
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and a.shape == b.shape, where
        assert a.numpy().tobytes() == b.numpy().tobytes(), where
    else:
        assert type(a) is type(b) and a == b, where


def assert_same_checkpoint(a: Checkpoint, b: Checkpoint) -> None:
    """Weights, target, optimizer, replay, counters, generators and running episodes."""
    assert a.step == b.step
    assert_same_data(a.tensors, b.tensors, "tensors")
    assert_same_data(a.state, b.state)


def assert_same_run(a: Path, b: Path) -> None:
    """Everything that training leaves is equal: the newest and the best checkpoint, every metric, the result."""
    assert_same_checkpoint(newest(a), newest(b))
    best = [run / "checkpoints" / "best" for run in (a, b)]
    assert best[0].exists() == best[1].exists()
    if best[0].exists():
        assert_same_checkpoint(read_checkpoint(best[0]), read_checkpoint(best[1]))
    assert rows(a) == rows(b), [(x, y) for x, y in zip(rows(a), rows(b), strict=False) if x != y][:2]
    assert event_series(a) == event_series(b)
    assert (a / "result.json").read_text() == (b / "result.json").read_text()
    records = [json.loads((run / "run.json").read_text()) for run in (a, b)]
    assert [record["status"] for record in records] == ["completed", "completed"]


def rltrain_process(
    folder: Path, *args: str, two_cores: bool = False, plugins: str = "probe_envs"
) -> subprocess.Popen[str]:
    """`rltrain args` in a process and a session of its own, with the probe environments or other `plugins`.

    Args:
        two_cores: populations train side by side, whatever this machine has.
    """
    cores = ",two_cores" if two_cores else ""
    variables = {**os.environ, "RLTRAIN_PLUGINS": f"{plugins}{cores}", "RLTRAIN_CONF": ""}
    command = [sys.executable, "-m", "rltrain", *args]
    return subprocess.Popen(
        command, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def rltrain_here(folder: Path, *args: str, stop: StopAfter | None = None) -> int:
    """`rltrain args`, started in `folder` but in this process, to its end or until `stop`; draws no learning curve.
    Returns the exit code (-1: it was killed)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("RLTRAIN_PLUGINS", "probe_envs")
        return _command([*args], stop)


def pasted(command: str) -> list[str]:
    """The arguments of a command of rltrain as it is printed, after the variables that it sets."""
    words = shlex.split(command)
    return words[words.index("rltrain") + 1 :]


def _command(args: list[str], stop: StopAfter | None) -> int:
    stop = stop or StopAfter()
    with stopping(stop):
        try:
            code = main(args)
        except Crash:
            code = -1
    stop.aftermath()
    return code


def result_of(run: Path, name: str = "result.json") -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run / name).read_text())
    return result


def record_of(run: Path) -> dict[str, Any]:
    return result_of(run, "run.json")


def config_of(run: Path) -> RunConfig:
    return validate(newest(run).manifest["config"])


def one_line(capsys: pytest.CaptureFixture[str], lines: int = 1) -> str:
    """What a command said on stderr, which must be short."""
    error = capsys.readouterr().err
    assert 1 <= len(error.splitlines()) <= lines, error
    assert "Traceback" not in error
    return error


def rewrite(run: Path, manifest: dict[str, Any] | None = None, state: dict[str, Any] | None = None) -> None:
    """The newest checkpoint again, with other entries (None: without them): whole, but of foreign origin."""
    old = newest(run)
    kept = {key: value for key, value in old.manifest.items() if key not in RESERVED_KEYS}
    entries = []
    for before, changes in ((kept, manifest or {}), (old.state, state or {})):
        left_out = {key for key, value in changes.items() if value is None}
        entries.append({key: value for key, value in {**before, **changes}.items() if key not in left_out})
    write_checkpoint(old.folder, step=old.step, manifest=entries[0], tensors=old.tensors, state=entries[1])


def flip_a_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
