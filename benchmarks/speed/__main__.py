"""`make bench`: the same work in rltrain, SB3 and rejax, side by side in one sitting; docs/results/performance.md.

Every round measures each program once, one after the other, so that a slow minute of the machine meets all of them.
Parts are kept in docs/results/performance.json and replaced by later measurements of the same part, on any day.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.speed.machine import ROOT, describe, look_around
from benchmarks.speed.programs import BENCH, Ours, Outcome, Rival, Skipped, Work, fresh, json_of
from benchmarks.speed.render import render

RESULTS, CACHE = ROOT / "docs" / "results" / "performance.json", BENCH / "cache"
SB3 = Rival("sb3", "SB3", True, {})
REJAX = Rival(
    "rejax",
    "rejax",
    False,
    {
        "cleanrl": "rejax updates after every vector step, here after every tenth",
        "reinforce": "rejax has no REINFORCE",
        "reinforce32": "rejax has no REINFORCE",
    },
)
SYNC = Ours("rltrain, sync", ("env.vectorization=sync",))
BATCHED = Ours("rltrain, batched", ("env.vectorization=batched",))
COMPILED = Ours("rltrain, compiled", ("env.vectorization=compiled",))
AUTO = Ours("rltrain, as it comes", ())  # env.vectorization=auto
PROGRAMS = (SB3, REJAX, SYNC, BATCHED, COMPILED, AUTO)
WORKS = (
    Work("w1", "W1: 10 environments, MLP 64-64", 200_000, 2_000),
    Work("w32", "W32: 32 seeds of W1, steps per second in total", 60_000, 3_000),
    Work("cleanrl", "CleanRL's settings: 1 environment, MLP 120-84", 60_000, 2_000),
    Work("reinforce", "REINFORCE: 16 environments, 16 episodes per update", 400_000, 50_000),
    Work("reinforce32", "REINFORCE: 32 seeds, steps per second in total", 100_000, 20_000),
    Work("ppo", "PPO, CleanRL's settings: 4 environments, 128 steps, 4 minibatches, 4 epochs", 200_000, 5_000),
    Work("ppo32", "PPO: 32 seeds, steps per second in total", 50_000, 5_000),
    Work("atari", "Atari: DQN on Breakout, CleanRL's settings, all cores", 4_000, 1_000, (SB3.label, AUTO.label)),
)
PARTS = (*(work.name for work in WORKS), "solved", "floor", "profile")
SEEDS = range(5)


class Bench:
    """Measures parts and keeps every outcome at once; with `adds`, beside those of the same machine, day and commit."""

    def __init__(self, adds: bool) -> None:
        self._adds = adds
        self.results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}

    @contextmanager
    def part(self, name: str, begin: dict[str, Any], adds: bool = True) -> Iterator[dict[str, Any]]:
        """The record of one part: a new one, which takes the place of what was measured before, or that one."""
        part: dict[str, Any] = {"machine": describe(), "busy": [], **begin}
        kept = self.results.get(name)
        if kept is not None and adds and self._adds and all(kept.get(k) == part.get(k) for k in ("machine", "steps")):
            part = kept
        self.results[name] = part
        yield part
        self.save()

    def save(self) -> None:
        BENCH.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(part)}" for name, part in self.results.items())
        RESULTS.write_text("{\n" + lines + "\n}\n")  # a part that is measured again is one line of a change

    def attempt(self, part: dict[str, Any], label: str, kind: str, measure: Callable[[], Outcome]) -> None:
        """Appends what was measured to the row's list called `kind`; a program that cannot do it is skipped."""
        row = part["rows"].setdefault(label, {"skipped": None})
        if row["skipped"]:
            return
        part["busy"].append(look_around())
        try:
            outcome = measure()
        except Skipped as reason:
            row["skipped"] = str(reason)
            print(f"  {label}: skipped: {reason}", flush=True)
            return
        row.setdefault(kind, []).append(outcome)
        figures = {key: f"{value:,.1f}" if isinstance(value, float) else value for key, value in outcome.items()}
        print(f"  {label} ({kind}): " + ", ".join(f"{key} {value}" for key, value in figures.items()), flush=True)
        self.save()

    def throughput(self, work: Work, rounds: int) -> None:
        print(f"\n{work.title}, {work.steps:,} steps each", flush=True)
        with self.part(work.name, {"title": work.title, "steps": work.steps, "rows": {}}) as part:
            for _ in range(rounds):
                for program in PROGRAMS:
                    if not work.programs or program.label in work.programs:
                        self.attempt(part, program.label, "runs", partial(program.measure, work))

    def solved(self, rounds: int) -> None:
        """Wall time of whole commands; every program keeps its compiler's cache, and once it is empty (`cold`)."""
        print("\nfrom the shell to CartPole-v1 solved", flush=True)
        rows = {
            program.label: {"skipped": None} for program in PROGRAMS
        }  # in their order, whose turn comes first or not
        with self.part("solved", {"rows": rows}) as part:
            for number in range(rounds):
                for program in PROGRAMS:
                    if number == 0 and program is not SB3:
                        cold = fresh(_cache(program))
                        self.attempt(part, program.label, "cold", partial(program.solve, 0, cold))
                for seed in SEEDS:
                    for program in PROGRAMS:
                        self.attempt(part, program.label, "warm", partial(program.solve, seed, _cache(program)))
            shutil.rmtree(CACHE, ignore_errors=True)

    def floor(self) -> None:
        print("\nan update over the floor of its matrix products", flush=True)
        with self.part("floor", {"rows": [], "gflops": {}}, adds=False) as part:
            for threads in (1, 2):
                part["busy"].append(look_around())
                found = json_of("benchmarks.speed.floor", "--threads", str(threads))
                part["rows"] += found["rows"]
                part["gflops"][str(threads)] = found["gflops"]

    def profile(self, rounds: int) -> None:
        print("\nwhere one environment step's time goes", flush=True)
        with self.part("profile", {"rows": {}}) as part:
            for _ in range(rounds):
                for program in (SYNC, BATCHED, COMPILED):
                    arguments = ("benchmarks.speed.step_profile", *program.overrides)
                    self.attempt(part, program.label, "runs", partial(json_of, *arguments))


def _cache(program: Rival | Ours) -> Path:
    """Where its compiler keeps things; torch's cannot work where a path has a blank."""
    return CACHE / re.sub(r"\W+", "-", program.label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--add", action="store_true", help="add rounds to those of the same commit and day (not floor)")
    parser.add_argument("--quick", action="store_true", help="a fifth of the steps, to try the programs")
    parser.add_argument("--render", action="store_true", help="measure nothing; make the page from what is kept")
    options = parser.parse_args()
    bench = Bench(options.add)
    if not options.render:
        BENCH.mkdir(parents=True, exist_ok=True)
        SB3.install()
        REJAX.install()
        for work in WORKS:
            if work.name in options.only:
                steps = work.steps // 5 if options.quick else work.steps
                bench.throughput(replace(work, steps=steps), options.rounds)
        for name, measure in (
            ("floor", bench.floor),
            ("profile", lambda: bench.profile(options.rounds)),
            ("solved", lambda: bench.solved(options.rounds)),
        ):
            if name in options.only:
                measure()
    scale = BENCH / "scale.json"
    gpu = BENCH / "gpu.json"
    of_scale, of_gpu = (json.loads(path.read_text()) if path.exists() else None for path in (scale, gpu))
    page = render(bench.results, of_scale, of_gpu, ROOT / "docs" / "results")
    print(f"\n{page}\ndocs/results/performance.md and its pictures are made")


if __name__ == "__main__":
    main()
