"""Stable-Baselines3's DQN and PPO on the benchmark's work, and its A2C beside REINFORCE. Prints one JSON line.

One torch thread, but for Atari: on small networks its default of one per core is about half as fast. The clock starts
at `--skip` environment steps, after the first updates; `warmup_seconds` is what went before, imports left out. Differs
from the other programs where SB3 leaves no choice: the loss is Huber's always.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from typing import Any

import ale_py
import gymnasium
import numpy as np
import torch
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecFrameStack

EXPLORATION_STEPS = 10_000
SEEDS = 32
COMMON = {
    "learning_starts": 1_000,
    "batch_size": 128,
    "buffer_size": 10_000,
    "gradient_steps": 1,
    "target_update_interval": 500,  # environment steps
    "exploration_final_eps": 0.05,
}
# train_freq counts vector steps: with ten environments one update per vector step is one per ten environment steps.
WORKS: dict[str, tuple[int, dict[str, Any]]] = {
    "w1": (10, {"learning_rate": 5e-4, "train_freq": 1, "policy_kwargs": {"net_arch": [64, 64]}}),
    "cleanrl": (1, {"learning_rate": 2.5e-4, "train_freq": 10, "policy_kwargs": {"net_arch": [120, 84]}}),
}
WORKS["w32"] = WORKS["w1"]
A2C_WORKS = ("reinforce", "reinforce32")
A2C_ENVS = 16
# One update per 1,024 environment steps, some 16 episodes when learning begins.
A2C_SETTINGS: dict[str, Any] = {"n_steps": 64, "gae_lambda": 1.0, "policy_kwargs": {"net_arch": [64, 64]}}
PPO_WORKS = ("ppo", "ppo32")
# CleanRL's: four environments, 128 steps, four minibatches of 128, four epochs.
PPO_ENVS = 4
PPO_SETTINGS: dict[str, Any] = {
    "n_steps": 128, "batch_size": 128, "n_epochs": 4, "ent_coef": 0.01,
    "learning_rate": lambda left: 2.5e-4 * left,
    "policy_kwargs": {"net_arch": {"pi": [64, 64], "vf": [64, 64]}},
}  # fmt: skip
# CleanRL's for Atari, with a small replay and a short beginning, so that what is timed makes updates throughout.
ATARI: dict[str, Any] = {
    "buffer_size": 20_000, "learning_starts": 500, "batch_size": 32, "train_freq": 4, "gradient_steps": 1,
    "target_update_interval": 1_000, "learning_rate": 1e-4,
}  # fmt: skip
# RL Zoo's settings for CartPole-v1.
ZOO: dict[str, Any] = {
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1_000,
    "gamma": 0.99,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
    "policy_kwargs": {"net_arch": [256, 256]},
}
ZOO_STEPS = 50_000


class Clock(BaseCallback):
    """Notes when `skip` environment steps were done."""

    def __init__(self, skip: int) -> None:
        super().__init__()
        self.skip = skip
        self.started: tuple[int, int, float] | None = None  # environment steps, updates, time

    def _on_step(self) -> bool:
        if self.started is None and self.num_timesteps >= self.skip:
            self.started = (self.num_timesteps, self.model._n_updates, time.time())
        return True


class StopWhenSolved(BaseCallback):
    """Ten greedy episodes every 1,000 environment steps; once they reach 475, a hundred confirm it."""

    def __init__(self) -> None:
        super().__init__()
        self.env = make_vec_env("CartPole-v1", 1, seed=10_000)
        self.confirmed: float | None = None

    def _on_step(self) -> bool:
        if self.num_timesteps % 1_000 or evaluate_policy(self.model, self.env, 10)[0] < 475:
            return True
        mean = float(evaluate_policy(self.model, self.env, 100)[0])
        if mean < 475:
            return True
        self.confirmed = mean
        return False


def train(job: tuple[str, int, int, int, str]) -> dict[str, float]:
    work, steps, skip, seed, device = job
    begun = time.time()
    if work == "atari":
        gymnasium.register_envs(ale_py)
        env = VecFrameStack(make_atari_env("ALE/Breakout-v5", 1, seed=seed, env_kwargs={"frameskip": 1}), 4)
        return timed(DQN("CnnPolicy", env, seed=seed, device=device, **ATARI), steps, skip, begun)
    torch.set_num_threads(1)
    if work in A2C_WORKS:
        env = make_vec_env("CartPole-v1", A2C_ENVS, seed=seed)
        return timed(A2C("MlpPolicy", env, seed=seed, device=device, **A2C_SETTINGS), steps, skip, begun)
    if work in PPO_WORKS:
        env = make_vec_env("CartPole-v1", PPO_ENVS, seed=seed)
        return timed(PPO("MlpPolicy", env, seed=seed, device=device, **PPO_SETTINGS), steps, skip, begun)
    num_envs, settings = WORKS[work]
    env = make_vec_env("CartPole-v1", num_envs, seed=seed)
    fraction = EXPLORATION_STEPS / steps
    model = DQN("MlpPolicy", env, seed=seed, device=device, exploration_fraction=fraction, **COMMON, **settings)
    run = timed(model, steps, skip, begun)
    if abs(run["updates"] - run["steps"] / 10) > 2:
        raise SystemExit(f"{run['updates']} gradient steps in {run['steps']} environment steps, expected one in ten")
    return run


def timed(model: BaseAlgorithm, steps: int, skip: int, begun: float) -> dict[str, float]:
    clock = Clock(skip)
    model.learn(steps, callback=clock)
    end = time.time()
    assert clock.started is not None
    from_step, from_updates, start = clock.started
    done, updates = model.num_timesteps - from_step, model._n_updates - from_updates
    return {"start": start, "end": end, "steps": done, "updates": updates, "warmup": start - begun}


def covered(intervals: list[tuple[float, float]]) -> float:
    """Seconds during which at least one interval is open."""
    total, until = 0.0, -np.inf
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def throughput(work: str, steps: int, skip: int, seed: int, device: str) -> dict[str, Any]:
    if work in ("w32", "reinforce32", "ppo32"):
        cores = len(os.sched_getaffinity(0))
        with multiprocessing.get_context("spawn").Pool(cores) as pool:
            runs = pool.map(train, [(work, steps, skip, seed + k, device) for k in range(SEEDS)], chunksize=1)
    else:
        runs = [train((work, steps, skip, seed, device))]
    seconds = covered([(run["start"], run["end"]) for run in runs])
    total = sum(run["steps"] for run in runs)
    warmup = float(np.median([run["warmup"] for run in runs]))
    return {"steps_per_second": total / seconds, "warmup_seconds": warmup, "steps": total, "seconds": seconds}


def solve(seed: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    model = DQN("MlpPolicy", make_vec_env("CartPole-v1", 1, seed=seed), seed=seed, device="cpu", **ZOO)
    stop = StopWhenSolved()
    model.learn(ZOO_STEPS, callback=stop)
    return {"solved": stop.confirmed is not None, "env_steps": model.num_timesteps, "final": stop.confirmed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=(*WORKS, *A2C_WORKS, *PPO_WORKS, "atari", "solved"))
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps of each seed")
    parser.add_argument("--skip", type=int, default=2_000, help="environment steps before the clock starts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.work == "solved":
        print(json.dumps(solve(options.seed)))
    else:
        print(json.dumps(throughput(options.work, options.steps, options.skip, options.seed, options.device)))


if __name__ == "__main__":
    main()
