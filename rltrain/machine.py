"""How many cores and how much memory this process may use: those of the machine, of a container less."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rltrain.errors import RequestError

TASK_CORES = "RLTRAIN_TASK_CORES"
"""Environment variable: how many cores a task of a cluster was given of its node, or a process of a sweep."""

_PROCESS = Path("/proc")
_GROUPS = Path("/sys/fs/cgroup")


def all_cores() -> int:
    """Cores that this process is bound to, no more than its container may keep busy; it may share them with others."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([bound, *(math.ceil(quota) for group in _groups("cpu") if (quota := _quota(group)))])


def available_cores() -> int:
    """Cores that this process may use: all, or those that it was given of a cluster's node, or beside others.

    Raises:
        RequestError: what it was given is no number of cores.
    """
    return min([all_cores(), *_given()])


def free_memory() -> int:
    """Bytes of memory that can still be had."""
    try:
        lines = (_PROCESS / "meminfo").read_text().splitlines()
        free = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # another system than Linux
        free = whole_memory() // 2
    return max(0, min([free, *(_room(group) for group in _groups("memory"))]))


def whole_memory() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _given() -> Iterator[int]:
    if text := os.environ.get(TASK_CORES):
        if not (text.isdecimal() and int(text)):
            raise RequestError(f"{TASK_CORES}={text}: must be an integer >= 1, the cores that this process may use")
        yield int(text)


def _groups(controller: str) -> Iterator[Path]:
    """The control groups in which the kernel limits this process's use of `cpu` or `memory`, the innermost first.

    A container may see its own group as the root but the path to it as the host does: what is not there is passed over.
    """
    lines: list[str] = []
    with suppress(OSError):  # another system than Linux
        lines = (_PROCESS / "self" / "cgroup").read_text(errors="replace").splitlines()
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers and controller not in controllers.split(","):
            continue
        root = _GROUPS / controllers  # of version 2, which names none, the root itself
        group = root / path.strip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root) and folder.is_dir())


def _quota(group: Path) -> float | None:
    """Seconds of processor time a second that a group may use, as `docker run --cpus=2` or a pod's limit says."""
    names = ("cpu.max",) if (group / "cpu.max").exists() else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    try:
        quota, period = map(float, " ".join((group / name).read_text() for name in names).split())
    except (OSError, ValueError):  # none: `max 100000`
        return None
    return quota / period if quota > 0 and period > 0 else None  # -1: none


def _room(group: Path) -> int:
    """Bytes that a group may still take: its limit less what it uses, but for files that the kernel can drop."""
    try:
        if (group / "memory.max").exists():
            limit, used = ((group / name).read_text() for name in ("memory.max", "memory.current"))
        else:
            limit, used = ((group / f"memory.{name}_in_bytes").read_text() for name in ("limit", "usage"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(limit) - int(used) + int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
    except (OSError, ValueError):  # none: `max`
        return whole_memory()
