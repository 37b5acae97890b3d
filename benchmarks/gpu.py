"""`make bench-gpu`: DQN on the GPU. Prints two tables.

One update at batch 128, eager and compiled, for populations of 1 to 256 members; and training from the command line,
W1 and W32 of `make bench`, with the environments stepped one by one and batched, beside SB3. rltrain captures no CUDA
graphs yet. `--device cpu --short` shows on any machine that it works.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch

from benchmarks.speed.__main__ import BATCHED, SB3, SYNC, WORKS
from benchmarks.speed.floor import update_case
from benchmarks.speed.machine import describe
from benchmarks.speed.programs import BENCH, Ours, Skipped, Work
from rltrain.compiling import compiled
from rltrain.optimizers import eager_gradient

HIDDEN = ((64, 64), (512, 512))
MEMBERS = (1, 4, 16, 64, 256)
ROUNDS, CALLS = 20, 50


def best_us(call: Callable[[], object], device: torch.device, calls: int) -> float:
    """Microseconds per call, the fastest of the rounds; a round ends when the device has finished."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(3):
        call()
    wait()
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        wait()
        best = min(best, (time.perf_counter() - start) / calls * 1e6)
    return best


def updates(device: torch.device, members: tuple[int, ...], calls: int) -> None:
    """The first table: microseconds per update of all members."""
    print("| network | members | eager, us | compiled, us | eager / compiled | compiled, over one member |")
    print("|---|---|---|---|---|---|")
    for hidden in HIDDEN:
        alone = None
        for count in members:
            function, arguments = update_case(hidden, count, device)
            eager = update_case(hidden, count, device, eager_gradient)[0] if count == 1 else function
            program = compiled(function, function, fixed_shapes=True)
            with torch.no_grad():
                eager_us = best_us(lambda f=eager, a=arguments: f(*a), device, calls)  # type: ignore[misc]
                compiled_us = best_us(lambda f=program, a=arguments: f(*a), device, calls)  # type: ignore[misc]
            alone = compiled_us if alone is None else alone
            name = "-".join(map(str, hidden))
            ratios = f"{eager_us / compiled_us:.1f} | {compiled_us / alone:.2f}"
            print(f"| {name} | {count} | {eager_us:,.0f} | {compiled_us:,.0f} | {ratios} |", flush=True)


def training(device: torch.device, works: list[Work]) -> None:
    """The second table: environment steps per second."""
    print("\n| work | program | steps/s | over SB3 |")
    print("|---|---|---|---|")
    BENCH.mkdir(parents=True, exist_ok=True)
    for work in works:
        theirs = None
        for program in (SB3, SYNC, BATCHED):
            try:
                if isinstance(program, Ours):
                    speed = Ours(program.label, (*program.overrides, f"device={device.type}")).measure(work)
                else:
                    program.install()
                    speed = program.measure(work, "--device", device.type)
            except Skipped as reason:
                print(f"| {work.name} | {program.label} | skipped: {reason} | |", flush=True)
                continue
            rate = speed["steps_per_second"]
            theirs = rate if program is SB3 else theirs
            ratio = f"{rate / theirs:.2f}" if theirs else ""
            print(f"| {work.name} | {program.label} | {rate:,.0f} | {ratio} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--short", action="store_true", help="small populations, and no training")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("make bench-gpu: torch sees no CUDA device")
    device = torch.device(options.device)
    torch.set_num_threads(1)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    machine = describe()
    print(f"{name}, torch {machine['torch']}, {machine['date']}, commit {machine['commit']}\n")
    updates(device, MEMBERS[:2] if options.short else MEMBERS, 5 if options.short else CALLS)
    if not options.short:
        training(device, [work for work in WORKS if work.name in ("w1", "w32")])


if __name__ == "__main__":
    main()
