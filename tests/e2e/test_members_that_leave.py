"""The last members of a population go on without those that have ended: together, then one by itself; and a sweep that
is killed anywhere meanwhile ends as if it was not."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from halves import often
from whole_runs import (
    COMMON_ARGS,
    Crash,
    KillAfter,
    StopAfter,
    assert_same_run,
    config_of,
    newest,
    record_of,
    result_of,
    resume,
    rewrite,
    rltrain_here,
    rows,
)

from rltrain.config.plain import to_plain
from rltrain.jobs import job
from rltrain.jobs.build import build
from rltrain.jobs.checkpointer import RunCheckpointer
from rltrain.storage.checkpoint_folders import step_folders
from rltrain.storage.files import holder_of

LIMITS = [100, 100, 120, 120, 240, 330]
SWEEP = [
    "-m", *COMMON_ARGS, "hydra.sweep.dir=sweep", f"total_steps={','.join(map(str, LIMITS))}", "num_envs=2",
    "env.vectorization=sync", "eval.period=90", "eval.episodes=2", "checkpoint.period=50", "checkpoint.keep=2",
    "algo.learning_starts=30", "algo.batch_size=8", "algo.train_period=3",
]  # fmt: skip
JOBS = [str(number) for number in range(len(LIMITS))]
SHORT = [*(arg for arg in SWEEP if not arg.startswith(("total_steps=", "eval."))), "total_steps=60,60,80,100",
         "eval.period=null"]  # fmt: skip
"""A quicker sweep, of which jobs 2 and 3 go on."""


@pytest.fixture(autouse=True)
def _leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of them or fewer leave, whatever they gain."""
    monkeypatch.setattr("rltrain.jobs.leaving.choose_leaving", lambda *asked: len(asked[-1]) > 1)


class Whole(NamedTuple):
    """A sweep that nothing stopped."""

    folder: Path
    looks: int  # how often it looked whether to stop
    saves: int
    said: str
    statuses: list[list[str]]  # of all jobs, each time that some go on


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder, looks, saves = tmp_path_factory.mktemp("whole"), StopAfter(), CrashAtSave(None, Path())
    statuses: list[list[str]] = []
    begin = job._go_on

    def go_on(*args: Any) -> Any:
        statuses.append([record_of(folder / "sweep" / name)["status"] for name in JOBS])
        return begin(*args)

    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as said:
        patch.setattr("rltrain.jobs.leaving.choose_leaving", lambda *asked: len(asked[-1]) > 1)
        patch.setattr(RunCheckpointer, "save", saves.save)
        patch.setattr(job, "_go_on", go_on)
        assert rltrain_here(folder, *SWEEP, stop=looks) == 0
    return Whole(folder / "sweep", looks.looks, saves.count, said.getvalue(), statuses)


class CrashAtSave:
    """In place of `RunCheckpointer.save`: leaves what a kill leaves just before the save of this number."""

    def __init__(self, number: int | None, sweep: Path) -> None:
        self.count, self._number, self._sweep = 0, number, sweep
        self._save: Callable[..., None] = RunCheckpointer.save

    @property
    def save(self) -> Callable[..., None]:
        def save(saver: RunCheckpointer, *args: Any) -> None:
            if self.count == self._number:
                shutil.copytree(self._sweep, self._sweep.with_name("killed"))
                raise Crash
            self.count += 1
            self._save(saver, *args)

        return save


def kill_at_save(number: int, folder: Path) -> None:
    """Starts the sweep in `folder`, and kills it just before the save of this number."""
    sweep = folder / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunCheckpointer, "save", CrashAtSave(number, sweep).save)
        assert rltrain_here(folder, *SWEEP) == -1
    shutil.rmtree(sweep)
    sweep.with_name("killed").rename(sweep)


def assert_as_whole(sweep: Path, whole: Path) -> None:
    for name in JOBS:
        assert_same_run(sweep / name, whole / name)


def test_they_train_to_their_ends_and_the_others_have_ended_then(whole: Whole) -> None:
    assert re.findall(r"^jobs? .* on from step .*$", whole.said, re.MULTILINE) == [
        "jobs 4, 5 go on from step 120 without those that have ended, 1 thread",
        "job 5 goes on from step 240 without those that have ended, 1 thread",
    ]
    assert whole.statuses == [
        ["completed"] * 4 + ["interrupted"] * 2,
        ["completed"] * 5 + ["interrupted"],
    ]
    for name, limit in zip(JOBS, LIMITS, strict=True):
        folder = whole.folder / name
        assert result_of(folder)["env_step"] == newest(folder).step == limit
        assert [row["step"] for row in rows(folder)] == sorted({row["step"] for row in rows(folder)})
    names = [record_of(whole.folder / name)["population"] for name in JOBS]
    assert names == [JOBS] * 4 + [["4", "5"]] * 2


def test_they_are_held_meanwhile_and_the_others_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else trains those that wait for their turn; a log has what happened while its run was trained."""
    held: list[list[str]] = []
    begin = job._go_on

    def go_on(*args: Any) -> Any:
        held.append([name for name in "0123" if holder_of(tmp_path / "sweep" / name)])
        logging.getLogger("rltrain").warning("a word")
        return begin(*args)

    monkeypatch.setattr(job, "_go_on", go_on)
    monkeypatch.setattr("rltrain.jobs.leaving.choose_leaving", lambda *asked: False)
    assert rltrain_here(tmp_path, *SHORT) == 0
    assert held == [["2", "3"], ["3"]]
    words = [(tmp_path / "sweep" / name / "run.log").read_text().count("a word") for name in "0123"]
    assert words == [0, 0, 1, 2]
    assert not any(holder_of(tmp_path / "sweep" / name) for name in "0123")


def test_their_numbers_are_those_of_members_that_stay(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to rounding."""
    monkeypatch.setattr("rltrain.jobs.leaving.choose_leaving", lambda *asked: None)
    assert rltrain_here(tmp_path, *SWEEP) == 0
    for name in JOBS:
        own, others = rows(tmp_path / "sweep" / name), rows(whole.folder / name)
        assert [row["step"] for row in own] == [row["step"] for row in others]
        for row, other in zip(own, others, strict=True):
            timeless = [{key: value for key, value in r.items() if not key.startswith("time/")} for r in (row, other)]
            assert timeless[0] == pytest.approx(timeless[1], rel=1e-3, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("share", [n / 24 for n in range(1, 24)])
@pytest.mark.parametrize("kills", [True, False])
def test_a_sweep_that_is_stopped_meanwhile_ends_like_one_that_was_not(
    whole: Whole, share: float, kills: bool, tmp_path: Path
) -> None:
    looks = whole.looks
    stop = KillAfter(int(share * looks), tmp_path / "sweep") if kills else StopAfter(int(share * looks))
    assert rltrain_here(tmp_path, *SWEEP, stop=stop) == (-1 if kills else 143)
    assert resume(tmp_path / "sweep", stop=StopAfter(looks // 5)) in (0, 143)
    assert resume(tmp_path / "sweep") == 0
    assert_as_whole(tmp_path / "sweep", whole.folder)


@pytest.mark.parametrize("number", often(range(6, 25), [17]))
def test_a_kill_between_two_saves_costs_no_exactness(whole: Whole, number: int, tmp_path: Path) -> None:
    assert whole.saves == 25
    kill_at_save(number, tmp_path)
    assert resume(tmp_path / "sweep") == 0
    assert_as_whole(tmp_path / "sweep", whole.folder)


@pytest.mark.slow
def test_nothing_that_those_who_left_have_saved_is_trained_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The checkpoints of all with which they left are still there."""
    kill_at_save(18, tmp_path)
    assert [folder.name for folder in step_folders(tmp_path / "sweep" / "4")] == ["step_00000120", "step_00000150"]
    capfd.readouterr()
    assert resume(tmp_path / "sweep", stop=StopAfter(1)) == 143
    out = capfd.readouterr().out
    assert "2 jobs as one program" in out and "resumed   at step 150, exactly" in out


@pytest.mark.slow
@pytest.mark.parametrize("already", [0, 1])
def test_a_kill_before_the_others_go_on_costs_no_exactness(
    whole: Whole, already: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that have ended are completed then, and no checkpoint of the rest is of these alone."""
    begin, calls = job._go_on, []

    def go_on(*args: Any) -> Any:
        calls.append(args)
        if len(calls) > already:
            raise Crash
        return begin(*args)

    with monkeypatch.context() as patch:
        patch.setattr(job, "_go_on", go_on)
        assert rltrain_here(tmp_path, *SWEEP) == -1
    statuses = [record_of(tmp_path / "sweep" / name)["status"] for name in JOBS]
    assert statuses == ["completed"] * (4 + already) + ["interrupted"] * (2 - already)
    assert resume(tmp_path / "sweep") == 0
    assert_as_whole(tmp_path / "sweep", whole.folder)


@pytest.mark.slow
def test_the_whole_sweep_can_be_extended(whole: Whole, tmp_path: Path) -> None:
    sweep = Path(shutil.copytree(whole.folder, tmp_path / "sweep"))
    before = {name: rows(sweep / name) for name in JOBS}
    assert resume(sweep, "total_steps=400") == 0
    for name in JOBS:
        assert result_of(sweep / name)["env_step"] == 400
        assert rows(sweep / name)[: len(before[name]) - 1] == before[name][:-1]
        assert len(step_folders(sweep / name)) == 2


@pytest.mark.parametrize(
    ("args", "known"),
    often([([], False), (["checkpoint.replay=false"], True), (["device.compile=false"], True)], [([], False)]),
)
def test_who_would_not_be_the_same_then_stays(
    args: list[str], known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its running episode cannot be played again, or its experience is in no checkpoint; the third leaves."""
    monkeypatch.setattr("rltrain.jobs.leaving.known_to_replay", lambda env: known)
    assert rltrain_here(tmp_path, *SHORT, *args) == 0
    left = args == ["device.compile=false"]
    assert record_of(tmp_path / "sweep" / "3")["population"] == (["2", "3"] if left else [*"0123"])


def test_a_program_for_fewer_is_compiled_only_where_that_pays(whole: Whole, tmp_path: Path) -> None:
    """Which `auto` had chosen for all says nothing about the one that has left; of a resumed one it holds."""
    run = Path(shutil.copytree(whole.folder / "0", tmp_path / "0"))
    config = config_of(run)
    config = replace(config, device=replace(config.device, compile="auto"))
    for population, compiled in ({"members": JOBS, "member": 0, "moment": 50, "ended": False}, False), (None, True):
        rewrite(run, {"config": to_plain(config), "compile": True, "population": population})
        with build(config, (), newest(run)) as parts:
            assert parts.compiled is compiled
