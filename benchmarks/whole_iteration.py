"""What one program for the whole iteration gives: `python -m benchmarks.whole_iteration [MEMBERS ...]`.

W1 on the CPU, one thread, without logging: an iteration acts, steps ten environments per member, stores the transitions
and makes one gradient step. *batched* makes it in parts, *compiled* in one program, with the agents and environments of
real runs. The two take turns; microseconds per iteration.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import cast

import numpy as np

from benchmarks.speed.programs import COMMON, WORKS
from rltrain.build import Parts, build
from rltrain.config.application import compose
from rltrain.config.schema import DQNConfig
from rltrain.engine.protocol import IteratingAgent

WAYS = ("batched", "compiled")
ROUNDS, CALLS = 50, 64


def iteration(parts: Parts) -> Callable[[], None]:
    """One vector step after the other, as the training loop makes it."""
    agent, envs = parts.agent, parts.envs
    obs = [envs.reset()]

    def in_parts() -> None:
        transition, obs[0], episodes = envs.step(agent.act(obs[0]), agent.active)
        agent.observe(transition, episodes)
        agent.update()

    left = [0]

    def in_one() -> None:
        if not left[0]:
            left[0] = cast(IteratingAgent, agent).iterate(envs, 10**6).steps
        left[0] -= 1

    return in_one if envs.stepped_by_agent else in_parts


def seconds_of(way: Callable[[], None]) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        way()
    return (time.perf_counter() - start) / CALLS


def compare(members: int) -> None:
    times = {way: np.zeros(ROUNDS) for way in WAYS}
    with ExitStack() as stack:
        ways = {}
        for name in WAYS:
            config, _ = compose([*WORKS["w1"], *COMMON, f"env.vectorization={name}"])
            population = tuple(replace(config, seed=seed) for seed in range(members)) if members > 1 else ()
            ways[name] = iteration(stack.enter_context(build(config, population=population)))
            for _ in range(2 * math.ceil(cast(DQNConfig, config.algo).learning_starts / config.num_envs) + 100):
                ways[name]()
        for number in range(ROUNDS):
            for name, way in ways.items():
                times[name][number] = seconds_of(way) * 1e6
    for name, x in times.items():
        print(f"{members:3} members, {name:8} tenth {np.quantile(x, 0.1):7.0f}, median {np.median(x):7.0f}")
    batched, compiled = (times[name] for name in WAYS)
    ratios = np.median(batched) / np.median(compiled), np.quantile(batched, 0.1) / np.quantile(compiled, 0.1)
    print(f"{members:3} members, batched / compiled: {ratios[0]:.2f} (median), {ratios[1]:.2f} (tenth)")


if __name__ == "__main__":
    for count in [int(arg) for arg in sys.argv[1:]] or [1, 16]:
        compare(count)
