"""Signals to whole runs: stop, save and go on, at any moment, from the first; also where processes work for a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from halves import often
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import dqn_config, env_config, reinforce_config, run_config
from whole_runs import (
    COMMON_ARGS,
    SaveAndKill,
    StopAfter,
    assert_same_run,
    newest,
    record_of,
    resume,
    rltrain_here,
    rltrain_process,
    train,
)

from rltrain.compute.compiling import has_compiler
from rltrain.config.schema import CheckpointConfig, EvalConfig, RunConfig
from rltrain.storage.checkpoint_folders import has_checkpoint
from rltrain.terminal.interrupts import sigusr1_ignored

LIMITS = {
    "total_steps": 100,
    "eval": EvalConfig(30, 2),
    "log_period": 20,
    "checkpoint": CheckpointConfig(None, 3, True),
}
CONFIGS = {
    "dqn": run_config(dqn_config(n_step=3), num_envs=3, **LIMITS),
    "reinforce": run_config(reinforce_config(), num_envs=2, **LIMITS),
}


@pytest.fixture(scope="module", params=often(CONFIGS, ["dqn"]))
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, Path]:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp(request.param) / "whole"
    train(CONFIGS[request.param], folder)
    return CONFIGS[request.param], folder


class TestSaveOnRequest:
    """SIGUSR1, without the signal: the moment of each request is a test's to choose."""

    @settings(max_examples=6, deadline=None, derandomize=True)
    @given(saves=st.sets(st.integers(1, 60), min_size=1, max_size=3), after=st.integers(1, 20))
    def test_at_any_moment(self, whole: tuple[RunConfig, Path], saves: set[int], after: int) -> None:
        """In the middle of an evaluation too; then the run is killed, and goes on from the save."""
        config, uninterrupted = whole
        with tempfile.TemporaryDirectory() as temporary:
            run = Path(temporary) / "run"
            kill = SaveAndKill(saves, max(saves) + after, run)
            train(config, run, kill)
            assert has_checkpoint(run)
            assert resume(run) == 0
            assert_same_run(uninterrupted, run)

    def test_changes_nothing(self, whole: tuple[RunConfig, Path], tmp_path: Path) -> None:
        config, uninterrupted = whole
        looks = train(config, tmp_path / "counted")
        train(config, tmp_path / "run", SaveAndKill(range(1, looks + 1), None, tmp_path / "run"))
        assert_same_run(uninterrupted, tmp_path / "run")

    @pytest.mark.parametrize(
        "saves", [pytest.param({45, 76}, marks=pytest.mark.slow), pytest.param({40}, marks=pytest.mark.slow)]
    )
    def test_of_a_population(self, saves: set[int], tmp_path: Path) -> None:
        args = [*COMMON_ARGS, "total_steps=200", "num_envs=2", "algo.learning_starts=50", "algo.batch_size=8"]
        args += ["eval.period=80", "eval.episodes=2", "checkpoint.period=null", "hydra.sweep.dir=sweep", "seed=0,1"]
        args.append("env.vectorization=sync")  # which looks in every step
        (tmp_path / "whole").mkdir()
        assert rltrain_here(tmp_path / "whole", "-m", *args) == 0
        kill = SaveAndKill(saves, max(saves) + 9, tmp_path / "sweep")
        assert rltrain_here(tmp_path, "-m", *args, stop=kill) == -1
        assert {record_of(tmp_path / "sweep" / name)["status"] for name in "01"} == {"running"}
        assert all(has_checkpoint(tmp_path / "sweep" / name) for name in "01")
        assert resume(tmp_path / "sweep") == 0
        for name in "01":
            assert_same_run(tmp_path / "whole" / "sweep" / name, tmp_path / "sweep" / name)


def test_stopped_in_the_evaluation_of_the_last_step(tmp_path: Path) -> None:
    """What that evaluation finds is in the last checkpoint, though the run was saved at this step before."""
    limits = {**LIMITS, "total_steps": 90, "eval": EvalConfig(90, 4)}
    config = run_config(dqn_config(), env=env_config("probe_envs:FixedLength-v0"), **limits)
    train(config, tmp_path / "whole")
    train(config, tmp_path / "run", StopAfter(90 + 3))
    assert newest(tmp_path / "run").state["duties_from"] == 89
    assert resume(tmp_path / "run") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "run")


SHIELD = """
import subprocess, sys, time
from rltrain.terminal.interrupts import children_shielded
from rltrain.training.stopping import StopSignal
with StopSignal() as stop:
    with children_shielded("the work"):
        child = subprocess.Popen(["sleep", sys.argv[1]])
        print(child.pid, flush=True)
        child.wait()
        print(child.returncode, stop.requested, flush=True)
    time.sleep(0)
    print(stop.requested, stop.exit_code, flush=True)
    late = subprocess.Popen(["sleep", "30"])
    print(late.pid, flush=True)
    late.wait()
"""


def script(code: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


class TestChildrenShielded:
    """As the C++ compiler is, of which Ctrl-C would make a failure of compiling."""

    def test_a_child_lives_on_and_we_know_of_the_signal(self) -> None:
        with script(SHIELD, "1") as process:
            line_of(process)
            os.killpg(process.pid, signal.SIGINT)
            os.killpg(process.pid, signal.SIGUSR1)
            assert line_of(process).startswith("0 ")
            assert line_of(process) == "True 130"
            line_of(process)
            os.killpg(process.pid, signal.SIGKILL)
            assert "stopping after the work" in process.communicate()[1]

    def test_the_second_signal_ends_us_at_once(self) -> None:
        with script(SHIELD, "20") as process:
            child = int(line_of(process))
            os.kill(process.pid, signal.SIGTERM)
            time.sleep(0.5)
            assert process.poll() is None
            os.kill(process.pid, signal.SIGTERM)
            try:
                assert process.wait(5) == 143
            finally:
                os.kill(child, signal.SIGKILL)


def children_of(group: int) -> list[tuple[int, str, int]]:
    """(pid, name, group) of what lives in a process group, or descends from its leader."""
    found: dict[int, tuple[int, str, int]] = {}
    stats = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, rest = path.read_text().rpartition(")")
        except OSError:
            continue
        fields = rest.split()
        stats.append((int(path.parent.name), head.partition("(")[2], int(fields[2]), int(fields[1]), fields[0]))
    grown = True
    while grown:
        grown = False
        for pid, name, of_group, parent, state in stats:
            if pid not in found and state != "Z" and (of_group == group or parent in found or parent == group):
                found[pid] = (pid, name, of_group)
                grown = True
    return list(found.values())


def wait_until(condition: object, process: subprocess.Popen[str], seconds: float = 120) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


RUN = [
    "hydra.run.dir=run", "tuned=none", "total_steps=4_000", "env=probe_envs:Walk-v0", "algo=reinforce", "num_envs=4",
    "network.hidden=[8]", "algo.value.hidden=[8]", "algo.episodes_per_update=4", "log_period=200", "eval.period=600",
    "eval.episodes=2", "checkpoint.period=null", "device=cpu", "device.compile=false",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_sigusr1_to_the_group_saves_and_the_run_goes_on(vectorization: str, tmp_path: Path) -> None:
    process = rltrain_process(tmp_path, *RUN, f"env.vectorization={vectorization}")
    metrics, run = tmp_path / "run" / "metrics.jsonl", tmp_path / "run"
    wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") > 2, process)
    os.killpg(process.pid, signal.SIGUSR1)
    wait_until(lambda: has_checkpoint(run), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)
    saved = newest(run).step
    assert 0 < saved < 4_000
    for args in (["resume", "run"], [*RUN, "hydra.run.dir=whole"]):
        process = rltrain_process(tmp_path, *args)
        process.communicate(timeout=300)
        assert process.returncode == 0
    assert_same_run(tmp_path / "whole", run)


@pytest.mark.slow
def test_sigusr1_before_there_is_anything_to_save_does_nothing(tmp_path: Path) -> None:
    process = rltrain_process(tmp_path, *RUN, "total_steps=200")
    time.sleep(0.3)  # the interpreter has begun, torch is being imported
    for _ in range(10):
        time.sleep(0.05)
        os.killpg(process.pid, signal.SIGUSR1)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error


def test_sigusr1_to_a_process_that_has_saved_all_does_nothing() -> None:
    """Its interpreter takes a moment to end."""
    before = signal.getsignal(signal.SIGUSR1)
    try:
        with sigusr1_ignored(for_good=True):
            pass
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
        os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


BUSY = {
    "evaluating": ["eval.period=100", "eval.episodes=1000000", "checkpoint.period=null"],
    "saving": ["eval.period=null", "checkpoint.period=1", "algo.buffer_size=300000"],
}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("busy", BUSY)
def test_a_signal_while_the_run_is(busy: str, number: int, tmp_path: Path) -> None:
    args = [*COMMON_ARGS, "hydra.run.dir=run", "total_steps=100_000", "algo.learning_starts=20", "algo.batch_size=8"]
    process = rltrain_process(tmp_path, *args, "log_period=50", *BUSY[busy])
    run = tmp_path / "run"
    metrics = run / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.read_text(), process)
    if busy == "evaluating":
        time.sleep(1)  # fifty steps more, and it evaluates for as long as it is let
    else:
        wait_until(lambda: list(run.glob("checkpoints/.writing_*")), process)
    os.killpg(process.pid, number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "stopping after this step" in error and "Traceback" not in error
    assert record_of(run)["status"] == "interrupted"
    stopped = newest(run)
    assert (stopped.step, stopped.state["duties_from"]) == (100, 99) if busy == "evaluating" else stopped.step >= 50
    assert not list(run.glob("checkpoints/.*"))


SWEEP = [
    "-m", *COMMON_ARGS, "hydra.sweep.dir=sweep", "env=CartPole-v1", "num_envs=2", "algo.learning_starts=50",
    "algo.batch_size=8", "total_steps=1500", "eval.period=null", "checkpoint.period=400", "seed=range(0,8)",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("delay", [0.0, 0.5, 2.0])
def test_populations_in_processes_of_their_own_are_saved_from_the_first_instant(
    number: int, delay: float, tmp_path: Path
) -> None:
    """Two processes of four members; the signal comes while they import torch."""
    process = rltrain_process(tmp_path, *SWEEP, two_cores=True)
    wait_until(lambda: len({group for *_, group in children_of(process.pid)}) == 3, process)
    time.sleep(delay)
    sent = time.monotonic()
    os.killpg(process.pid, number)
    members = children_of(process.pid)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number, (out, error)
    assert "Traceback" not in error
    assert [pid for pid, *_ in members if Path(f"/proc/{pid}").exists()] == []
    assert time.monotonic() - sent < 30
    jobs = [tmp_path / "sweep" / str(n) for n in range(8)]
    assert {record_of(job)["status"] for job in jobs} == {"interrupted"}
    assert all(has_checkpoint(job) for job in jobs)
    process = rltrain_process(tmp_path, "resume", "sweep", two_cores=True)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, (out, error)
    assert out.count("4 jobs as one program") == 2, out


@pytest.mark.slow
def test_the_second_signal_ends_populations_at_once(tmp_path: Path) -> None:
    process = rltrain_process(tmp_path, *SWEEP, two_cores=True)
    wait_until(lambda: len({group for *_, group in children_of(process.pid)}) == 3, process)
    members = children_of(process.pid)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.3)
    sent = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(10) == 143
    assert time.monotonic() - sent < 5
    process.communicate()
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}/exe").exists() for pid, *_ in members):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_ctrl_c_while_the_compiler_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reaches the C++ compiler too, and is no failure of compiling: the run stays the compiled one that it was."""
    if not has_compiler():
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    args = [arg for arg in SWEEP[1:] if not arg.startswith(("seed=", "device.compile", "hydra."))]
    process = rltrain_process(tmp_path, *args, "hydra.run.dir=run", "device.compile=true")
    wait_until(lambda: any(name in ("cc1plus", "g++", "as", "ld") for _, name, _ in children_of(process.pid)), process)
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 130, (out, error)
    assert "Traceback" not in error
    assert "compiling failed" not in (tmp_path / "run" / "run.log").read_text()
    assert newest(tmp_path / "run").state["agent"]["gradient_steps"] > 0
