"""What the machine is, and how busy others keep it."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BUSY = 0.1
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX"}


def cores() -> int:
    return len(os.sched_getaffinity(0))


def describe() -> dict[str, Any]:
    """The machine and the versions, as the documentation names them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    commit = _git("describe", "--always", "--exclude", "*")
    # What the parts before have written into the page is no change of what is measured.
    if _git("status", "--porcelain", "--", ".", ":!docs/results"):
        commit += "-dirty"
    return {
        "cpu": ", ".join(sorted(models)) or platform.processor(),
        "vectors": next((VECTORS[name] for name in VECTORS if name in flags), "no AVX"),
        "cores": cores(),
        "python": platform.python_version(),
        "torch": version("torch").partition("+")[0],
        "gymnasium": version("gymnasium"),
        "commit": commit or "none",
        "date": datetime.date.today().isoformat(),
    }


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=ROOT).stdout.strip()


def busy_share(seconds: float = 1.0) -> float:
    """Share of the cores' time that others use while this process sleeps, time stolen by the host included."""

    def read() -> tuple[int, int]:
        numbers = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(numbers), numbers[3] + numbers[4]  # all, idle and waiting for disks

    total, idle = read()
    time.sleep(seconds)
    new_total, new_idle = read()
    return 1 - (new_idle - idle) / max(1, new_total - total)


def look_around() -> float:
    """The busy share now, with a warning where it would spoil what is measured next."""
    share = busy_share()
    note = "" if share < BUSY else "  <- others are at work: these figures will be too low"
    print(f"load average {os.getloadavg()[0]:.2f}, busy {share:.0%} before the measurement{note}", flush=True)
    return share
