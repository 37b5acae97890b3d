"""The tables at the end of a sweep: every number by hand, that they fit the terminal, and what the folder keeps."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rltrain.cli import main
from rltrain.commands.sweep_results import repeated_jobs
from rltrain.commands.sweep_table import report_sweep, resuming
from rltrain.storage.sweep_folder import ListedJob, SweepFolder
from rltrain.storage.task_folder import Task, TaskFolder, write_tasks

OVER_EPISODES = "+- is the standard deviation over a job's 100 episodes"
OVER_SEEDS = "+- is the sample standard deviation (n - 1) over the seeds' means"
LOST = "lost: an evaluation reached the threshold, the last network does not"


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def swept(
    folder: Path, mean: float | None, *overrides: str, std: float = 1.0, solved: int | None = None,
    threshold: float | None = None, env: str = "CartPole-v1",
) -> ListedJob:  # fmt: skip
    """A job that has ended with this greedy return (None: that has failed)."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"status": "failed" if mean is None else "completed"}))
    if mean is not None:
        returns = {"mean": mean, "std": std, "min": 0.0, "max": 9.0}
        found = {"env_step": 1000, "episodes": 100, "threshold": threshold, "solve_step": solved}
        (folder / "result.json").write_text(json.dumps({**found, "episode_return": returns}))
    seed = next((int(override[5:]) for override in overrides if override.startswith("seed=")), 0)
    return ListedJob(folder, {"seed": seed, "env": {"id": env}}, ("env=CartPole-v1", *overrides))


def reported(sweep: Path, jobs: Sequence[ListedJob], notes: Sequence[str] = ()) -> list[str]:
    """The lines of the tables."""
    folder = SweepFolder(sweep)
    folder.add_jobs(jobs, notes)
    return report_sweep(folder).splitlines()[1:-3]


def results(sweep: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((sweep / "sweep.json").read_text())
    return found


def test_jobs_and_the_mean_over_the_seeds_of_each_setting(tmp_path: Path) -> None:
    """10 and 14 have mean 12 and sample deviation sqrt(8); 200 and 201 have 200.5 and sqrt(1/2)."""
    jobs = [
        swept(tmp_path / "0", 10.0, "algo.gamma=0.9", "seed=0"),
        swept(tmp_path / "1", 14.0, "algo.gamma=0.9", "seed=1"),
        swept(tmp_path / "2", 200.0, "algo.gamma=0.99", "seed=0", std=12.0, solved=500, threshold=195.0),
        swept(tmp_path / "3", 201.0, "algo.gamma=0.99", "seed=1", threshold=210.0),
    ]
    assert reported(tmp_path, jobs) == [
        "job  what differs            steps  solved at  greedy return",
        "0    algo.gamma=0.9 seed=0   1,000          -    10.0 +- 1.0",
        "1    algo.gamma=0.9 seed=1   1,000          -    14.0 +- 1.0",
        "2    algo.gamma=0.99 seed=0  1,000        500  200.0 +- 12.0",
        "3    algo.gamma=0.99 seed=1  1,000          -   201.0 +- 1.0",
        OVER_EPISODES,
        "",
        "seeds  mean over seeds  steps  solved  greedy return",
        "2      algo.gamma=0.99  1,000  1 of 2   200.5 +- 0.7",
        "2      algo.gamma=0.9   1,000       -    12.0 +- 2.8",
        OVER_SEEDS,
    ]
    best, worst = results(tmp_path)["settings"][::-1]
    assert (best["overrides"], best["jobs"], best["solved"]) == (["algo.gamma=0.99"], ["2", "3"], 1)
    assert worst["seed_mean"] == 12.0 and worst["seed_std"] == pytest.approx(8**0.5)


def test_solved_and_lost_are_two_things(tmp_path: Path) -> None:
    """Each of the four ways in which a run can end, of an evaluation that reached it or not and a last network."""
    ends = [(480.0, 700), (480.0, None), (80.0, 700), (80.0, None)]
    jobs = [
        swept(tmp_path / str(seed), mean, f"seed={seed}", solved=solved, threshold=475.0)
        for seed, (mean, solved) in enumerate(ends)
    ]
    lines = reported(tmp_path, jobs)
    assert [re.split(r"  +", line)[3] for line in lines[1:5]] == ["700", "at the end", "700, lost", "-"]
    assert lines[5:7] == [OVER_EPISODES, LOST]
    assert "  2 of 4, 1 lost  " in lines[9] and lines[-1] == LOST
    assert [job["outcome"] for job in results(tmp_path)["jobs"]] == ["solved", "solved", "lost", "not solved"]


def test_a_job_without_a_result_is_in_no_mean(tmp_path: Path) -> None:
    jobs = [swept(tmp_path / str(seed), mean, f"seed={seed}") for seed, mean in enumerate([10.0, None, 14.0, 99.0])]
    (tmp_path / "3" / "result.json").write_text("{")
    assert reported(tmp_path, jobs) == [
        "job  what differs  steps  greedy return",
        "0    seed=0        1,000    10.0 +- 1.0",
        "1    seed=1            -      no result",
        "2    seed=2        1,000    14.0 +- 1.0",
        "3    seed=3            -      no result",
        OVER_EPISODES,
        "",
        "seeds   mean over seeds  steps  greedy return",
        "2 of 4  all jobs         1,000    12.0 +- 2.8",
        OVER_SEEDS,
    ]
    (setting,) = results(tmp_path)["settings"]
    assert (setting["jobs"], setting["seeds"]) == (["0", "2"], 4)


def test_a_result_of_a_run_that_has_gone_on_since_is_none(tmp_path: Path) -> None:
    jobs = [swept(tmp_path / str(seed), 10.0, f"seed={seed}") for seed in range(2)]
    (tmp_path / "1" / "run.json").write_text(json.dumps({"status": "interrupted"}))
    assert reported(tmp_path, jobs)[2] == "1    seed=1            -      no result"
    assert report_sweep(SweepFolder(tmp_path)).endswith(
        f"1 of 2 jobs done, in {tmp_path}\nreport    rltrain report {tmp_path}"
    )


def test_two_jobs_with_one_seed_are_one_seed(tmp_path: Path) -> None:
    """One of 0 twice, and one of 1: a mean of 12 over two seeds, not of 11.3 over three. Of seed 2, one has failed."""
    means = [(0, 10.0), (0, 10.0), (1, 14.0), (2, None), (2, 12.0)]
    jobs = [swept(tmp_path / str(n), mean, f"seed={seed}") for n, (seed, mean) in enumerate(means)]
    assert reported(tmp_path, jobs)[-2] == "3      all jobs         1,000    12.0 +- 2.0"
    assert results(tmp_path)["settings"][0]["jobs"] == ["0", "2", "4"]


def test_one_seed_twice_has_no_deviation_over_seeds(tmp_path: Path) -> None:
    jobs = [swept(tmp_path / str(n), 10.0, "seed=0") for n in range(2)]
    assert reported(tmp_path, jobs)[-1] == OVER_EPISODES
    other = [swept(tmp_path / "x" / str(n), 10.0, f"algo.gamma=0.{min(n, 1)}", f"seed={n}") for n in range(3)]
    assert reported(tmp_path / "x", other)[-3].split() == ["1", "algo.gamma=0.0", "1,000", "10.0"]


def test_jobs_with_equal_values_are_found() -> None:
    configs = [{"seed": 0, "name": "a"}, {"seed": 1, "name": None}, {"name": "b", "seed": 0}, {"seed": 2}]
    jobs = {str(n): {**config, "algo": {"name": "pqn"}} for n, config in enumerate(configs)}
    assert repeated_jobs(jobs) == [["0", "2"]]


def test_without_several_seeds_there_is_no_mean_over_them(tmp_path: Path) -> None:
    jobs = [swept(tmp_path / str(n), 10.0, f"algo.gamma=0.{n}") for n in (8, 9)]
    assert len(reported(tmp_path, jobs)) == 4
    one = tmp_path / "one"
    SweepFolder(one).add_jobs([swept(one / "0", 10.0, "seed=0")])
    assert report_sweep(SweepFolder(one)) == f"sweep     1 of 1 job done, in {one}", "the job has said the rest"
    assert results(one)["jobs"][0]["episode_return"]["mean"] == 10.0
    failed = tmp_path / "failed"
    SweepFolder(failed).add_jobs([swept(failed / "a", None, "seed=0"), swept(failed / "b", None, "seed=1")])
    assert report_sweep(SweepFolder(failed)) == f"sweep     0 of 2 jobs done, in {failed}"


def test_where_nothing_has_begun_nothing_is_written(tmp_path: Path) -> None:
    SweepFolder(tmp_path).add_jobs([ListedJob(tmp_path / name, {"seed": 0}, (f"seed={name}",)) for name in "01"])
    assert report_sweep(SweepFolder(tmp_path)) == "sweep     2 jobs, nothing was trained or written"
    assert [path.name for path in tmp_path.iterdir()] == ["jobs.json"]


def test_of_many_jobs_the_settings_alone_or_the_best(tmp_path: Path) -> None:
    """The rest is in sweep.txt."""
    jobs = [swept(tmp_path / str(n), float(n), f"algo.gamma=0.{n // 21 + 1}", f"seed={n % 21}") for n in range(42)]
    lines = reported(tmp_path, jobs)
    assert [line.split()[:2] for line in lines[1:-1]] == [["21", "algo.gamma=0.2"], ["21", "algo.gamma=0.1"]]
    assert "41   algo.gamma=0.2 seed=20  1,000    41.0 +- 1.0" in (tmp_path / "sweep.txt").read_text()
    (tmp_path / "jobs.json").unlink()
    settings = [ListedJob(job.folder, job.config, (f"algo.alpha=0.0{n}",)) for n, job in enumerate(jobs)]
    lines = reported(tmp_path, settings)
    assert lines[0].startswith("best 40")
    assert [line.split()[0] for line in lines[1:41]] == [str(n) for n in range(41, 1, -1)]
    assert lines[42] == "not shown: 2 jobs, which sweep.txt has"


def test_of_hundreds_of_settings_the_best_of_each_environment(tmp_path: Path) -> None:
    """Returns of two environments cannot be compared."""
    jobs = [
        swept(tmp_path / f"{env}{n}", sign * n / 2, f"env={env}", f"algo.gamma=0.{n // 2}", f"seed={n % 2}", env=env)
        for env, sign in (("A", -1.0), ("B", 1.0))
        for n in range(60)
    ]
    lines = reported(tmp_path, jobs)
    assert len(lines) == 1 + 40 + 2
    assert [line.split()[1:3] for line in lines[1:21]] == [["env=A", f"algo.gamma=0.{n}"] for n in range(20)]
    assert [line.split()[1:3] for line in lines[21:41]] == [["env=B", f"algo.gamma=0.{n}"] for n in range(29, 9, -1)]
    assert lines[-1] == "not shown: 20 settings, which sweep.txt has"
    assert (tmp_path / "sweep.txt").read_text().count("env=A algo.gamma=") == 60 + 30


def test_it_fits_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    key = "env.kwargs.a_long_name_of_a_key_of_the_environment"
    jobs = [swept(tmp_path / str(n), 10.0, f"{key}={n}") for n in (1, 2)]
    lines = reported(tmp_path, jobs, ["note      a note that is longer than the terminal is wide: it is wrapped"])
    assert max(map(len, lines)) <= 60
    assert [line.split()[1] for line in lines[1:3]] == [f"env.kwargs.a_long...of_the_environment={n}" for n in (1, 2)]
    assert lines[-1].startswith(" " * 10) and f"{key}=2  1,000" in (tmp_path / "sweep.txt").read_text()


def test_a_sweep_of_an_earlier_version_says_what_differs_by_its_configs(tmp_path: Path) -> None:
    jobs = [swept(tmp_path / str(n), 10.0, f"seed={n}") for n in (1, 2)]
    listed = [{"folder": job.folder.name, "config": {**(job.config or {}), "num_envs": 1}} for job in jobs]
    (tmp_path / "jobs.json").write_text(json.dumps({"jobs": listed}))
    lines = report_sweep(SweepFolder(tmp_path)).splitlines()
    assert lines[2].split() == ["1", "seed=1", "1,000", "10.0", "+-", "1.0"]


@pytest.mark.parametrize("launcher", [{"name": "ray", "address": "ray://head:10001"}, {"name": "no longer here"}])
def test_a_finished_sweep_of_a_cluster_needs_no_consent(
    launcher: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [swept(tmp_path / str(seed), 7.0, f"seed={seed}") for seed in range(2)]
    SweepFolder(tmp_path).add_jobs(jobs)
    TaskFolder(tmp_path, 0).make()
    write_tasks(tmp_path, launcher, [Task(0, ("0", "1"), "id")])
    assert main(["resume", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "completed, nothing left to do" in said and "seed=1" in said
    (tmp_path / "1" / "run.json").unlink()  # now something is left, and the folder says where it would run
    assert main(["resume", str(tmp_path)]) == 2
    assert "launcher" in capsys.readouterr().err


def test_a_stranger_s_list_of_jobs_steers_no_terminal(tmp_path: Path) -> None:
    jobs = [swept(tmp_path / str(n), 10.0, f"seed={n}", "name=\x1b[2J") for n in (1, 2)]
    listed = [
        {"folder": job.folder.name, "config": job.config, "overrides": [f"a=\x1b[2J{job.folder.name}"]} for job in jobs
    ]
    (tmp_path / "jobs.json").write_text(json.dumps({"jobs": listed, "notes": ["\x1b[2J", 7]}))
    said = report_sweep(SweepFolder(tmp_path))
    assert "\x1b" not in said and said.count("\\x1b") >= 3


def resumed(folder: Path, seed: int, *totals: int) -> ListedJob:
    """A job whose total_steps, over which its learning rate falls, resume has changed in turn; its sweep lists 900."""
    job = swept(folder, 1.0, "total_steps=900", f"seed={seed}")
    changes = [{"step": a, "key": "total_steps", "from": a, "to": b} for a, b in pairwise(totals)]
    (folder / "run.json").write_text(json.dumps({"status": "completed", "changes": changes}))
    plain = {**(job.config or {}), "total_steps": 900, "algo": {"anneal_lr": True}}
    return ListedJob(folder, plain, job.overrides)


def settings_of(sweep: Path, *jobs: ListedJob) -> list[tuple[list[str], list[str]]]:
    reported(sweep, jobs)
    return [(setting["overrides"], setting["jobs"]) for setting in results(sweep)["settings"]]


@pytest.mark.parametrize(("key", "value"), [("total_episodes", 1000), ("stop_at_return", None)])
def test_a_job_with_another_end_of_its_own_is_no_replicate(key: str, value: Any, tmp_path: Path) -> None:
    jobs = [swept(tmp_path / str(n), 1.0, f"{key}=60", f"seed={n}") for n in range(3)]
    jobs = [ListedJob(job.folder, {**(job.config or {}), key: 60}, job.overrides) for job in jobs]
    changes = [{"step": 400, "key": key, "from": 60, "to": value}]
    (tmp_path / "2" / "run.json").write_text(json.dumps({"status": "completed", "changes": changes}))
    own = f"{key}={'null' if value is None else value}"
    assert settings_of(tmp_path, *jobs) == [([], ["0", "1"]), ([own], ["2"])]
    (tmp_path / "jobs.json").unlink()
    as_all = [ListedJob(job.folder, {**(job.config or {}), key: value}, job.overrides) for job in jobs]
    assert settings_of(tmp_path, *as_all) == [([], ["0", "1", "2"])], "its sweep was given the same"


def test_changes_that_a_stranger_tells_are_no_ends(tmp_path: Path) -> None:
    job = swept(tmp_path / "0", 1.0, "seed=0")
    changes = [{"key": [], "to": 1}, {"key": "stop_at_return", "to": {"a": []}}, {"key": {}, "to": []}, {}]
    (tmp_path / "0" / "run.json").write_text(json.dumps({"status": "completed", "changes": changes}))
    assert reported(tmp_path, [job]) is not None and results(tmp_path)["jobs"][0]["overrides"] == []


def test_a_limited_final_evaluation_is_told(tmp_path: Path) -> None:
    jobs = [swept(tmp_path / str(n), 10.0, f"seed={n}") for n in (0, 1)]
    file = tmp_path / "1" / "result.json"
    limits = {"episodes_asked": 100, "episodes_cut": 3, "cut_at_step": 500}
    file.write_text(json.dumps({**json.loads(file.read_text()), "episodes": 20, **limits}))
    reported(tmp_path, jobs)
    whole, limited = results(tmp_path)["jobs"]
    assert not limits.keys() & whole.keys() and limits.items() <= limited.items()
    said = "final evaluations were limited: 20 of 100 episodes, 3 of them cut at step 500"
    assert said in " ".join((tmp_path / "sweep.txt").read_text().split())


def test_extended_jobs_of_one_seed_are_told_apart_by_what_they_were(tmp_path: Path) -> None:
    jobs = [resumed(tmp_path / str(n), n % 2, 400 if n < 2 else 500, 900) for n in range(4)]
    assert settings_of(tmp_path, *jobs) == [
        (["total_steps.before=400"], ["0", "1"]), (["total_steps.before=500"], ["2", "3"]),
    ]  # fmt: skip


def test_a_job_that_was_extended_alone_is_no_replicate(tmp_path: Path) -> None:
    jobs = [resumed(tmp_path / str(n), n, 400, 900, *([1000] if n == 1 else [])) for n in range(3)]
    assert settings_of(tmp_path, *jobs) == [([], ["0", "2"]), (["total_steps=1000"], ["1"])]
    assert re.search(r"^2 +the others .*\n1 +total_steps=1000 ", (tmp_path / "sweep.txt").read_text(), re.MULTILINE)


def test_the_command_that_resumes_a_sweep_trusts_all_that_its_jobs_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLTRAIN_PLUGINS", "")
    monkeypatch.chdir(tmp_path)
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    jobs: list[dict[str, Any]] = [{"loggers": 3}, {"env": {"id": "A-v0"}, "loggers": ["wandb"]}]
    SweepFolder(sweep).add_jobs([ListedJob(sweep / str(n), job, ()) for n, job in enumerate(jobs)])
    assert resuming(sweep) == "rltrain resume sweep"
    SweepFolder(sweep).add_jobs([ListedJob(sweep / "2", {"env": {"id": "mine:A-v0"}, "loggers": ["its:Logger"]}, ())])
    assert resuming(sweep) == "rltrain resume sweep trust=true"
    monkeypatch.setenv("RLTRAIN_PLUGINS", "mine")
    assert resuming(sweep) == "RLTRAIN_PLUGINS=mine rltrain resume sweep trust=true"
    monkeypatch.setenv("RLTRAIN_PLUGINS", "mine,its")
    assert resuming(sweep) == "RLTRAIN_PLUGINS=mine,its rltrain resume sweep"
