"""rejax's DQN and PPO on the benchmark's work: the whole training is one compiled program. Prints one JSON line.

Compiling is `warmup_seconds`, imports left out; then the program runs once, and that is timed. DQN learns from step 128
on, so that what is timed makes updates throughout. Differs from the other programs where rejax leaves no choice: DQN's
loss is the squared error and its batches are drawn without replacement; PPO's learning rate is constant, and its
gradients are clipped by value; a truncated episode counts as terminated.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import jax
from rejax import get_algo

EXPLORATION_STEPS = 10_000
SEEDS = 32
W1: dict[str, Any] = {
    "num_envs": 10,
    "buffer_size": 10_000,
    "fill_buffer": 128,
    "batch_size": 128,
    "num_epochs": 1,
    "learning_rate": 5e-4,
    "target_update_freq": 500,
    "polyak": 0.0,  # a hard copy
    "eps_end": 0.05,
    "ddqn": False,
    "agent_kwargs": {"activation": "relu"},
}
# CleanRL's, as far as rejax has them.
PPO: dict[str, Any] = {
    "num_envs": 4,
    "num_steps": 128,
    "num_epochs": 4,
    "num_minibatches": 4,
    "learning_rate": 2.5e-4,
    "max_grad_norm": 0.5,
    "agent_kwargs": {"activation": "tanh"},
}
# rejax's own settings for CartPole-v1, from its repository's configs.
OWN: dict[str, Any] = {
    "agent": "DuelingQNetwork",
    "agent_kwargs": {"activation": "swish"},
    "num_envs": 10,
    "buffer_size": 50_000,
    "fill_buffer": 5_000,
    "batch_size": 100,
    "max_grad_norm": 10,
    "learning_rate": 1e-3,
    "num_epochs": 5,
    "polyak": 0.98,
    "eps_end": 0.05,
    "ddqn": True,
}
OWN_STEPS, OWN_EVAL_PERIOD, OWN_EXPLORATION_STEPS = 100_000, 2_500, 50_000


def throughput(work: str, steps: int, seed: int) -> dict[str, Any]:
    is_ppo = work.startswith("ppo")
    settings = PPO if is_ppo else {**W1, "exploration_fraction": EXPLORATION_STEPS / steps}
    common = {"env": "CartPole-v1", "total_timesteps": steps, "eval_freq": steps, "skip_initial_evaluation": True}
    algo = get_algo("ppo" if is_ppo else "dqn").create(**common, **settings)
    algo = algo.replace(eval_callback=lambda algo, state, rng: ())
    key = jax.random.PRNGKey(seed)
    members = SEEDS if work.endswith("32") else 1
    train, keys = (jax.vmap(algo.train), jax.random.split(key, SEEDS)) if members > 1 else (algo.train, key)
    start = time.perf_counter()
    program = jax.jit(train).lower(keys).compile()
    warmup = time.perf_counter() - start
    start = time.perf_counter()
    state, _ = jax.block_until_ready(program(keys))
    seconds = time.perf_counter() - start
    total = int(state.global_step.sum())
    updates = int((state.actor_ts if is_ppo else state.q_ts).step.sum())
    period = 32 if is_ppo else 10
    if not members * steps <= total <= members * (steps + 512) or abs(updates - total / period) > members * 20:
        raise SystemExit(f"{updates} gradient steps in {total} environment steps, expected one in {period}")
    return {"steps_per_second": total / seconds, "warmup_seconds": warmup, "steps": total, "seconds": seconds}


def solve(seed: int) -> dict[str, Any]:
    algo = get_algo("dqn").create(
        env="CartPole-v1",
        total_timesteps=OWN_EVAL_PERIOD,  # of one call; the state goes on
        eval_freq=OWN_EVAL_PERIOD,
        exploration_fraction=OWN_EXPLORATION_STEPS / OWN_EVAL_PERIOD,
        skip_initial_evaluation=True,
        **OWN,
    )
    train = jax.jit(lambda state: algo.train(train_state=state))
    state = jax.jit(algo.init_state)(jax.random.PRNGKey(seed))
    mean = 0.0
    for _ in range(OWN_STEPS // OWN_EVAL_PERIOD):
        state, (_, returns) = train(state)
        mean = float(returns.mean())  # of 128 episodes
        if mean >= 475:
            break
    return {"solved": mean >= 475, "env_steps": int(state.global_step), "final": mean}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=("w1", "w32", "ppo", "ppo32", "solved"))
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps of each seed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.work == "solved":
        print(json.dumps(solve(options.seed)))
    else:
        print(json.dumps(throughput(options.work, options.steps, options.seed)))


if __name__ == "__main__":
    main()
