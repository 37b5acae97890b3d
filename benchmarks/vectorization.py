"""What each `env.vectorization` costs: `python -m benchmarks.vectorization [--envs ID ...] [--num_envs N ...]
[--members M ...] [--compile]`, behind the numbers in rltrain/envs/choice.py.

Microseconds of processor time per vector step of all members, on one thread, without logging, by the agents and
environments of real runs: act, step, store, and the update that is due after every vector step of DQN (MLP 64-64,
batch 128; W1 for ten environments); REINFORCE, for continuous actions, steps and stores only. The ways take turns; the
tenth quantile is shown, which other programs on the machine hardly touch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from typing import cast

import numpy as np

from benchmarks.speed.programs import WORKS
from rltrain.config.application import compose
from rltrain.engine.protocol import IteratingAgent, SteppedByAgent
from rltrain.jobs.build import Parts, build

WAYS = ("sync", "batched", "compiled")
ENVS = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1")
CONTINUOUS = ("Pendulum-v1",)
ROUNDS, CALLS, SECONDS = 40, 64, 12.0


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
            left[0] = cast(IteratingAgent, agent).iterate(cast(SteppedByAgent, envs), 10**6).steps
        left[0] -= 1

    return in_one if envs.stepped_by_agent else in_parts


def seconds_of(way: Callable[[], None], calls: int) -> float:
    start = time.process_time()
    for _ in range(calls):
        way()
    return (time.process_time() - start) / calls


def overrides(env: str, num_envs: int, compile: bool) -> list[str]:
    if env in CONTINUOUS:
        never = [f"num_envs={num_envs}", f"algo.episodes_per_update={num_envs * 100_000}"]
        return ["algo=reinforce", f"env={env}", "tuned=none", "device=cpu", "total_steps=1_000_000_000", *never]
    work = [arg for arg in WORKS["w1"] if not arg.startswith(("env=", "num_envs="))]
    sizes = [f"num_envs={num_envs}", f"algo.train_period={num_envs}", "algo.learning_starts=128"]
    return [*work, f"env={env}", *sizes, f"algo.buffer_size={max(10_000, 2 * num_envs)}", f"device.compile={compile}"]


def measure(env: str, num_envs: int, members: int, compile: bool) -> dict[str, float]:
    """Microseconds per vector step, by way."""
    ways: dict[str, Callable[[], None]] = {}
    calls: dict[str, int] = {}
    with ExitStack() as stack:
        for name in WAYS:
            if name == "compiled" and env in CONTINUOUS:
                continue
            config, _ = compose([*overrides(env, num_envs, compile), f"env.vectorization={name}"])
            population = tuple(replace(config, seed=seed) for seed in range(members)) if members > 1 else ()
            way = ways[name] = iteration(stack.enter_context(build(config, population=population)))
            for _ in range(128 // num_envs + 130):
                way()
            # A block is one call of the program per step and one look at the end: whole blocks are timed.
            calls[name] = CALLS if name == "compiled" else max(4, min(CALLS, int(0.1 / seconds_of(way, 4))))
        times: dict[str, list[float]] = {name: [] for name in ways}
        until = time.monotonic() + SECONDS
        for _ in range(ROUNDS):
            for name, way in ways.items():
                times[name].append(seconds_of(way, calls[name]) * 1e6)
            if time.monotonic() > until:
                break
    return {name: float(np.quantile(found, 0.1)) for name, found in times.items()}


def main(envs: Sequence[str], counts: Sequence[int], members: Sequence[int], compile: bool) -> None:
    print(f"{'':16} members  num_envs  " + "".join(f"{name:>10}" for name in WAYS), flush=True)
    for env, of_each, num_envs in product(envs, members, counts):
        found = measure(env, num_envs, of_each, compile)
        cells = (f"{found[name]:10,.0f}" if name in found else f"{'':10}" for name in WAYS)
        print(f"{env:16} {of_each:7}  {num_envs:8}  " + "".join(cells), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", default=ENVS)
    parser.add_argument("--num_envs", nargs="+", type=int, default=(1, 4, 10, 64))
    parser.add_argument("--members", nargs="+", type=int, default=(1, 8, 32))
    parser.add_argument("--compile", action="store_true", help="compiled updates and steps")
    options = parser.parse_args()
    main(options.envs, options.num_envs, options.members, options.compile)
