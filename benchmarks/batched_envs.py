"""Environments one by one (sync) and batched, timed side by side; the batched functions in NumPy and in torch.

A step is the whole of VectorEnv.step. The ways take turns, in CPU time of this process, and each figure is the fastest
of its rounds: what else the machine does then matters less. Ratios hold better than microseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch

from rltrain.config.schema import EnvConfig
from rltrain.envs.batched import BATCHED_ENVS
from rltrain.envs.batched.environment import BatchedEnvironment
from rltrain.envs.vector import VectorEnv, make_vector_env
from rltrain.seeding import derive_seed

ROUNDS = 15
LANES = (1, 10, 100, 320)
BALANCE = np.array([0.1, 0.5, 10.0, 2.0])
Way = Callable[[], float]


def seconds_of(call: Callable[[], object], calls: int) -> float:
    start = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - start) / calls


def vector_steps(id: str, vectorization: Literal["sync", "batched"], lanes: int, random: bool) -> Way:
    """Steps of all lanes; in CartPole the pole is balanced, so that few episodes end, unless `random`."""
    config = EnvConfig(id, {}, None, None, vectorization, None)
    envs = make_vector_env(config, lanes, lambda env, number: derive_seed(0, "environment", env, number))
    rng = np.random.default_rng(0)
    obs = envs.reset()

    def choose(envs: VectorEnv) -> np.ndarray:
        if envs.action_spec.kind == "box":
            return rng.uniform(-1, 1, (lanes, *envs.action_spec.shape)).astype(np.float32)
        if random or not id.startswith("CartPole"):
            return rng.integers(0, envs.action_spec.n, lanes)
        return (obs @ BALANCE > 0).astype(np.int64)

    def run() -> float:
        nonlocal obs
        steps, total = max(20, 1_000 // lanes if vectorization == "sync" else 100), 0.0
        for _ in range(steps):
            action = choose(envs)
            start = time.process_time()
            _, obs, _ = envs.step(action)
            total += time.process_time() - start
        return total / steps

    return run


def functions(env: BatchedEnvironment, discrete: bool, lanes: int) -> dict[str, Way]:
    """The bare step of a twin, without the lanes around it."""
    rng = np.random.default_rng(0)
    state = np.stack([env.start_state(rng) for _ in range(lanes)], -1).astype(np.float64)
    action: Any = rng.integers(0, 2, lanes) if discrete else rng.uniform(-1, 1, (1, lanes)).astype(np.float32)
    state_t, action_t = torch.from_numpy(state), torch.from_numpy(action)
    compiled = torch.compile(lambda state, action: env.step(torch, state, action), fullgraph=True, dynamic=False)
    with torch.inference_mode():
        compiled(state_t, action_t)

    def in_torch(step: Callable[[], object]) -> Way:
        def run() -> float:
            with torch.inference_mode():
                return seconds_of(step, 200)

        return run

    return {
        "numpy": lambda: seconds_of(lambda: env.step(np, state, action), 200),
        "torch, eager": in_torch(lambda: env.step(torch, state_t, action_t)),
        "torch, compiled": in_torch(lambda: compiled(state_t, action_t)),
    }


def microseconds(ways: dict[str, Way]) -> dict[str, float]:
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, way in ways.items():
            best[name] = min(best[name], way() * 1e6)
    return best


def main() -> None:
    torch.set_num_threads(1)
    print(f"numpy {np.__version__}, torch {torch.__version__}, one thread; us per step of all lanes\n")
    print(f"{'environment':<24} {'lanes':>5} {'sync':>8} {'batched':>8} {'ratio':>6}")
    cases = [("CartPole-v1", False, lanes) for lanes in LANES] + [("CartPole-v1", True, 320)]
    cases += [(id, True, lanes) for id in ("Acrobot-v1", "MountainCar-v0", "Pendulum-v1") for lanes in (10, 320)]
    for id, random, lanes in cases:
        times = microseconds({way: vector_steps(id, way, lanes, random) for way in ("sync", "batched")})  # type: ignore[arg-type]
        name = f"{id}, random" if random and id.startswith("CartPole") else id
        ratio = times["sync"] / times["batched"]
        print(f"{name:<24} {lanes:>5} {times['sync']:8.0f} {times['batched']:8.0f} {ratio:6.1f}", flush=True)
    print("\nthe bare functions, 320 lanes")
    for id in ("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1"):
        times = microseconds(functions(BATCHED_ENVS[id](), id != "Pendulum-v1", 320))
        print(f"{id:<24} " + "   ".join(f"{name} {us:.0f}" for name, us in times.items()), flush=True)


if __name__ == "__main__":
    main()
