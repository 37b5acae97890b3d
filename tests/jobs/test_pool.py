"""Processes of populations side by side."""

from __future__ import annotations

from dataclasses import replace
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from small_runs import dqn_config, run_config

from rltrain.jobs import pool
from rltrain.jobs.training import Job
from rltrain.machine import TASK_CORES

CONFIG = run_config(dqn_config())


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


def test_each_kind_of_device_has_places_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """CUDA's populations got the numbers of the first population's cores, on a machine with one GPU."""
    began: list[tuple[str, str | None]] = []

    def start(self: Any, number: int, place: int) -> Any:
        began.append((self._kinds[number], str(place)))
        ours, theirs = Pipe()
        theirs.close()  # it has ended
        return pool._Process(number, place, cast(Any, None), ours)

    monkeypatch.setattr(pool, "run_device", lambda config: torch.device(config.device.name))
    monkeypatch.setattr(pool, "places", lambda config: {"cpu": 3, "cuda": 1}[config.device.name])
    monkeypatch.setattr(pool._Pool, "_start", start)
    monkeypatch.setattr(pool._Pool, "_read", lambda self, ended: [1.0])
    monkeypatch.setattr(pool._Pool, "_kill", lambda self: None)
    on: dict[str, Job] = {}
    for kind in ("cpu", "cuda"):
        on[kind] = Job(replace(CONFIG, device=replace(CONFIG.device, name=cast(Any, kind))), tmp_path)
    kinds = ["cpu", "cuda", "cuda", "cpu", "cpu", "cuda"]
    assert pool.train_populations([[on[kind]] for kind in kinds]) == [[1.0]] * 6
    assert sorted(began) == [("cpu", "0"), ("cpu", "1"), ("cpu", "2"), *[("cuda", "0")] * 3]


@pytest.mark.parametrize(("index", "visible"), [(0, "0"), (1, None)])
def test_a_gpu_that_is_asked_for_by_its_number_is_seen(
    index: int, visible: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[str | None] = []

    def start(*args: Any, env: dict[str, str], **kwargs: Any) -> None:
        seen.append(env.get("CUDA_VISIBLE_DEVICES"))
        raise Started

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(pool, "run_device", lambda config: torch.device("cuda"))
    monkeypatch.setattr(pool, "places", lambda config: 1)
    monkeypatch.setattr(pool.subprocess, "Popen", start)
    job = Job(run_config(dqn_config(), device=replace(CONFIG.device, name="cuda", index=index)), tmp_path)
    with pytest.raises(Started):
        pool.train_populations([[job]] * 2)
    assert seen == [visible]
