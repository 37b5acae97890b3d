"""A run that is stopped and continued equals the uninterrupted one, bit for bit: the promise of every checkpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from halves import often
from hypothesis import given, settings
from hypothesis import strategies as st
from resume_cases import CASES, WALK, dqn, q_learning, reinforce
from small_runs import env_config
from whole_runs import (
    KillAfter,
    StopAfter,
    assert_same_data,
    assert_same_run,
    newest,
    resume,
    rltrain_process,
    rows,
    stopping,
    train,
)

import rltrain.jobs.job
import rltrain.loggers.tensorboard
from rltrain.cli import main
from rltrain.compute.choices import CompileChoice
from rltrain.compute.compiling import has_compiler
from rltrain.config.schema import (
    CheckpointConfig,
    EvalConfig,
    RunConfig,
)
from rltrain.errors import Interrupted
from rltrain.training.stopping import StopSignal

OFTEN = [
    "dqn wrappers, 3 envs, n-step", "reinforce box actions, 4 envs", "pqn stepped in the program, held actions",
    "q_learning falling step size, 3 envs",
]  # fmt: skip


@pytest.mark.parametrize("name", often(CASES, OFTEN))
def test_stopped_and_continued_three_times(name: str, tmp_path: Path) -> None:
    looks = train(CASES[name], tmp_path / "whole")
    assert train(CASES[name], tmp_path / "parts", StopAfter(looks // 6)) < looks
    for _ in range(2):
        assert resume(tmp_path / "parts", stop=StopAfter(looks // 4)) == 143
    assert resume(tmp_path / "parts") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_stopped_before_the_first_step(tmp_path: Path) -> None:
    config = CASES["dqn 3 envs"]
    train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", StopAfter(0))
    assert newest(tmp_path / "parts").step == 0
    assert resume(tmp_path / "parts") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_stopped_in_the_middle_of_an_evaluation(tmp_path: Path) -> None:
    config = dqn(eval=EvalConfig(60, 4), env=env_config("probe_envs:FixedLength-v0"), total_steps=130)
    train(config, tmp_path / "whole")
    # 60 looks before the vector steps, one after each of the 7 steps of the evaluation's episodes
    train(config, tmp_path / "parts", StopAfter(60 + 3))
    stopped = newest(tmp_path / "parts")
    assert (stopped.step, stopped.state["duties_from"], stopped.state["best_return"]) == (60, 59, None)
    assert [row["step"] for row in rows(tmp_path / "parts")] == [50]
    assert resume(tmp_path / "parts", stop=StopAfter(2)) == 143  # in the same evaluation again
    assert newest(tmp_path / "parts").step == 60
    assert resume(tmp_path / "parts") == 0
    assert [row["step"] for row in rows(tmp_path / "parts") if "eval/episode_return" in row] == [60, 120]
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_killed_after_an_evaluation_that_was_made_again(tmp_path: Path) -> None:
    """The row of that evaluation was written, and the checkpoint from before it is still the newest."""
    config = dqn(eval=EvalConfig(60, 4), checkpoint=CheckpointConfig(None, 3, True), log_period=60)
    train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", StopAfter(60 + 3))
    assert resume(tmp_path / "parts", stop=KillAfter(40, tmp_path / "parts")) == -1
    assert (newest(tmp_path / "parts").step, rows(tmp_path / "parts")[-1]["step"]) == (60, 60)
    assert resume(tmp_path / "parts") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_stopped_in_the_last_evaluation(tmp_path: Path) -> None:
    config = dqn(env=env_config("probe_envs:FixedLength-v0"))
    looks = train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", StopAfter(looks - 5))
    assert newest(tmp_path / "parts").step == config.total_steps, "it stopped in training"
    assert json.loads((tmp_path / "parts" / "run.json").read_text())["status"] == "interrupted"
    assert not (tmp_path / "parts" / "result.json").exists()
    assert resume(tmp_path / "parts") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


class Whole(NamedTuple):
    config: RunConfig
    folder: Path
    looks: int


@pytest.fixture(scope="module", params=often(["dqn", "reinforce", "q_learning"], ["dqn"]))
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """An uninterrupted run with an evaluation, a row and a checkpoint at steps of their own."""
    small = {"total_steps": 100, "eval": EvalConfig(30, 2), "checkpoint": CheckpointConfig(40, 2, True)}
    if request.param == "dqn":
        config = dqn({"n_step": 3}, num_envs=3, log_period=20, **small)
    elif request.param == "q_learning":
        config = q_learning({"alpha_decay": 0.6}, num_envs=2, log_period=20, **small)
    else:
        config = reinforce(env=WALK, num_envs=2, log_period=20, **small)
    folder = tmp_path_factory.mktemp(request.param) / "whole"
    return Whole(config, folder, train(config, folder))


def check_stops(whole: Whole, stops: list[tuple[bool, float]]) -> None:
    """Each stop is (whether it is a kill -9, after which share of an uninterrupted run's looks)."""
    with tempfile.TemporaryDirectory() as temporary:
        run = Path(temporary) / "run"
        for number, (kills, share) in enumerate(stops):
            looks = round(share * whole.looks)
            stop = KillAfter(looks, run) if kills else StopAfter(looks)
            if number == 0:
                train(whole.config, run, stop)
            elif list(run.glob("checkpoints/step_*")):
                resume(run, stop=stop)
        if list(run.glob("checkpoints/step_*")):
            assert resume(run) == 0
            assert_same_run(whole.folder, run)


@settings(max_examples=5, deadline=None, derandomize=True)
@given(share=st.floats(0, 1))
def test_stopped_anywhere(whole: Whole, share: float) -> None:
    check_stops(whole, [(False, share)])


@settings(max_examples=5, deadline=None, derandomize=True)
@given(share=st.floats(0.4, 1))
def test_killed_anywhere(whole: Whole, share: float) -> None:
    """The newest checkpoint is older than the kill: rows and events of the steps after it are there once."""
    check_stops(whole, [(True, share)])


def test_killed_when_later_events_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a run this short they else are in memory still, and lost with it."""
    monkeypatch.setattr(rltrain.loggers.tensorboard, "_FLUSH_SECONDS", 0.0)
    config = dqn(log_period=10)
    train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", KillAfter(78, tmp_path / "parts"))
    assert resume(tmp_path / "parts") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(stops=st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=5))
def test_stopped_and_killed_anywhere_again_and_again(whole: Whole, stops: list[tuple[bool, float]]) -> None:
    check_stops(whole, stops)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["dqn 3 envs", "reinforce box actions", "dqn wrappers, 3 envs, n-step"])
def test_worker_processes_stop_and_continue_as_one_process_does(case: str, tmp_path: Path) -> None:
    config = replace(CASES[case], total_steps=120, num_envs=2 if "reinforce" in case else 3)
    asynchronous = replace(config, env=replace(config.env, vectorization="async"))
    looks = train(config, tmp_path / "whole")
    train(asynchronous, tmp_path / "parts", StopAfter(looks // 3))
    assert resume(tmp_path / "parts") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    "case",
    often(["dqn n-step, 3 envs", "reinforce box actions, 4 envs", "q_learning per episode"], ["dqn n-step, 3 envs"]),
)
def test_an_extended_run_equals_the_longer_one(case: str, tmp_path: Path) -> None:
    limits = EvalConfig(40, 3), CheckpointConfig(None, 3, True)
    config = replace(CASES[case], total_steps=80, eval=limits[0], checkpoint=limits[1], log_period=40)
    train(replace(config, total_steps=160), tmp_path / "whole")
    train(config, tmp_path / "parts")
    assert resume(tmp_path / "parts", "total_steps=160") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert "total_steps: 160" in (tmp_path / "parts" / "config.yaml").read_text()


def test_a_run_extended_past_an_odd_end_has_the_same_weights(tmp_path: Path) -> None:
    config = dqn(total_steps=131, eval=EvalConfig(None, 3), checkpoint=CheckpointConfig(None, 3, True))
    train(replace(config, total_steps=240), tmp_path / "whole")
    train(config, tmp_path / "parts")
    assert resume(tmp_path / "parts", "total_steps=240") == 0
    assert_same_data(newest(tmp_path / "whole").tensors, newest(tmp_path / "parts").tensors)
    assert [row["step"] for row in rows(tmp_path / "parts")] == [50, 100, 131, 150, 200, 240]


def test_an_environment_that_does_not_replay_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = dqn({"n_step": 3}, env=env_config("probe_envs:Unrepeatable-v0"), num_envs=2)
    train(config, tmp_path / "run", StopAfter(30))
    capsys.readouterr()
    assert resume(tmp_path / "run") == 0
    assert "running episodes begin anew" in capsys.readouterr().out
    assert newest(tmp_path / "run").step == 110


class SignalAfter(StopSignal):
    """The real thing: sends this process a signal at a look."""

    def __init__(self, looks: int, number: int) -> None:
        super().__init__()
        self._looks_left, self._number = looks, number

    @property
    def requested(self) -> bool:
        self._looks_left -= 1
        if self._looks_left == 0:
            os.kill(os.getpid(), self._number)
        return super().requested


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_ends_with_its_exit_code(number: int, exit_code: int, tmp_path: Path) -> None:
    config = CASES["reinforce 4 envs"]
    train(config, tmp_path / "whole")
    (tmp_path / "parts").mkdir()
    with stopping(SignalAfter(12, number)), pytest.raises(Interrupted) as stopped:
        rltrain.jobs.job.train(config, tmp_path / "parts", console=False)
    assert stopped.value.exit_code == exit_code
    with stopping(SignalAfter(8, number)):
        assert main(["resume", str(tmp_path / "parts")]) == exit_code
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert resume(tmp_path / "parts") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


PROCESS = [
    "hydra.run.dir=run", "tuned=none", "total_steps=6_000", "env=probe_envs:Walk-v0", "algo=reinforce", "num_envs=4",
    "network.hidden=[8]", "algo.value.hidden=[8]", "algo.episodes_per_update=4", "log_period=200", "eval.period=600",
    "eval.episodes=2", "checkpoint.period=400", "device=cpu", "device.compile=false",
]  # fmt: skip


def wait_for_rows(run: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not (run / "metrics.jsonl").exists() or len((run / "metrics.jsonl").read_bytes().splitlines()) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def living_members(group: int) -> list[str]:
    """Processes of a process group, but for those that nobody has reaped yet."""
    stats = [path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat")]
    return [stat[0] for stat in stats if int(stat[2]) == group and stat[0] != "Z"]


@pytest.mark.slow
@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_process_that_is_told_to_stop(number: int, exit_code: int, vectorization: str, tmp_path: Path) -> None:
    """SIGINT and SIGTERM go to the whole process group, as Ctrl-C does; SIGKILL to the trainer alone."""
    process = rltrain_process(tmp_path, *PROCESS, f"env.vectorization={vectorization}")
    run = tmp_path / "run"
    wait_for_rows(run, 4, process)
    sent = time.monotonic()
    (os.kill if number == signal.SIGKILL else os.killpg)(process.pid, number)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == exit_code
    assert "Traceback" not in stderr and len(stderr.splitlines()) <= 2
    while living_members(process.pid):
        assert time.monotonic() - sent < 10
        time.sleep(0.01)
    status = json.loads((run / "run.json").read_text())["status"]
    assert status == ("running" if number == signal.SIGKILL else "interrupted")
    # In processes too: runs inside this one report fewer episodes, and play them in fewer environments.
    for args in (["resume", "run"], [*PROCESS, "hydra.run.dir=whole"]):
        process = rltrain_process(tmp_path, *args)
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert_same_run(tmp_path / "whole", run)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["dqn 3 envs", "reinforce 4 envs"])
def test_compiled_updates_stop_and_continue(case: str, tmp_path: Path) -> None:
    if not has_compiler():
        pytest.skip("no C++ compiler")
    config = replace(CASES[case], device=replace(CASES[case].device, compile=True))
    looks = train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", StopAfter(looks // 2))
    assert newest(tmp_path / "parts").manifest["compile"] is True
    assert resume(tmp_path / "parts") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_resumed_run_keeps_what_auto_chose_for_compiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CASES["dqn"], device=replace(CASES["dqn"].device, compile="auto"))
    train(config, tmp_path / "run", StopAfter(60))
    before = newest(tmp_path / "run").step
    monkeypatch.setattr("rltrain.jobs.build.choose_compile", lambda *_: CompileChoice(True))
    assert resume(tmp_path / "run", "total_steps=100000", stop=StopAfter(60)) == 143
    assert newest(tmp_path / "run").manifest["compile"] is False
    assert newest(tmp_path / "run").step > before  # else it was not saved again


@pytest.mark.slow
@pytest.mark.parametrize("case", ["dqn n-step, 3 envs", "dqn stepped in the program, 3 envs"])
def test_a_run_that_is_compiled_later_stops_and_continues(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before, at and after the step at which it changes over to programs, which another process compiles."""
    if not has_compiler():
        pytest.skip("no C++ compiler")
    config = replace(CASES[case], device=replace(CASES[case].device, compile="auto"))
    choices = [CompileChoice(True, 100)]
    monkeypatch.setattr("rltrain.jobs.build.choose_compile", lambda *_: choices[-1])
    looks = train(config, tmp_path / "whole")
    assert newest(tmp_path / "whole").manifest["compile_from"] == 100
    for number, share in enumerate((0.2, 0.5, 0.9)):
        train(config, tmp_path / f"{number}", StopAfter(round(share * looks)))
        choices.append(CompileChoice(False))
        assert resume(tmp_path / f"{number}") == 0
        choices.pop()
        assert_same_run(tmp_path / "whole", tmp_path / f"{number}")


@pytest.mark.parametrize("algo", ["dqn", "reinforce"])
def test_on_every_device(algo: str, device: torch.device, tmp_path: Path) -> None:
    case = CASES["dqn n-step, 3 envs" if algo == "dqn" else "reinforce box actions, 4 envs"]
    config = replace(case, device=replace(case.device, name=device.type, deterministic=True))
    looks = train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", StopAfter(looks // 2))
    assert resume(tmp_path / "parts") == 0
    assert newest(tmp_path / "parts").manifest["device"] == str(device)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
