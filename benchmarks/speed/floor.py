"""An update's time over the floor of its matrix products: `python -m benchmarks.speed.floor --threads N`.

The products of one DQN update without double Q-learning: forward of the online network on obs and of the target
network on next_obs, and backward's two per layer, less the first layer's input gradient. Each is timed as one BLAS call
into memory that is there already; for a population as one batched call. `peak` is what they would take at the rate of a
large product. The update is the agent's own learner, compiled, with drawing its batch and writing its metrics. Every
figure is the fastest of its rounds, in microseconds per member, wall time. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from benchmarks.learner import learner_of, us_per_update

BATCH, MEMBERS = 128, 32
HIDDEN = ((64, 64), (120, 84))
CPU = torch.device("cpu")
ROUNDS, ROUND_SECONDS, LEARNER_ROUNDS = 30, 0.02, 60


def best_us(call: Callable[[], object]) -> float:
    """Microseconds per call, the fastest of the rounds."""
    for _ in range(3):
        call()
    start = time.perf_counter()
    call()
    calls = max(1, int(ROUND_SECONDS / (time.perf_counter() - start)))
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        best = min(best, (time.perf_counter() - start) / calls * 1e6)
    return best


def shapes(hidden: tuple[int, ...]) -> list[tuple[int, int, int, bool, bool]]:
    """(rows, inner, columns) of every product of one update, and whether its factors lie transposed in memory, as they
    do with weights [outputs, inputs]. Of a weight's gradient and its transpose it is the wider, which is the faster."""
    sizes = (4, *hidden, 2)
    layers = list(pairwise(sizes))
    forward = [(BATCH, a, b, False, True) for a, b in layers]
    weight_grads = [(min(layer), BATCH, max(layer), True, False) for layer in layers]
    input_grads = [(BATCH, b, a, False, False) for a, b in layers[1:]]
    return [*forward, *forward, *weight_grads, *input_grads]


def products(hidden: tuple[int, ...], members: int) -> Callable[[], None]:
    leading = () if members == 1 else (members,)
    multiply = torch.mm if members == 1 else torch.bmm

    def factor(rows: int, columns: int, transposed: bool) -> Tensor:
        return torch.randn(*leading, columns, rows).mT if transposed else torch.randn(*leading, rows, columns)

    operands = [
        (factor(n, k, left), factor(k, m, right), torch.empty(*leading, n, m))
        for n, k, m, left, right in shapes(hidden)
    ]

    def run() -> None:
        for left, right, out in operands:
            multiply(left, right, out=out)

    return run


def peak_flops() -> float:
    """Floating-point operations per second of a product that fills the cores."""
    n = 1536
    left, right, out = torch.randn(n, n), torch.randn(n, n), torch.empty(n, n)
    return 2 * n**3 / (best_us(lambda: torch.mm(left, right, out=out)) / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    peak = peak_flops()
    rows = []
    for hidden in HIDDEN:
        flops = sum(2 * n * k * m for n, k, m, *_ in shapes(hidden))
        for members in (1, MEMBERS):
            learner = learner_of(hidden, members, CPU, compile=True, graphs=False)
            rows.append(
                {
                    "hidden": "-".join(map(str, hidden)),
                    "members": members,
                    "threads": options.threads,
                    "peak_us": flops / peak * 1e6,
                    "products_us": best_us(products(hidden, members)) / members,
                    "update_us": min(us_per_update(learner, CPU, LEARNER_ROUNDS)) / members,
                }
            )
    print(json.dumps({"gflops": peak / 1e9, "rows": rows}))


if __name__ == "__main__":
    main()
