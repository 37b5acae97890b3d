"""Processes of populations side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_runs import dqn_config, run_config

from rltrain.jobs import pool
from rltrain.jobs.training import Job
from rltrain.machine import TASK_CORES


class Started(Exception):
    """In place of a process."""


@pytest.mark.parametrize(("populations", "places", "cores"), [(3, 8, "2"), (9, 8, "1"), (5, 2, "4")])
def test_processes_side_by_side_share_the_cores(
    populations: int, places: int, cores: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[str] = []

    def start(*args: Any, env: dict[str, str], **kwargs: Any) -> None:
        seen.append(env[TASK_CORES])
        raise Started

    monkeypatch.setattr(pool, "available_cores", lambda: 8)
    monkeypatch.setattr(pool, "places", lambda config: places)
    monkeypatch.setattr(pool.subprocess, "Popen", start)
    job = Job(run_config(dqn_config()), tmp_path)
    with pytest.raises(Started):
        pool.train_populations([[job]] * populations)
    assert seen == [cores]
