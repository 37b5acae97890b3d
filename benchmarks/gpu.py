"""`make bench-gpu`: DQN on a GPU. Prints three tables, and writes them to outputs/bench/gpu.json.

*updates*: one gradient step at batch 128 of populations of 1 to 256 members: eager, captured in a CUDA graph, compiled,
and both. *iterations*: vector steps of ten CartPoles per member with an update each, by the agents and environments of
real runs, without logging: environments batched on the CPU, and everything on the GPU (`env.vectorization=compiled`).
*training*: W1 and W32 of `make bench` from the command line, beside SB3 on the same GPU. `--device cpu --short`
shows on any machine that it works. The page docs/results/performance.md is made of it by `make bench-render`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.learner import learner_of, us_per_update, wait
from benchmarks.speed.__main__ import BATCHED, COMPILED, SB3, SYNC
from benchmarks.speed.machine import describe
from benchmarks.speed.programs import BENCH, WORKS, Ours, Rival, Skipped, Work
from benchmarks.vectorization import iteration
from rltrain.config.application import compose
from rltrain.jobs.build import build

RESULTS = BENCH / "gpu.json"
HIDDEN = ((64, 64), (512, 512))
MEMBERS = (1, 4, 16, 64, 256)
WAYS = {"eager": (False, False), "captured": (False, True), "compiled": (True, False), "both": (True, True)}
COMPILED_MEMBERS = (1, 256)  # compiling takes most of a minute each
ITERATIONS = {
    "batched": ("env.vectorization=batched", "device.compile=false"),
    "compiled": ("env.vectorization=compiled", "device.compile=false"),
    "both": ("env.vectorization=compiled", "device.compile=true"),
}
ROUNDS = 10
# Environment steps of each seed, by program: about as many as take ten seconds.
TRAINING: dict[str, dict[Rival | Ours, int]] = {
    "w1": {SB3: 15_000, SYNC: 30_000, BATCHED: 100_000, COMPILED: 200_000},
    "w32": {SB3: 6_000, BATCHED: 30_000, COMPILED: 60_000},
}
SKIPPED_STEPS = 3_000


def updates(
    device: torch.device,
    networks: Iterable[tuple[int, ...]],
    members: Iterable[int],
    ways: Sequence[str],
    keep: Callable[[str, Any], None],
) -> None:
    print("| network | members | eager, us | captured | compiled | both | eager / captured | over one member |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for hidden in networks:
        alone = None
        for count in members:
            found: dict[str, float] = {}
            for way in ways:
                compile, graphs = WAYS[way]
                if (compile and count not in COMPILED_MEMBERS) or (graphs and device.type == "cpu"):
                    continue
                if compile and hidden != HIDDEN[0]:
                    continue
                agent = learner_of(hidden, count, device, compile, graphs)
                found[way] = float(np.median(us_per_update(agent, device, ROUNDS)))
            best = found.get("captured", found["eager"])
            alone = best if alone is None else alone
            row = {"hidden": "-".join(map(str, hidden)), "members": count, **found, "over_one": best / alone}
            keep("updates", row)
            shown = " | ".join(f"{found[way]:,.0f}" if way in found else "" for way in WAYS)
            ratio = f"{found['eager'] / best:.1f}"
            print(f"| {row['hidden']} | {count} | {shown} | {ratio} | {row['over_one']:.2f} |", flush=True)


def iterations(device: torch.device, members: Iterable[int], keep: Callable[[str, Any], None]) -> None:
    print("\n| members | batched, steps/s | all on the device, steps/s | and compiled | ratio |")
    print("|---|---|---|---|---|", flush=True)
    for count in members:
        found: dict[str, float] = {}
        for name, overrides in ITERATIONS.items():
            if name == "both" and count not in COMPILED_MEMBERS:
                continue
            config, _ = compose([*WORKS["w1"], *overrides, f"device={device.type}"])
            population = tuple(replace(config, seed=seed) for seed in range(count)) if count > 1 else ()
            with ExitStack() as stack:
                way = iteration(stack.enter_context(build(config, population=population)))
                for _ in range(1_100):  # epsilon is at its end then, and episodes are long
                    way()
                wait(device)
                calls, start = 0, time.perf_counter()
                while time.perf_counter() - start < 2.0 or calls % 64:
                    way()
                    calls += 1
                wait(device)
                found[name] = calls * config.num_envs * count / (time.perf_counter() - start)
        keep("iterations", {"members": count, **found})
        shown = " | ".join(f"{found[name]:,.0f}" if name in found else "" for name in ITERATIONS)
        print(f"| {count} | {shown} | {max(found.values()) / found['batched']:.2f} |", flush=True)


def training(device: torch.device, works: Iterable[str], keep: Callable[[str, Any], None]) -> None:
    print("\n| work | program | steps/s | over SB3 | whole process, s |")
    print("|---|---|---|---|---|", flush=True)
    BENCH.mkdir(parents=True, exist_ok=True)
    theirs = None
    for name, programs in ((work, TRAINING[work]) for work in works):
        for program, steps in programs.items():
            work = Work(name, name.upper(), steps, SKIPPED_STEPS)
            try:
                if isinstance(program, Ours):
                    ours = (*program.overrides, f"device={device.type}", "device.compile=false")
                    speed = Ours(program.label, ours).measure(work)
                else:
                    program.install()
                    speed = program.measure(work, "--device", device.type)
            except Skipped as reason:
                print(f"| {work.name} | {program.label} | skipped: {reason} | | |", flush=True)
                continue
            rate = speed["steps_per_second"]
            theirs = rate if program is SB3 else theirs
            ratio = f"{rate / theirs:.2f}" if theirs else ""
            keep("training", {"work": work.name, "program": program.label, **speed, "over_sb3": ratio})
            print(
                f"| {work.name} | {program.label} | {rate:,.0f} | {ratio} | {speed['wall_seconds']:.1f} |", flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--short", action="store_true", help="small populations, and no training")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--members", nargs="+", type=int, default=MEMBERS)
    parser.add_argument("--hidden", nargs="+", type=int, default=[hidden[0] for hidden in HIDDEN], metavar="WIDTH")
    parser.add_argument("--works", nargs="+", choices=TRAINING, default=list(TRAINING))
    parser.add_argument("--parts", nargs="+", default=("updates", "iterations", "training"))
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("make bench-gpu: torch sees no CUDA device")
    device = torch.device(options.device)
    torch.set_num_threads(1)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    results: dict[str, Any] = {"gpu": name, "machine": describe()}

    def keep(part: str, row: Any) -> None:
        results.setdefault(part, []).append(row)
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")

    print(f"{name}, torch {torch.__version__}, commit {results['machine']['commit']}\n")
    members = options.members[:2] if options.short else options.members
    hidden = [(width, width) for width in options.hidden]
    parts: dict[str, Callable[[], None]] = {
        "updates": partial(updates, device, hidden, members, options.ways, keep),
        "iterations": partial(iterations, device, members, keep),
        "training": partial(training, device, options.works, keep),
    }
    for part in options.parts:
        if part != "training" or not options.short:
            parts[part]()


if __name__ == "__main__":
    main()
