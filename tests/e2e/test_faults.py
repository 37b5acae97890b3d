"""Every fault of a run, caused for real: what is left, what is said, and how it goes on."""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from small_runs import dqn_config, reinforce_config, run_config
from whole_runs import (
    COMMON_ARGS,
    DQN_ARGS,
    KillAfter,
    StopAfter,
    assert_same_run,
    flip_a_byte,
    newest,
    one_line,
    record_of,
    resume,
    rltrain_here,
    rltrain_process,
    rows,
    train,
)

from rltrain.cli import main
from rltrain.config.schema import CheckpointConfig, EvalConfig
from rltrain.engine.episodes import EpisodeAgent
from rltrain.engine.off_policy import OffPolicyAgent
from rltrain.errors import CheckpointError, RunFailed
from rltrain.storage import checkpoint_parts
from rltrain.storage.checkpoint import newest_checkpoint, read_checkpoint
from rltrain.storage.checkpoint_folders import step_folders

RUN = run_config(
    dqn_config(buffer_size=60), total_steps=120, checkpoint=CheckpointConfig(40, 3, True), eval=EvalConfig(60, 2)
)


@contextmanager
def file_size(limit: int) -> Iterator[None]:
    """Writes beyond `limit` bytes fail like those on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped, its replay in parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_parts, "PART_BYTES", 1000)
        folder = tmp_path_factory.mktemp("flipped") / "run"
        train(RUN, folder, StopAfter(100))
    return folder


class TestFlippedBytes:
    def test_at_twenty_places_of_each_file(self, saved: Path, tmp_path: Path) -> None:
        run = Path(shutil.copytree(saved, tmp_path / "run"))
        newest_folder, *_ = reversed(step_folders(run))
        names = sorted(path.name for path in newest_folder.iterdir())
        assert len(names) >= 7, "the replay lies in parts"
        chance = random.Random(0)
        for name in names:
            path = newest_folder / name
            whole = path.read_bytes()
            for place in {0, len(whole) - 1, *(chance.randrange(len(whole)) for _ in range(18))}:
                damaged = bytearray(whole)
                damaged[place] ^= 1 << chance.randrange(8)
                path.write_bytes(damaged)
                with pytest.raises(CheckpointError) as refused:
                    read_checkpoint(newest_folder)
                assert name in str(refused.value) or "manifest.json" in str(refused.value)
                assert "\n" not in str(refused.value)
                assert newest_checkpoint(run) == step_folders(run)[-2]
            path.write_bytes(whole)
        assert newest_checkpoint(run) == newest_folder

    def test_resume_and_evaluate_say_it(self, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = Path(shutil.copytree(saved, tmp_path / "run"))
        for folder in step_folders(run):
            data = bytearray((folder / "network.safetensors").read_bytes())
            data[-1] ^= 1
            (folder / "network.safetensors").write_bytes(data)
        for command in ("evaluate", "export", "resume"):
            capsys.readouterr()
            assert main([command, str(run)]) == 2
            assert f"{step_folders(run)[-1] / 'network.safetensors'}: damaged" in one_line(capsys)
        assert record_of(run)["status"] == "interrupted"

    @pytest.mark.parametrize("kills", [True, False])
    def test_one_that_was_skipped_is_not_kept_in_place_of_what_is_saved_since(
        self, saved: Path, tmp_path: Path, kills: bool
    ) -> None:
        """With keep=1 a kill lost the whole run: each new checkpoint had gone at once, for the damaged one."""
        run = Path(shutil.copytree(saved, tmp_path / "run"))
        before, damaged = step_folders(run)[-2:]
        flip_a_byte(damaged / "replay.safetensors")
        changes = ["checkpoint.keep=1", "checkpoint.period=5"]
        assert resume(run, *changes, stop=KillAfter(1, run)) == -1
        assert {before, damaged} <= {*step_folders(run)}, "none goes before another is there"
        assert resume(run, *changes, stop=KillAfter(8, run) if kills else StopAfter(8)) == (-1 if kills else 143)
        assert damaged not in step_folders(run) and newest(run).folder == step_folders(run)[-1] != before
        assert resume(run) == 0


class TestFullDisk:
    @pytest.mark.parametrize("limit", [600, 1_500])
    def test_while_training(self, limit: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """One line that names the file; what was saved before is whole; with room again the run ends as it would."""
        train(RUN, tmp_path / "whole")
        train(RUN, tmp_path / "run", StopAfter(50))
        before = newest(tmp_path / "run").step
        capsys.readouterr()
        with file_size(limit):
            code = resume(tmp_path / "run")
        error = one_line(capsys, 2)
        assert code in (1, 2) and "cannot be" in error and str(tmp_path / "run") in error
        assert newest(tmp_path / "run").folder == step_folders(tmp_path / "run")[-1]
        assert newest(tmp_path / "run").step >= before
        assert resume(tmp_path / "run") == 0
        assert_same_run(tmp_path / "whole", tmp_path / "run")

    @pytest.mark.parametrize("mode", [[], ["-m", "seed=0,1"]])
    def test_before_the_first_file(self, mode: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with file_size(300):
            code = rltrain_here(tmp_path, *mode, *DQN_ARGS, "hydra.run.dir=run", "hydra.sweep.dir=sweep")
        assert code == 1
        assert "cannot be written: File too large" in one_line(capsys)
        assert not [path for path in tmp_path.rglob("*") if path.name in ("run.json", "metrics.jsonl")]


def _without_privileges() -> None:
    """root too is kept out by a file's mode: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH go with the next program."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP; refused to whoever has none


class TestNoPermission:
    CODE = """
import contextlib, io, json, os, sys
from rltrain.engine.episodes import EpisodeAgent
from rltrain.cli import main
for folder, *args in json.loads(sys.argv[1]):
    os.chdir(folder)
    error, out = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(out):
        code = main(args)
    print(json.dumps([code, error.getvalue(), out.getvalue()]))
"""

    def said(self, *commands: list[str]) -> list[tuple[int, str, str]]:
        done = subprocess.run(
            [sys.executable, "-c", self.CODE, json.dumps(commands)],
            preexec_fn=_without_privileges, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return [tuple(json.loads(line)) for line in done.stdout.splitlines()]

    @pytest.mark.slow
    def test_to_write(self, tmp_path: Path) -> None:
        """One line before the first step; an evaluation still says what it found."""
        run, closed = tmp_path / "run", tmp_path / "closed"
        train(RUN, run, StopAfter(50))
        closed.mkdir()
        own = (".lock", "run.log")  # which are there, and so can be written
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name not in own}
        for folder in (run, run / "checkpoints", closed):
            folder.chmod(0o555)
        alone, sweep, resumed, evaluated = self.said(
            [str(closed), *DQN_ARGS], [str(closed), "-m", *DQN_ARGS, "seed=0,1"],
            [str(tmp_path), "resume", "run"], [str(tmp_path), "evaluate", "run", "episodes=2"],
        )  # fmt: skip
        for code, error, out in (alone, sweep, resumed):
            assert code in (1, 2) and not out, error
            assert error.count("\n") == 1 and "Permission denied" in error
        code, error, out = evaluated
        assert code == 1 and "evaluation.json: cannot be written: Permission denied" in error
        assert "greedy return of 2 episodes" in out
        for folder in (run, run / "checkpoints"):
            folder.chmod(0o755)
        assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name not in own} == before
        assert not list(closed.iterdir())

    @pytest.mark.slow
    def test_to_read(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        train(RUN, run, StopAfter(50))
        closed, record = run / "checkpoints", run / "run.json"
        closed.chmod(0)
        record.chmod(0)
        commands = [[str(tmp_path), command, "run"] for command in ("resume", "evaluate", "export")]
        for code, error, _ in self.said(*commands):
            assert code == 2 and error.count("\n") == 1 and "Permission denied" in error
        closed.chmod(0o755)
        record.chmod(0o644)
        assert resume(run) == 0


class TestNotFinite:
    @pytest.mark.parametrize("algo", ["dqn", "reinforce"])
    def test_the_update_after_it_is_not_made(
        self, algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The loss of one update is poisoned; the run names it and its step, and the checkpoint before it stays."""
        config = {"dqn": dqn_config(), "reinforce": reinforce_config()}[algo]
        run = run_config(config, total_steps=4000, checkpoint=CheckpointConfig(10, 2, True))
        agent = {"dqn": OffPolicyAgent, "reinforce": EpisodeAgent}[algo]
        original, updates = agent.update, []

        def update(self: object) -> dict[str, torch.Tensor]:
            metrics: dict[str, torch.Tensor] = original(self)
            if metrics:
                updates.append(1)
            if len(updates) == 3 and metrics:
                tag = next(iter(metrics))
                return {**metrics, tag: metrics[tag] * float("nan")}
            return metrics

        monkeypatch.setattr(agent, "update", update)
        with pytest.raises(RunFailed, match=r"train/\w+ is nan at environment step \d+"):
            train(run, tmp_path / "run")
        assert len(updates) == 3
        assert record_of(tmp_path / "run")["status"] == "failed"
        for folder in step_folders(tmp_path / "run"):
            assert all(t.isfinite().all() for t in read_checkpoint(folder).tensors["network"].values())


def test_tensorboard_files_that_are_gone_or_cut(tmp_path: Path) -> None:
    """The state comes from the checkpoint: metrics and weights are those of the run that nothing befell."""
    train(RUN, tmp_path / "whole")
    for what in ("gone", "cut"):
        run = tmp_path / what
        train(RUN, run, StopAfter(100))
        (events,) = run.glob("events.*")
        if what == "gone":
            events.unlink()
        else:
            os.truncate(events, events.stat().st_size - 7)
        assert resume(run) == 0
        assert rows(run) == rows(tmp_path / "whole")
        steps = [row["step"] for row in rows(run)]
        assert steps == sorted(set(steps))


@pytest.mark.slow
def test_a_population_s_process_that_is_killed_goes_on_as_one(tmp_path: Path) -> None:
    """As a machine does that is out of memory. Slow machines only delay it."""
    args = [*COMMON_ARGS, "hydra.sweep.dir=sweep", "total_steps=6000", "checkpoint.period=300", "seed=range(0,8)"]
    args += ["eval.period=null", "algo.learning_starts=50", "algo.batch_size=8"]
    process = rltrain_process(tmp_path, "-m", *args, two_cores=True)
    sweep = tmp_path / "sweep"
    deadline = time.monotonic() + 120
    while not (sweep / "0" / "checkpoints").exists() or not step_folders(sweep / "0"):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    holder = (sweep / "0" / ".lock").read_text().split()[1]
    os.kill(int(holder), signal.SIGKILL)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 1
    assert error.count("the process that trained it died (signal SIGKILL: memory may have run out)") == 4
    assert [record_of(sweep / str(n))["status"] for n in range(8)] == ["interrupted"] * 4 + ["completed"] * 4
    process = rltrain_process(tmp_path, "resume", "sweep")
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert "4 jobs as one program" in out


def test_two_runs_that_begin_in_the_same_instant(tmp_path: Path) -> None:
    """Of the folders that they ask for, each gets one of its own; the same folder, only one of them."""
    code = """
import sys
from pathlib import Path
from rltrain.config.run_name import reserve_folder
from rltrain.errors import RequestError
sys.stdin.readline()
for number in range(50):
    try:
        print(reserve_folder(Path(sys.argv[1]) / str(number), key="hydra.run.dir" if sys.argv[2] == "exact" else None))
    except RequestError:
        print("refused")
"""
    for how in ("exact", "free"):
        command = [sys.executable, "-c", code, str(tmp_path / how), how]
        racers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        got = [racer.communicate()[0].split() for racer in racers]
        given = [folder for folders in got for folder in folders if folder != "refused"]
        assert len(given) == len(set(given)) == (50 if how == "exact" else 150)


def test_a_run_is_evaluated_while_it_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twice with the same numbers, also of a run whose device is not this one's; training does not notice."""
    found = []

    class Look(StopAfter):
        @property
        def requested(self) -> bool:
            if self.looks in (95, 96):
                capsys.readouterr()
                assert main(["evaluate", str(tmp_path / "run"), "episodes=3", "device=cpu", "--json"]) == 0
                found.append(capsys.readouterr().out)
            return super().requested

    train(RUN, tmp_path / "whole")
    train(RUN, tmp_path / "run", Look())
    assert len(found) == 2 and found[0] == found[1]
    assert json.loads(found[0])["checkpoint"] == "step_00000080"
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
def test_a_run_of_another_process_is_evaluated_while_it_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint twice with the same numbers, the run's newest while it is replaced, and no trace in the run."""
    args = [*COMMON_ARGS, "hydra.run.dir=run", "total_steps=1_000_000", "eval.period=null"]
    keep = ["checkpoint.period=200", "checkpoint.keep=1000"]
    process = rltrain_process(tmp_path, *args, *keep, "algo.learning_starts=50", "algo.batch_size=8")
    run, first = tmp_path / "run", tmp_path / "run" / "checkpoints" / "step_00000200"
    try:
        deadline = time.monotonic() + 120
        while not first.exists():
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.01)
        found = []
        for place in (first, first, run, run):
            before = len(step_folders(run))
            assert main(["evaluate", str(place), "episodes=3", "device=auto", "--json"]) == 0
            found.append(capsys.readouterr().out)
            while len(step_folders(run)) == before:  # it goes on
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
        assert record_of(run)["status"] == "running"
    finally:
        process.terminate()
        _, error = process.communicate(timeout=60)
    assert process.returncode == 143 and "Traceback" not in error
    assert found[0] == found[1] and json.loads(found[0])["env_step"] == 200
    assert 200 < json.loads(found[2])["env_step"] < json.loads(found[3])["env_step"]
    assert newest_checkpoint(run) == step_folders(run)[-1]


WRITER = """
import sys, torch
from pathlib import Path
from rltrain.experience import UniformReplay
from rltrain.storage import checkpoint_parts
from rltrain.storage.checkpoint import write_checkpoint
from rltrain.storage.checkpoint_folders import best_folder, prune, step_folder
from rltrain.types import ActionSpec, ObservationSpec
import numpy as np
checkpoint_parts.PART_BYTES = 20_000
run, first = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
vector, actions = ObservationSpec("box", (3,), "float32"), ActionSpec("discrete", (), 3)
replay = UniformReplay(5_000, vector, actions, torch.device("cpu"))
parts = checkpoint_parts.PartWriter()
print("ready", flush=True)
for step in range(first, 1_000_000):
    rows = np.full(700, step, np.float32)
    replay.add(np.repeat(rows[:, None], 3, 1), rows.astype(np.int64), rows, np.repeat(rows[:, None], 3, 1), rows)
    tensors = {"network": {"w": torch.full((20_000,), float(step))},
               "replay": {f"replay.{k}": v for k, v in replay.state_dict().items()}}
    write_checkpoint(step_folder(run, step), step=step, manifest={}, tensors=tensors, state={"step": step},
                     rings={"replay": replay.ring("replay")}, parts=parts)
    write_checkpoint(best_folder(run), step=step, manifest={}, tensors={"network": tensors["network"]}, state={})
    prune(run, 2)
"""


def kill_while_saving(run: Path, kills: int) -> None:
    """Each time the newest whole checkpoint loads, and holds what was there when it was saved."""
    chance, step, first = random.Random(kills), 1, 1
    for _ in range(kills):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(run), str(step)], stdout=subprocess.PIPE)
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 30
        while not list(run.glob(f"checkpoints/step_{step:08d}")) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.15))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        folder = newest_checkpoint(run)
        assert folder == step_folders(run)[-1]
        found = read_checkpoint(folder)
        assert found.tensors["network"]["w"].unique().tolist() == [float(found.step)]
        last = [float(s) for s in range(max(first, found.step - 7), found.step + 1)]
        assert found.tensors["replay"]["replay.reward"].unique().tolist() == last
        assert read_checkpoint(run / "checkpoints" / "best", only=["network"]).tensors
        step = first = found.step + 1


@pytest.mark.slow
def test_killed_while_saving(tmp_path: Path) -> None:
    kill_while_saving(tmp_path, 2)


@pytest.mark.faults
def test_killed_a_hundred_times_while_saving(tmp_path: Path) -> None:
    kill_while_saving(tmp_path, 100)


@pytest.mark.faults
def test_killed_a_hundred_times_while_training(tmp_path: Path) -> None:
    """A run that is killed and resumed a hundred times ends as the one that was never stopped."""
    config = run_config(
        dqn_config(buffer_size=500), total_steps=3_000, checkpoint=CheckpointConfig(7, 2, True), log_period=100
    )
    train(config, tmp_path / "whole")
    train(config, tmp_path / "run", KillAfter(20, tmp_path / "run"))
    chance = random.Random(1)
    for _ in range(100):
        assert resume(tmp_path / "run", stop=KillAfter(chance.randrange(10, 40), tmp_path / "run")) == -1
    assert resume(tmp_path / "run") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_request_that_only_the_job_can_refuse_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rltrain.errors import RequestError

    def refuse(*_: object, **__: object) -> None:
        raise RequestError("no such thing here")

    monkeypatch.setattr("rltrain.jobs.training.build", refuse)
    assert rltrain_here(tmp_path, *DQN_ARGS) == 2
    assert rltrain_here(tmp_path, "-m", *DQN_ARGS, "seed=0,1") == 2
    assert capsys.readouterr().err.splitlines() == ["rltrain: no such thing here"] * 2
    assert not list(tmp_path.glob("outputs/2*")) and not list(tmp_path.glob("outputs/multirun/*"))


def test_a_wrong_init_from_in_a_sweep_is_refused_before_the_first_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(run_config(dqn_config()), tmp_path / "good", StopAfter(3))
    train(run_config(reinforce_config()), tmp_path / "other", StopAfter(3))
    assert rltrain_here(tmp_path, "-m", *DQN_ARGS, "init_from=good,other", "seed=0,1") == 2
    error = one_line(capsys, 3)
    assert "in the job `" in error and "init_from=other seed=0`" in error and "is a network of algo=reinforce" in error
    assert not list(tmp_path.glob("outputs/multirun/*"))


def test_atoms_that_stand_for_other_returns_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    c51 = ["algo=c51", "env=probe_envs:Bandit-v0", "algo.learning_starts=8", "algo.batch_size=4", "total_steps=30"]
    c51 += ["eval.period=null", "hydra.run.dir=run", "algo.v_min=0", "algo.v_max=1"]
    assert rltrain_here(tmp_path, *c51) == 0
    capsys.readouterr()
    other = [*c51, "hydra.run.dir=next", "init_from=run"]
    assert rltrain_here(tmp_path, *other, "algo.v_max=2") == 2
    told = "its atoms span algo.v_min=0.0 algo.v_max=1.0, and those of this run algo.v_min=0.0 algo.v_max=2.0"
    assert one_line(capsys) == f"rltrain: init_from=run: {told}\n"
    assert rltrain_here(tmp_path, *other) == 0
