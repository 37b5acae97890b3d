"""The table at the end of a sweep: every number by hand, and that it fits the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rltrain.commands.sweep_table import SweptJob, sweep_table


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def swept(folder: Path, mean: float | None, *overrides: str, std: float = 1.0, solved: int | None = None) -> SweptJob:
    folder.mkdir()
    if mean is not None:
        returns = {"mean": mean, "std": std, "min": 0.0, "max": 9.0}
        result = {"env_step": 1000, "episodes": 100, "episode_return": returns, "threshold": None, "solve_step": solved}
        (folder / "result.json").write_text(json.dumps(result))
    return SweptJob(folder, ["env=CartPole-v1", *overrides])


def test_jobs_and_the_mean_over_the_seeds_of_each_setting(tmp_path: Path) -> None:
    """10 and 14 have mean 12 and deviation 2; 200 and 201 have 200.5 and 0.5."""
    jobs = [
        swept(tmp_path / "0", 10.0, "algo.gamma=0.9", "seed=0"),
        swept(tmp_path / "1", 14.0, "algo.gamma=0.9", "seed=1"),
        swept(tmp_path / "2", 200.0, "algo.gamma=0.99", "seed=0", std=12.0, solved=500),
        swept(tmp_path / "3", 201.0, "algo.gamma=0.99", "seed=1"),
    ]
    assert sweep_table(jobs).splitlines() == [
        "job  what differs            steps  solved at  greedy return",
        "0    algo.gamma=0.9 seed=0   1,000          -    10.0 +- 1.0",
        "1    algo.gamma=0.9 seed=1   1,000          -    14.0 +- 1.0",
        "2    algo.gamma=0.99 seed=0  1,000        500  200.0 +- 12.0",
        "3    algo.gamma=0.99 seed=1  1,000          -   201.0 +- 1.0",
        "",
        "seeds  mean over seeds  steps  solved  greedy return",
        "2      algo.gamma=0.9   1,000       -    12.0 +- 2.0",
        "2      algo.gamma=0.99  1,000  1 of 2   200.5 +- 0.5",
    ]


def test_a_job_without_a_result_is_in_no_mean(tmp_path: Path) -> None:
    jobs = [swept(tmp_path / str(seed), mean, f"seed={seed}") for seed, mean in enumerate([10.0, None, 14.0])]
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "result.json").write_text("{")
    jobs.append(SweptJob(tmp_path / "3", ["env=CartPole-v1", "seed=3"]))
    assert sweep_table(jobs).splitlines() == [
        "job  what differs  steps  greedy return",
        "0    seed=0        1,000    10.0 +- 1.0",
        "1    seed=1            -      no result",
        "2    seed=2        1,000    14.0 +- 1.0",
        "3    seed=3            -      no result",
        "",
        "seeds  mean over seeds  steps  greedy return",
        "2      all jobs         1,000    12.0 +- 2.0",
    ]


def test_without_several_seeds_there_is_no_mean_over_them(tmp_path: Path) -> None:
    jobs = [swept(tmp_path / str(n), 10.0, f"algo.gamma=0.{n}") for n in (8, 9)]
    assert len(sweep_table(jobs).splitlines()) == 3
    assert sweep_table(jobs[:1]) == "", "one job has said everything by itself"
    assert sweep_table([swept(tmp_path / "a", None, "seed=0"), swept(tmp_path / "b", None, "seed=1")]) == ""


def test_of_many_jobs_the_settings_alone_or_the_best(tmp_path: Path) -> None:
    jobs = [swept(tmp_path / str(n), float(n), f"algo.gamma=0.{n // 21 + 1}", f"seed={n % 21}") for n in range(42)]
    lines = sweep_table(jobs).splitlines()
    assert len(lines) == 3 and [line.split()[:2] for line in lines[1:]] == [["21", f"algo.gamma=0.{g}"] for g in (1, 2)]
    settings = [SweptJob(job.folder, [f"algo.alpha=0.0{n}"]) for n, job in enumerate(jobs)]
    lines = sweep_table(settings).splitlines()
    assert lines[0].startswith("best 40")
    assert [line.split()[0] for line in lines[1:]] == [str(n) for n in range(41, 1, -1)]


def test_it_fits_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    jobs = [swept(tmp_path / str(n), 10.0, f"env.kwargs.a_long_name_of_a_key_of_the_environment={n}") for n in (1, 2)]
    lines = sweep_table(jobs).splitlines()
    assert max(map(len, lines)) <= 60
    assert "env.kwargs.a_long_n" in lines[1] and "... " in lines[1]
