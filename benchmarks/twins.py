"""MinAtar's games and their batched twins, environment steps per second of processor time: `python -m
benchmarks.twins [--num_envs N ...] [--compile]`, random actions, one thread; `--compile` adds a twin's step and
observation, compiled.

The ways take turns; the best round is shown, which other programs on the machine hardly touch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch

from rltrain.config.schema import EnvConfig
from rltrain.envs.batched import BATCHED_ENVS
from rltrain.envs.make_vector import make_vector_env
from rltrain.seeding import derive_seed

GAMES = ("Breakout", "Freeway", "Asterix", "SpaceInvaders", "Seaquest")
ROUNDS, SECONDS = 5, 0.3
Step = Callable[[], object]


def stepped(game: str, num_envs: int, way: Literal["sync", "batched"]) -> Step:
    config = EnvConfig(f"MinAtar/{game}-v1", {}, None, None, way, None)
    envs = make_vector_env(config, num_envs, lambda env, number: derive_seed(0, "environment", env, number))
    envs.reset()
    rng = np.random.default_rng(0)
    return lambda: envs.step(rng.integers(0, envs.action_spec.n, num_envs))


def compiled(game: str, num_envs: int) -> Step:
    """The same step again and again."""
    twin = BATCHED_ENVS[f"MinAtar/{game}-v1"](use_minimal_action_set=True)

    def step(state: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, ...]:
        after, reward, terminated = twin.step(torch, state, action)
        return after, reward, terminated, twin.observe(torch, after)

    program = torch.compile(step, fullgraph=True, dynamic=False)
    state, action = torch.from_numpy(twin.from_seeds(np.arange(num_envs))), torch.arange(num_envs) % 3
    return lambda: program(state, action)


def seconds_of(way: Step) -> float:
    """Of processor time per call."""
    calls, start = 0, time.process_time()
    while (spent := time.process_time() - start) < SECONDS:
        way()
        calls += 1
    return spent / calls


def main(counts: list[int], compile: bool) -> None:
    names = ("sync", "batched", *(("compiled",) if compile else ()))
    print(f"{'':14}num_envs" + "".join(f"{name:>12}" for name in names) + "  times sync", flush=True)
    for game in GAMES:
        for count in counts:
            ways = [stepped(game, count, "sync"), stepped(game, count, "batched")]
            ways += [compiled(game, count)] if compile else []
            for way in ways:
                way()
            best = [min(column) for column in zip(*([*map(seconds_of, ways)] for _ in range(ROUNDS)), strict=True)]
            rates = "".join(f"{count / seconds:12,.0f}" for seconds in best)
            ratios = ", ".join(f"{best[0] / seconds:.1f}" for seconds in best[1:])
            print(f"{game:14}{count:8}{rates}  {ratios}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_envs", nargs="+", type=int, default=[32, 128, 512])
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    main(options.num_envs, options.compile)
