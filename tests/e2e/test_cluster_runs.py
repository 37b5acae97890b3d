"""Sweeps on clusters: as tasks in this process, on a Slurm of this machine alone, and on a Ray of two nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import fake_slurm
import pytest
import torch
from halves import often
from whole_runs import assert_same_run, one_line, record_of, rltrain_here

from rltrain.cli import main
from rltrain.cluster import finishing
from rltrain.cluster.runner import Runner
from rltrain.cluster.scheduler import Look
from rltrain.commands import cluster
from rltrain.config import launchers
from rltrain.storage.locks import lock_folder
from rltrain.storage.task_folder import TaskFolder, read_tasks

TABLE = [
    "algo=q_learning", "env=FrozenLake-v1", "tuned=none", "device=cpu", "total_steps=60", "eval.period=null",
    "log_period=30", "checkpoint.period=null", "env.max_episode_steps=5",
]  # fmt: skip
SWEEP = ["-m", *TABLE, "seed=range(0,3)", "hydra.sweep.dir=sweep"]
ON_RAY = ["hydra/launcher=ray", "hydra.launcher.jobs_per_task=2"]


class Here:
    """Runs each task in this process, as it is submitted."""

    requeues = False

    def __init__(self) -> None:
        self.submitted: list[tuple[str, ...]] = []
        self.codes: list[int] = []  # of tasks that die before they begin

    def submit(self, runners: Sequence[Runner]) -> list[str]:
        for runner in runners:
            self.submitted.append(runner.words)
            code = self.codes.pop(0) if self.codes else main(list(runner.words))
            TaskFolder(Path(runner.sweep), runner.number).write_end(code)
        return [str(runner.number) for runner in runners]

    def look(self, ids: Collection[str]) -> dict[str, Look]:
        return {id: Look("ended") for id in ids}

    def leave(self, ids: Collection[str], again: str) -> str:
        raise AssertionError


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    scheduler = Here()
    monkeypatch.setattr(cluster, "_scheduler", lambda launcher, sweep: scheduler)
    monkeypatch.setattr(launchers, "find_spec", lambda name: name)
    monkeypatch.setattr(finishing, "_SHORTEST", 0.0)
    return scheduler


def rows(sweep: Path) -> Any:
    return json.loads((sweep / "sweep.json").read_text())


def test_a_sweep_of_tasks_finds_what_one_here_does(
    here: Here, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "alone").mkdir()
    assert rltrain_here(tmp_path / "alone", *SWEEP) == 0
    here.codes = [137]  # the first try of the first task dies
    assert rltrain_here(tmp_path, *SWEEP, *ON_RAY) == 0
    sweep = tmp_path / "sweep"
    assert rows(sweep) == rows(tmp_path / "alone" / "sweep")
    assert [words[2] for words in here.submitted] == ["task=0", "task=1", "task=0"]
    assert "died: killed by signal 9" in capsys.readouterr().out
    tasks = read_tasks(sweep)
    assert tasks is not None and [task.jobs for task in tasks.tasks] == [("0", "1"), ("2",)]
    assert tasks.launcher["name"] == "ray" and tasks.launcher["jobs_per_task"] == 2

    # resume knows where it was, extends there, or finishes here where that is said
    assert rltrain_here(tmp_path, "resume", "sweep", "total_steps=90") == 0
    assert [words[2:] for words in here.submitted[3:]] == [("task=0", "total_steps=90"), ("task=1", "total_steps=90")]
    assert {record_of(sweep / job)["changes"][0]["to"] for job in "012"} == {90}
    assert rltrain_here(tmp_path, "resume", "sweep", "total_steps=120", "hydra/launcher=population") == 0
    assert len(here.submitted) == 5 and record_of(sweep / "2")["changes"][1]["to"] == 120


def test_what_another_process_trains_is_left_alone(
    here: Here, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here.codes = [137] * 9
    assert rltrain_here(tmp_path, *SWEEP, *ON_RAY) == 1
    assert "task 1 died 3 times: killed by signal 9" in capsys.readouterr().err
    (tmp_path / "sweep" / "1").mkdir()
    with lock_folder(tmp_path / "sweep" / "1"):
        assert rltrain_here(tmp_path, "resume", "sweep", "hydra/launcher=population") == 1
    said, error = capsys.readouterr()
    assert f"1: in use by process {os.getpid()} on" in error and "2 of 3 jobs done" in said
    with lock_folder(tmp_path / "sweep" / "tasks" / "0"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("rltrain.storage.task_folder._PATIENCE", 0.1)
        assert rltrain_here(tmp_path, "resume", "sweep", "task=0") == 2
    assert "in use by process" in one_line(capsys)
    assert rltrain_here(tmp_path, "resume", "sweep", "task=7") == 2
    assert one_line(capsys) == "rltrain: task=7: sweep has no such task\n"


def test_a_strangers_list_of_tasks(here: Here, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here.codes = [137] * 9
    assert rltrain_here(tmp_path, *SWEEP, *ON_RAY) == 1
    listed = tmp_path / "sweep" / "tasks" / "tasks.json"
    good = json.loads(listed.read_text())
    no_jobs = {**good, "tasks": [{"jobs": "0", "id": ""}]}
    for wrong in (
        [],
        {"launcher": good["launcher"]},
        no_jobs,
        {**good, "tasks": 3},
    ):
        listed.write_text(json.dumps(wrong))
        capsys.readouterr()
        assert rltrain_here(tmp_path, "resume", "sweep") == 2
        assert "tasks.json" in one_line(capsys)
    # A task trains jobs of its sweep and no other folder.
    listed.write_text(json.dumps({**good, "tasks": [{"jobs": ["../elsewhere", "/etc"], "id": ""}]}))
    assert rltrain_here(tmp_path, "resume", "sweep", "task=0") == 0
    assert not (tmp_path / "elsewhere").exists()
    (tmp_path / "sweep" / "tasks").rename(tmp_path / "away")
    (tmp_path / "sweep" / "tasks").symlink_to(tmp_path / "away")
    capsys.readouterr()
    assert rltrain_here(tmp_path, "resume", "sweep", "task=0") == 2
    assert "is a link" in one_line(capsys)


def test_a_dry_run_tells_the_tasks_on_a_machine_without_slurm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    on_slurm = [*SWEEP, "hydra/launcher=slurm", "hydra.launcher.jobs_per_task=2"]
    assert rltrain_here(tmp_path, *on_slurm, "dry_run=true") == 0
    assert "tasks     2 tasks of hydra/launcher=slurm: jobs 0, 1; job 2\n" in capsys.readouterr().out
    assert rltrain_here(tmp_path, *on_slurm, "dry_run=true", "seed=range(0,12)") == 0
    assert "jobs 6, 7; and 2 more\n" in capsys.readouterr().out
    assert rltrain_here(tmp_path, *on_slurm, "dry_run=true", "hydra.launcher.partitoin=x") == 2
    assert rltrain_here(tmp_path, *on_slurm) == 2
    assert not (tmp_path / "sweep").exists()


REFUSALS = {
    "+hydra.job.env_set.X=1": "hydra.job.env_set: holds for jobs that run here; with hydra/launcher=ray none do",
    "+hydra.callbacks.x={}": "hydra.callbacks: are told of jobs that run here; with hydra/launcher=ray none do",
    "hydra.launcher.num_cpu=2": "hydra.launcher.num_cpu: unknown key; did you mean num_cpus?",
    "hydra.launcher.num_cpus=0": "hydra.launcher.num_cpus=0: must be >= 1",
}


@pytest.mark.parametrize("asked", often(REFUSALS, ["hydra.launcher.num_cpu=2"]))
def test_requests_that_no_cluster_can_meet(
    asked: str, here: Here, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rltrain_here(tmp_path, *SWEEP, *ON_RAY, asked) == 2
    assert one_line(capsys, 2).startswith(f"rltrain: {REFUSALS[asked]}")
    assert not (tmp_path / "sweep").exists() and here.submitted == []


@pytest.mark.slow
def test_a_gpu_is_where_the_tasks_run_not_where_they_are_submitted(here: Here, tmp_path: Path) -> None:
    here.codes = [137] * 9
    on_gpu = ["-m", "tuned=none", "seed=0,1", "device=cuda"]
    assert rltrain_here(tmp_path, *on_gpu, *ON_RAY) == 1
    assert len(here.submitted) == 3
    assert rltrain_here(tmp_path, *on_gpu, "dry_run=true") == (0 if torch.cuda.is_available() else 2)


LONG = [
    "-m", "algo=dqn", "env=CartPole-v1", "tuned=none", "device=cpu", "device.compile=false", "network.hidden=[8]",
    "total_steps=1500", "algo.batch_size=8", "algo.learning_starts=50", "eval.period=500", "eval.episodes=2",
    "checkpoint.period=100", "log_period=100", "seed=range(0,4)", "hydra.sweep.dir=sweep",
]  # fmt: skip
ON_SLURM = ["hydra/launcher=slurm", "hydra.launcher.jobs_per_task=2"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep of `LONG` in the same populations of two, on this machine."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rltrain.jobs.pool.members_of_each", lambda config, members: 2)
        patch.setattr("rltrain.jobs.pool.places", lambda config: 2)
        patch.setattr("rltrain.commands.launcher._sized_groups", lambda configs: [[0, 1], [2, 3]])
        assert rltrain_here(folder, *LONG) == 0
    return folder / "sweep"


def started(folder: Path, environment: dict[str, str], *args: str) -> subprocess.Popen[str]:
    variables = {**os.environ, **environment, "RLTRAIN_PLUGINS": "", "RLTRAIN_CONF": ""}
    return subprocess.Popen(
        [sys.executable, "-m", "rltrain", *args], cwd=folder, env=variables, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def wait_for(what: Callable[[], object], seconds: float = 100) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def saved(sweep: Path, job: int) -> bool:
    """Whether a job has a checkpoint in the middle."""
    return len(list(sweep.glob(f"{job}/checkpoints/step_*/manifest.json"))) > 1


def trainer_of(sweep: Path, task: int) -> int:
    """The process that trains the jobs of a task; 0 where none does."""
    holder = TaskFolder(sweep, task).holder
    return int(holder.split()[1]) if holder else 0


def submitted_again(out: str) -> int:
    return " ".join(out.split()).count("is submitted again")


def assert_undisturbed(sweep: Path, undisturbed: Path) -> None:
    assert rows(sweep) == rows(undisturbed)
    for job in "0123":
        assert_same_run(sweep / job, undisturbed / job)


@pytest.mark.slow
@pytest.mark.parametrize("who", ["the run", "its node"])
def test_a_task_that_is_killed_in_the_middle(undisturbed: Path, tmp_path: Path, who: str) -> None:
    """Its run alone, as when memory runs out, or all of it: the sweep ends whole, and with the same rows."""
    pytest.importorskip("submitit")
    slurm, sweep = fake_slurm.install(tmp_path), tmp_path / "sweep"
    command = started(tmp_path, slurm, *LONG, *ON_SLURM)
    wait_for(lambda: saved(sweep, 0))
    os.kill(trainer_of(sweep, 0) if who == "the run" else fake_slurm.step(slurm, "1_0"), signal.SIGKILL)
    out, error = command.communicate(timeout=200)
    assert (command.returncode, error) == (0, "")
    assert "task 0    died: " in out and submitted_again(out) == 1
    assert_undisturbed(sweep, undisturbed)


@pytest.mark.slow
def test_a_task_whose_time_is_over_goes_back_into_the_queue(undisturbed: Path, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    slurm, sweep = fake_slurm.install(tmp_path), tmp_path / "sweep"
    command = started(tmp_path, slurm, *LONG, *ON_SLURM)
    wait_for(lambda: saved(sweep, 2))
    os.kill(fake_slurm.step(slurm, "1_1"), signal.SIGUSR2)
    out, error = command.communicate(timeout=200)
    assert (command.returncode, error) == (0, "")
    assert submitted_again(out) == 0
    assert TaskFolder(sweep, 1).log.read_text().count("2 jobs as one program") == 2
    assert_undisturbed(sweep, undisturbed)


@pytest.mark.slow
def test_the_command_that_waits_may_go_and_come_back(undisturbed: Path, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    slurm, sweep = fake_slurm.install(tmp_path), tmp_path / "sweep"
    command = started(tmp_path, slurm, *LONG, *ON_SLURM, "hydra.launcher.array_parallelism=1")
    wait_for(lambda: saved(sweep, 0))
    command.send_signal(signal.SIGINT)
    _, error = command.communicate(timeout=60)
    assert command.returncode == 130
    assert error.endswith("the tasks go on in Slurm; `rltrain resume sweep` waits for them, `scancel 1` ends them\n")
    assert fake_slurm.states(slurm) == {"1_0": "RUNNING", "1_1": "PENDING"}
    again = started(tmp_path, slurm, "resume", "sweep")
    out, error = again.communicate(timeout=200)
    assert (again.returncode, error) == (0, "")
    assert set(fake_slurm.states(slurm)) == {"1_0", "1_1"}  # nothing was submitted twice
    assert "4 of 4 jobs done" in out
    assert_undisturbed(sweep, undisturbed)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster of two nodes, each with one core."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray_cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    ray_cluster.add_node(num_cpus=1)
    yield ray_cluster
    ray_cluster.shutdown()


@pytest.mark.slow
def test_a_node_of_a_ray_cluster_is_lost(nodes: Any, undisturbed: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    asked = [*ON_RAY, f"hydra.launcher.address={nodes.address}"]
    command = started(tmp_path, {}, *LONG, *asked)
    wait_for(lambda: saved(sweep, 0) and saved(sweep, 2))
    nodes.remove_node(nodes.list_all_nodes()[1], allow_graceful=False)
    nodes.add_node(num_cpus=1)
    out, error = command.communicate(timeout=300)
    assert command.returncode == 0, error
    assert submitted_again(out) == 1
    assert_undisturbed(sweep, undisturbed)


@pytest.mark.slow
def test_tasks_of_ray_save_when_the_command_is_stopped(nodes: Any, undisturbed: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    command = started(tmp_path, {}, *LONG, *ON_RAY, f"hydra.launcher.address={nodes.address}")
    wait_for(lambda: saved(sweep, 0) and saved(sweep, 2))
    command.send_signal(signal.SIGTERM)
    _, error = command.communicate(timeout=100)
    assert command.returncode == 143
    assert "the tasks were stopped and have saved; `rltrain resume sweep trust=true` finishes the sweep" in error
    assert [record_of(sweep / job)["status"] for job in "0123"] == ["interrupted"] * 4
    again = started(tmp_path, {}, "resume", "sweep", "trust=true")  # the address is of the folder's
    _, error = again.communicate(timeout=300)
    assert again.returncode == 0, error
    assert_undisturbed(sweep, undisturbed)
