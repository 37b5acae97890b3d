"""Cores and memory, of the machine and of containers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from rltrain import machine
from rltrain.errors import RequestError
from rltrain.machine import TASK_CORES, available_cores, free_memory

Laid = Callable[[str, Mapping[str, str]], None]
GIB = 2**30


@pytest.fixture
def laid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Laid:
    """Lays out what Linux tells of a process on 64 cores with 100 GiB free: its groups, and files of theirs."""

    def lay(groups: str, files: Mapping[str, str]) -> None:
        of_process = {"proc/self/cgroup": groups, "proc/meminfo": f"MemTotal: 1 kB\nMemAvailable: {100 * 2**20} kB\n"}
        for name, text in {**of_process, **{f"groups/{name}": text for name, text in files.items()}}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")

    monkeypatch.setattr(machine, "_PROCESS", tmp_path / "proc")
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr(machine, "whole_memory", lambda: 256 * GIB)
    monkeypatch.delenv(TASK_CORES, raising=False)
    return lay


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/", {}, 64),
        ("0::/", {"cpu.max": "max 100000"}, 64),
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "20000 100000"}, 1),
        ("0::/pod/box", {"pod/cpu.max": "400000 100000", "pod/box/cpu.max": "max 100000"}, 4),
        ("0::/pod/box", {"cpu.max": "300000 100000"}, 3),  # the container's own group is the root that it sees
        ("4:memory:/\n3:cpu,cpuacct:/box\n0::/", {}, 64),
        (
            "4:memory:/\n3:cpu,cpuacct:/box\n0::/",
            {"cpu,cpuacct/box/cpu.cfs_quota_us": "250000", "cpu,cpuacct/box/cpu.cfs_period_us": "50000"},
            5,
        ),
        ("3:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ("0::/", {"cpu.max": "nonsense"}, 64),
        ("nonsense\n\n0::/../..", {"cpu.max": "100000 100000"}, 1),
    ],
)
def test_no_more_cores_than_a_container_may_keep_busy(
    groups: str, files: Mapping[str, str], cores: int, laid: Laid
) -> None:
    laid(groups, files)
    assert available_cores() == cores


@pytest.mark.parametrize(
    ("groups", "files", "gib"),
    [
        ("0::/", {}, 100),
        ("0::/", {"memory.max": "max", "memory.current": "1", "memory.stat": "inactive_file 0"}, 100),
        (
            "0::/",
            {"memory.max": f"{8 * GIB}", "memory.current": f"{5 * GIB}", "memory.stat": f"anon 1\ninactive_file {GIB}"},
            4,
        ),
        (
            "4:memory:/box",
            {
                "memory/box/memory.limit_in_bytes": f"{8 * GIB}",
                "memory/box/memory.usage_in_bytes": f"{6 * GIB}",
                "memory/box/memory.stat": f"inactive_file 0\ntotal_inactive_file {GIB}",
            },
            3,
        ),
        ("0::/", {"memory.max": "1", "memory.current": f"{GIB}", "memory.stat": "anon 1"}, 0),
    ],
)
def test_no_more_memory_than_a_container_has_left(groups: str, files: Mapping[str, str], gib: int, laid: Laid) -> None:
    laid(groups, files)
    assert free_memory() == gib * GIB


def test_a_share_of_the_cores_is_a_number(laid: Laid, monkeypatch: pytest.MonkeyPatch) -> None:
    laid("0::/", {"cpu.max": "400000 100000"})
    for given, cores in {"": 4, "3": 3, "99": 4}.items():
        monkeypatch.setenv(TASK_CORES, given)
        assert available_cores() == cores
    for given in ("0", "-1", "two", "2.0", "²"):
        monkeypatch.setenv(TASK_CORES, given)
        with pytest.raises(RequestError, match=f"RLTRAIN_TASK_CORES={given}: must be an integer >= 1"):
            available_cores()


def test_another_system_than_linux_has_cores_and_memory(laid: Laid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert (available_cores(), free_memory()) == (8, 128 * GIB)
