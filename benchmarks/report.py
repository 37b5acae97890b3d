"""`rltrain report` on sweeps of 1,000 runs that nobody trained: seconds and peak memory. Writes nothing that stays.

python -m benchmarks.report [RUNS] [ROWS]
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = {"200 settings of 5 seeds": 200, "20 settings of 50 seeds": 20, "1 setting": 1}
"""Name -> number of settings that the runs are divided into."""


def config(setting: int, seed: int, steps: int) -> dict[str, Any]:
    """As a DQN run stores it, about."""
    return {
        "name": None, "seed": seed, "total_steps": steps, "total_episodes": None, "num_envs": 1, "log_period": 1000,
        "stop_at_return": None, "init_from": None, "dry_run": False,
        "eval": {"period": 5000, "episodes": 10, "num_envs": "auto"},
        "checkpoint": {"period": 10_000, "keep": 3, "replay": True},
        "algo": {"name": "dqn", "gamma": 0.99, "n_step": 1, "double": True, "batch_size": 128, "buffer_size": 50_000,
                 "optimizer": {"name": "adam", "lr": 1e-4 * 1.05**setting, "eps": 1e-8}},
        "network": {"name": "mlp", "hidden": [120, 84], "activation": "relu", "output_scale": 1.0},
        "env": {"id": "CartPole-v1", "kwargs": {}, "wrappers": []},
    }  # fmt: skip


def write_sweep(sweep: Path, settings: int, runs: int, rows: int) -> None:
    """A sweep as training leaves it, without its checkpoints."""
    generator = np.random.default_rng(0)
    jobs = []
    for number in range(runs):
        folder = sweep / str(number)
        folder.mkdir(parents=True)
        plain = config(number % settings, number // settings, rows * 1000)
        jobs.append({"folder": str(number), "config": plain, "overrides": [f"seed={plain['seed']}"]})
        top, noise = 300 + 200 * generator.random(), generator.normal(size=(rows, 2))
        with open(folder / "metrics.jsonl", "w") as file:
            for place in range(rows):
                file.write(json.dumps(_row(place, top * (1 - math.exp(-place / 200)), noise[place])) + "\n")
        returns = {"mean": top, "std": 9.0, "min": 0.0, "max": 500.0}
        result = {"env_step": rows * 1000, "episodes": 100, "episode_return": returns, "threshold": 475.0}
        (folder / "result.json").write_text(json.dumps({**result, "solve_step": None}))
        (folder / "run.json").write_text(json.dumps({"status": "completed", "started": 1e9, "seconds": 300.0}))
    (sweep / "jobs.json").write_text(json.dumps({"jobs": jobs, "notes": []}))


def _row(place: int, value: float, noise: np.ndarray) -> dict[str, float]:
    row: dict[str, float] = {
        "step": (place + 1) * 1000,
        "train/td_loss": 0.045203509330749514 + abs(noise[0]),
        "train/q_value": 9.218361206054688 + noise[0],
        "train/grad_norm": 0.28158218383789063,
        "rollout/episode_return": value + 20 * noise[0],
        "rollout/episode_length": value,
        "train/epsilon": 0.050000000000000044,
        "train/learning_rate": 0.0003,
        "train/gradient_steps": (place + 1) * 100.0,
        "time/steps_per_second": 3157.39956563795067,
    }
    if place % 5 == 4:
        row |= {"eval/episode_return": value + 10 * noise[1], "eval/episode_return_std": 92.03607988175072}
    return row


def measure(sweep: Path) -> tuple[float, float, float]:
    """Seconds, those of the processor, and MiB of `rltrain report sweep`, in a process of its own."""
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "rltrain", "report", str(sweep)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    runs, rows = (int(word) for word in (*sys.argv[1:3], *("1000", "1000")[len(sys.argv[1:3]) :]))
    for name, settings in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            sweep = Path(folder) / "sweep"
            write_sweep(sweep, settings, runs, rows)
            size = sum(path.stat().st_size for path in sweep.rglob("*.jsonl")) / 2**20
            seconds, worked, memory = measure(sweep)
            took = f"{seconds:.1f} s, of which the processor {worked:.1f} s, {memory:.0f} MiB"
            print(f"{runs:,} runs of {rows:,} rows ({size:,.0f} MiB), {name}: {took}", flush=True)


if __name__ == "__main__":
    main()
