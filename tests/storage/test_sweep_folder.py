"""The list of a sweep's jobs."""

from __future__ import annotations

from pathlib import Path

from rltrain.storage.sweep_folder import JOBS, ListedJob, SweepFolder


def test_a_long_list_is_read_again(tmp_path: Path) -> None:
    """Of 10,000 jobs it is some 25 MB."""
    sweep = SweepFolder(tmp_path)
    long = "x" * 100_000
    jobs = [ListedJob(tmp_path / str(number), {"name": long}, ("seed=0",)) for number in range(200)]
    sweep.add_jobs(jobs, ["a note"])
    assert (tmp_path / JOBS).stat().st_size > 17 << 20
    assert list(sweep.jobs().values()) == jobs and sweep.notes() == ["a note"]
    sweep.change_jobs({jobs[0].folder: {"name": "short"}}, ["name=short"], ["another"])
    assert next(iter(sweep.jobs().values())).config == {"name": "short"}
