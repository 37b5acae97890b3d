"""How a population's ending is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_runs import dqn_config, run_config

from rltrain.jobs.build import build
from rltrain.jobs.population_messages import population_header, population_summary
from rltrain.jobs.telling import OfJobs
from rltrain.jobs.training import Job


def ended(step: int, mean: float, solve_step: int | None = None) -> Any:
    return SimpleNamespace(step=step, solve_step=solve_step), SimpleNamespace(mean=mean)


def test_many_members_are_told_in_a_line() -> None:
    members = [ended(1000 + n, float(n), 500 if n > 90 else None) for n in range(101)]
    assert population_summary(members, 100.0) == (
        "101 jobs ended after 1,050 steps on average, greedy return 50.0 on average (0.0 to 100.0), 1 solved"
    )
    assert "solved" not in population_summary(members, None)


@pytest.mark.parametrize(("in_pool", "begins"), [(True, "jobs 8 to 10  step 200/400 of each"), (False, "step 200/400")])
def test_populations_side_by_side_say_of_which_jobs_they_speak(
    in_pool: bool, begins: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rltrain.loggers.pace.LINE_SECONDS", 0.0)
    configs = [run_config(dqn_config(), seed=seed, total_steps=400) for seed in range(3)]
    jobs = [Job(config, tmp_path / str(number)) for config, number in zip(configs, (8, 9, 10), strict=True)]
    for screen in OfJobs(jobs, in_pool).screens([0] * 3):
        screen.log(200, {})
    assert capsys.readouterr().err.startswith(begins)


def test_lines_of_many_jobs_with_long_names_are_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trials of a search."""
    monkeypatch.setattr("rltrain.loggers.pace.LINE_SECONDS", 0.0)
    config = run_config(dqn_config(), total_steps=400)
    jobs = [Job(config, tmp_path / f"trial_{trial}_seed_{seed}") for trial in (0, 2, 5) for seed in (7, 8, 9)]
    for screen in OfJobs(jobs, in_pool=True).screens([0] * len(jobs)):
        screen.log(200, {})
    line = capsys.readouterr().err
    assert line.startswith("jobs trial_0_seed_7 to 9 and 6 more  step 200/400 of each") and len(line) < 120
    with build(config, (config, config)) as parts:
        header = population_header([job.config for job in jobs], parts, [job.folder for job in jobs] * 3)
    assert max(map(len, header.splitlines()[1:-1])) <= 120


def test_a_header_says_in_what_jobs_differ_or_that_they_are_alike(tmp_path: Path) -> None:
    config = run_config(dqn_config())
    with build(config, (config, config)) as parts:
        for other, said in (
            (config, "2 jobs as one program, all alike"),
            (replace(config, seed=9), "differing in seed"),
        ):
            header = population_header([config, other], parts, [tmp_path / "0", tmp_path / "1"])
            assert header.splitlines()[0].endswith(said)
