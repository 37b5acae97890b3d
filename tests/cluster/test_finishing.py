"""Tasks that die are submitted again, those that keep dying are named, and the others go on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from rltrain.cluster import finishing
from rltrain.cluster.finishing import TaskLoop
from rltrain.cluster.runner import Runner
from rltrain.cluster.scheduler import Look
from rltrain.errors import Interrupted
from rltrain.storage.task_folder import Task, TaskFolder


class Cluster:
    """Runs tasks by a plan: number of a task -> how each of its tries ends, the last one for all later ones too."""

    requeues = True

    def __init__(self, sweep: Path, plan: dict[int, Sequence[str]]) -> None:
        self.sweep, self.plan = sweep, plan
        self.submitted: list[int] = []
        self.looks = 0

    def submit(self, runners: Sequence[Runner]) -> list[str]:
        ids = []
        for runner in runners:
            ids.append(f"{runner.number}_{self.submitted.count(runner.number)}")
            self.submitted.append(runner.number)
        return ids

    def look(self, ids: Collection[str]) -> dict[str, Look]:
        self.looks += 1
        return {id: self._look(*map(int, id.split("_"))) for id in ids}

    def _look(self, number: int, number_of_try: int) -> Look:
        tries = self.plan[number]
        how = tries[min(number_of_try, len(tries) - 1)]
        task = TaskFolder(self.sweep, number)
        if how in ("wait", "cancelled"):
            return Look("queued") if how == "wait" else Look("cancelled", "CANCELLED")
        if how == "late" and self.looks == 1:
            return Look("ended")
        status = {"ends": "completed", "late": "completed", "fails": "failed"}.get(how, "running")
        for job in (f"{number}a", f"{number}b"):
            (self.sweep / job).mkdir(exist_ok=True)
            (self.sweep / job / "run.json").write_text(json.dumps({"status": status}))
        if how == "stopped":
            (self.sweep / f"{number}a" / "checkpoints" / f"step_{number_of_try + 1:09}").mkdir(
                parents=True, exist_ok=True
            )
        codes = {
            "stopped": 143,
            "stuck": 143,
            "requeued": 143,
            "scancel": 143,
            "ends": 0,
            "late": 0,
            "fails": 1,
            "oom": 137,
            "half": 0,
        }
        if how in codes:
            task.log.write_text(f"the last word of {number}\n\n")
            task.write_end(codes[how])
        if how == "requeued":  # by the scheduler itself
            self.plan[number] = ["ends"]
            return Look("queued")
        return Look("cancelled", "CANCELLED") if how == "scancel" else Look("ended", "NODE_FAIL")

    def leave(self, ids: Collection[str], again: str) -> str:
        return f"left {' '.join(ids)}; `{again}`"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finishing, "_SHORTEST", 0.0)


def run(cluster: Cluster, live: Sequence[int] = (), retries: int = 2) -> dict[int, str]:
    def task(number: int) -> Task:
        return Task(number, (f"{number}a", f"{number}b"), f"{number}_0" if number in live else "")

    def runner(task: Task) -> Runner:
        return Runner(str(cluster.sweep), task.number, (), "/", {})

    numbers = cluster.plan.keys()
    for number in live:
        TaskFolder(cluster.sweep, number).make()
    loop = TaskLoop(cluster.sweep, cluster, runner, retries, lambda: None, "rltrain resume sweep")
    return loop.run([task(n) for n in numbers if n not in live], [task(n) for n in live])


def test_a_task_that_died_is_submitted_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = Cluster(tmp_path, {0: ["oom", "vanishes", "ends"], 1: ["ends"]})
    assert run(cluster) == {}
    assert cluster.submitted == [0, 1, 0, 0]
    said = capsys.readouterr().out
    assert "task 0    died: killed by signal 9: the last word of 0; is submitted again (jobs 0a, 0b)" in said
    assert "task 0    died: NODE_FAIL" in said
    assert said.endswith("tasks     0 queued, 0 running, 2 ended; 4 of 4 jobs done\n")


def test_a_task_that_keeps_dying_is_named_and_the_others_end(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, {0: ["ends"], 1: ["oom"], 2: ["vanishes", "ends"]})
    assert run(cluster) == {1: "died 3 times: killed by signal 9: the last word of 1"}
    assert cluster.submitted.count(1) == 3


def test_a_task_is_whole_only_when_its_jobs_are(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, {0: ["half", "ends"]})
    assert run(cluster) == {}
    assert cluster.submitted == [0, 0]


def test_a_job_that_fails_by_itself_is_not_tried_again(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, {0: ["fails"]})
    assert run(cluster) == {}
    assert cluster.submitted == [0]


def test_a_task_that_the_user_cancelled_stays_so(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, {0: ["cancelled"], 1: ["ends"]})
    assert list(run(cluster)) == [0]
    assert cluster.submitted == [0, 1]


def test_a_task_that_is_stopped_and_got_further_goes_back_as_often_as_it_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = Cluster(tmp_path, {0: [*["stopped"] * 5, "oom", "oom", "ends"], 1: ["requeued"]})
    assert run(cluster) == {}
    assert cluster.submitted == [0, 1, *[0] * 7]
    assert "task 0    stopped by SIGTERM, saved; is submitted again" in capsys.readouterr().out


def test_a_task_that_is_stopped_before_it_gets_further_is_given_up(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, {0: ["stopped", "stuck"], 1: ["scancel"]})
    lost = run(cluster)
    assert lost[0] == "died 3 times: stopped by SIGTERM before it got further"
    assert lost[1].startswith("was cancelled")
    assert cluster.submitted == [0, 1, 0, 0, 0]


def test_a_task_of_an_earlier_command_is_not_submitted_twice(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, {0: ["ends"], 1: ["ends"]})
    assert run(cluster, live=[0]) == {}
    assert cluster.submitted == [1]


def test_the_last_files_of_a_task_may_be_seen_late(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, {0: ["late"]})
    assert run(cluster) == {}
    assert cluster.submitted == [0]


def test_a_stop_leaves_the_tasks_and_says_how_to_go_on(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, {0: ["wait"], 1: ["ends"]})
    look = cluster.look

    def stopping(ids: Collection[str]) -> dict[str, Look]:
        if cluster.looks == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return look(ids)

    cluster.look = stopping  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="left 0_0; `rltrain resume sweep`") as stop:
        run(cluster)
    assert stop.value.exit_code == 143
