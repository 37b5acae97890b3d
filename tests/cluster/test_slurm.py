"""Slurm's side of a task, against a Slurm of this machine alone in which nothing ever begins."""

from __future__ import annotations

import re
from pathlib import Path

import fake_slurm
import pytest

from rltrain.cluster.runner import Runner
from rltrain.cluster.scheduler import Look
from rltrain.cluster.slurm import SlurmScheduler
from rltrain.commands import cluster
from rltrain.config.launchers import SlurmConfig, launcher_config
from rltrain.errors import RequestError
from rltrain.storage.task_folder import Task

pytest.importorskip("submitit")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of its state."""
    for name, value in fake_slurm.install(tmp_path).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "slurm" / "full").touch()
    return tmp_path / "slurm"


def scheduler(sweep: Path, **keys: object) -> SlurmScheduler:
    config = launcher_config("slurm", keys)
    assert isinstance(config, SlurmConfig)
    return SlurmScheduler(config, sweep)


def runners(sweep: Path, count: int) -> list[Runner]:
    return [Runner(str(sweep), number, ("--version",), "/", {}) for number in range(count)]


def test_the_script_asks_for_what_the_keys_say(slurm: Path, tmp_path: Path) -> None:
    keys = {
        "partition": "gpu", "account": "lab", "qos": "long", "constraint": "a100|h100", "timeout_min": 90,
        "mem_gb": 1.5, "cpus_per_task": 4, "gpus_per_node": 1, "array_parallelism": 2, "signal_delay_s": 60,
        "setup": ["module load cuda"], "additional_parameters": {"mail-user": "me@example.org", "exclusive": True},
    }  # fmt: skip
    assert scheduler(tmp_path / "sweep", **keys).submit(runners(tmp_path, 3)) == ["1_0", "1_1", "1_2"]
    script = (slurm / "1.sh").read_text()
    options = set(re.findall(r"^#SBATCH --(?!output)(.*)$", script, re.MULTILINE))
    assert options == {
        "partition=gpu", "account=lab", "qos=long", "constraint='a100|h100'", "time=90", "mem=1536MB", "nodes=1",
        "cpus-per-task=4", "gpus-per-node=1", "array=0-2%2", "signal=USR2@60", "mail-user=me@example.org", "exclusive",
        "requeue", "job-name=rltrain-sweep", "open-mode=append",
    }  # fmt: skip
    assert "\nmodule load cuda\n" in script
    assert "srun --unbuffered" in script and "--cpus-per-task=4 " in script


def test_slurm_is_asked_once_for_all_tasks(slurm: Path, tmp_path: Path) -> None:
    found = scheduler(tmp_path / "sweep")
    ids = found.submit(runners(tmp_path, 4))
    assert found.look(ids) == dict.fromkeys(ids, Look("queued"))
    for id, state in zip(ids, ("RUNNING|node7", "OUT_OF_MEMORY|node7", "CANCELLED|", "REQUEUED|"), strict=True):
        (slurm / f"{id}.state").write_text(state)
    looks = [Look("running", "node7"), Look("ended", "OUT_OF_MEMORY"), Look("cancelled", "CANCELLED"), Look("queued")]
    assert found.look(ids) == dict(zip(ids, looks, strict=True))
    (slurm / f"{ids[0]}.state").unlink()  # ended some minutes ago
    assert found.look([ids[0]]) == {ids[0]: Look("ended")}


def test_a_slurm_that_does_not_answer_has_not_lost_its_tasks(slurm: Path, tmp_path: Path) -> None:
    (tmp_path / "bin" / "squeue").write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact' >&2\nexit 1\n")
    assert scheduler(tmp_path / "sweep").look(["1_0"]) == {}


def test_tasks_that_may_be_in_the_queue_are_not_submitted_again(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They trained twice, and the first ones were in no list any more, where `squeue` had failed once."""
    monkeypatch.setattr(cluster, "_SECONDS_BETWEEN", 0.0)
    found = scheduler(tmp_path / "sweep")
    tasks = [Task(0, ("0",), *found.submit(runners(tmp_path, 1))), Task(1, ("1",))]
    asked = tmp_path / "asked"
    squeue = tmp_path / "bin" / "squeue"
    works = squeue.read_text()
    squeue.write_text(f"#!/bin/sh\necho >> {asked}\nexit 1\n")
    with pytest.raises(RequestError, match="the cluster does not tell which tasks of this sweep it still has"):
        cluster._live(tasks, found)
    assert len(asked.read_text().splitlines()) == 4
    squeue.write_text(works)
    assert cluster._live(tasks, found) == tasks[:1]


def test_a_refusal_is_one_line(slurm: Path, tmp_path: Path) -> None:
    (slurm / "refusal").write_text(
        "sbatch: error: invalid partition specified: gpus\nsbatch: error: Batch job failed\n"
    )
    with pytest.raises(RequestError, match=r"slurm: sbatch refused: sbatch: error: invalid partition specified: gpus$"):
        scheduler(tmp_path / "sweep", partition="gpus").submit(runners(tmp_path, 2))


def test_what_a_user_reads_when_the_wait_is_stopped(slurm: Path, tmp_path: Path) -> None:
    said = scheduler(tmp_path / "sweep").leave(["7_0", "7_1", "8"], "rltrain resume sweep")
    assert said == "the tasks go on in Slurm; `rltrain resume sweep` waits for them, `scancel 7 8` ends them"
