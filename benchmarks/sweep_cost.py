"""The cost of a job of a sweep beside its training: `make sweep-cost`.

Sweeps of CartPole seeds that train for next to nothing: 120 steps and 20 updates of a tiny network. What they take is
composing and checking, folders, checkpoints, logs and the evaluation of 100 episodes at the end, and a little training:
an upper bound of the cost beside it. Whole processes are measured, in CPU seconds too, which other programs on the
machine change less than the time on the clock. Starting a process for each core is in the figures, and weighs on few
jobs: 3 s of CPU each.

With --until-solved: 32 seeds of tuned CartPole, most of which stop after some thousand steps and a few go on long, as a
population and job by job; nothing cached, minutes each.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

COUNTS = (1, 32, 256, 1000)
JOBS = [
    "env=CartPole-v1", "tuned=none", "total_steps=120", "algo.learning_starts=100", "algo.batch_size=16",
    "network.hidden=[8]", "eval.period=null", "device=cpu",
]  # fmt: skip


UNTIL_SOLVED = ["env=CartPole-v1", "seed=range(1000,1032)", "device=cpu"]


class Cost(NamedTuple):
    """Of a whole command: seconds on the clock and of all its processes' CPU time, the lines that it printed."""

    wall: float
    cpu: float
    lines: int


def cost(place: Path, *overrides: str, code: int = 0) -> Cost:
    """Runs `rltrain -m` in `place`, which shall end with this exit code. Nothing is in the compiler's cache."""
    command = [sys.executable, "-m", "rltrain", "-m", *overrides]
    printed, started = place / "printed.txt", time.perf_counter()
    with printed.open("w") as file, tempfile.TemporaryDirectory() as cache:
        env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache}
        process = subprocess.Popen(command, cwd=place, stdout=file, stderr=subprocess.STDOUT, env=env)
        _, status, used = os.wait4(process.pid, 0)  # with those of its own children that it has waited for
    wall, text = time.perf_counter() - started, printed.read_text()
    if os.waitstatus_to_exitcode(status) != code:
        sys.exit(text)
    return Cost(wall, used.ru_utime + used.ru_stime, text.count("\n"))


def until_solved() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("population", "basic"):
            found = cost(Path(scratch), *UNTIL_SOLVED, f"hydra/launcher={name}")
            print(f"hydra/launcher={name:<12} {found.wall:>8.1f} s {found.cpu:>8.1f} s of CPU", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("counts", nargs="*", type=int, default=COUNTS, help="of jobs")
    parser.add_argument("--until-solved", action="store_true", help="seeds that stop once they are solved")
    options = parser.parse_args()
    if options.until_solved:
        until_solved()
    else:
        per_job(options.counts)


def per_job(counts: Sequence[int]) -> None:
    print(f"{'jobs':>6} {'wall s':>8} {'CPU s':>8} {'CPU ms per further job':>24} {'lines':>6}")
    first: Cost | None = None
    with tempfile.TemporaryDirectory() as scratch:
        for count in counts:
            found = cost(Path(scratch), *JOBS, f"seed=range(0,{count})")
            first = first or found
            further = f"{1e3 * (found.cpu - first.cpu) / (count - counts[0]):.0f}" if count > counts[0] else "-"
            print(f"{count:>6} {found.wall:>8.1f} {found.cpu:>8.1f} {further:>24} {found.lines:>6}", flush=True)
        most = max(counts)
        refused = cost(Path(scratch), *JOBS, "algo.gamma=0.9,2", f"seed=range(0,{most})", code=2)
        print(f"checking {most} jobs, of which the next is refused: {refused.wall:.1f} s, {refused.cpu:.1f} s of CPU")


if __name__ == "__main__":
    main()
