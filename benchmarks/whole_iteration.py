"""What one program for the whole iteration would give: `python -m benchmarks.whole_iteration [MEMBERS ...]`.

W1 with batched environments on the CPU, one thread: an iteration acts, steps ten environments per member, stores the
transitions and makes one gradient step. *parts* are what training does: agent and environments of a run, without
logging. *program* is the same iteration as one program compiled ahead, on the same network, replay and twin: it takes
the random numbers and the first states of new episodes, and still leaves out episodes' returns, actions for a
checkpoint to replay, n-step windows and checks that numbers are finite. The two take turns; microseconds per iteration.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from benchmarks.speed.programs import COMMON, WORKS
from rltrain.agents.dqn import DQN
from rltrain.agents.dqn_update import DQNState, make_hyperparameters, make_phase, make_update
from rltrain.agents.members import stack_members
from rltrain.ahead import Program
from rltrain.build import Parts, build
from rltrain.config.application import compose
from rltrain.config.schema import DQNConfig, RunConfig
from rltrain.envs.batched.cartpole import CartPole
from rltrain.optimizers import functional_gradient
from rltrain.replay import Batch

ROUNDS, CALLS = 300, 10
LIMIT = 500  # of an episode's steps


class World(NamedTuple):
    """Ten environments of each of M members: L = M * N lanes."""

    state: Tensor  # [4, L] float64
    length: Tensor  # [L] steps of the running episodes


class Draws(NamedTuple):
    """What an iteration draws, and the first states of the episodes that begin in it."""

    explore: Tensor  # [L] bool
    action: Tensor  # [L]
    start: Tensor  # [4, L] float64
    rows: Tensor  # [1, B] or [1, M, B]
    places: Tensor  # [L] rows that are written


def make_iteration(parts: Parts, config: RunConfig, members: int) -> Callable[..., tuple[DQNState, World]]:
    agent, algo, twin = cast(DQN, parts.agent), cast(DQNConfig, config.algo), CartPole()
    q_network = agent.q_network.apply
    update = make_update(algo, q_network, functional_gradient)
    phase = make_phase(torch.vmap(update) if members > 1 else update)
    greedy = torch.vmap(q_network) if members > 1 else q_network

    def iteration(
        learned: DQNState, world: World, arrays: Batch, draws: Draws, hyperparameters: dict[str, Tensor]
    ) -> tuple[DQNState, World]:
        obs = world.state.T.float()  # [L, 4]
        by_member = obs.view(members, -1, 4) if members > 1 else obs
        best = greedy(learned.params, by_member).argmax(-1).flatten()  # [L]
        action = torch.where(draws.explore, draws.action, best)  # [L]
        state, reward, terminated = twin.step(torch, world.state, action)
        length = world.length + 1
        ended = terminated | (length >= LIMIT)  # [L]
        discount = algo.gamma * (~terminated)  # [L]
        columns = (obs, action, reward.float(), state.T.float(), discount.float())
        for array, column in zip(arrays, columns, strict=True):
            array.index_copy_(0, draws.places, column)
        world = World(torch.where(ended, draws.start, state), torch.where(ended, 0, length))
        learned, _ = phase(learned, arrays, draws.rows, hyperparameters)
        return learned, world

    return iteration


def by_parts(parts: Parts) -> Callable[[], None]:
    agent, envs = parts.agent, parts.envs
    obs = [envs.reset()]

    def run() -> None:
        action = agent.act(obs[0])
        transition, obs[0], episodes = envs.step(action, agent.active)
        agent.observe(transition, episodes)
        agent.update()

    return run


def by_program(parts: Parts, config: RunConfig, members: int) -> Callable[[], None]:
    agent, algo = cast(DQN, parts.agent), cast(DQNConfig, config.algo)
    lanes, generator = members * config.num_envs, np.random.default_rng(0)
    hyperparameters = stack_members([make_hyperparameters(algo, parts.device)] * members)
    program = Program(make_iteration(parts, config, members))
    arrays = Batch(*(array.clone() for array in agent.replay.arrays))
    learned = DQNState(agent.q_network.params.clone(), agent._target_params.clone(), agent._optimizer)
    world = World(torch.zeros(4, lanes, dtype=torch.float64), torch.zeros(lanes, dtype=torch.int64))
    starts = np.arange(members)[:, None] * algo.buffer_size  # [M, 1]
    kept, head = [(learned, world)], [0]

    def run() -> None:
        places = starts + (head[0] + np.arange(config.num_envs)) % algo.buffer_size  # [M, N]
        head[0] += config.num_envs
        uniform = generator.random((3, lanes))
        rows = (generator.random((members, algo.batch_size)) * algo.buffer_size).astype(np.int64) + starts
        draws = Draws(
            torch.from_numpy(uniform[0] < 0.05),
            torch.from_numpy((uniform[1] * 2).astype(np.int64)),
            torch.from_numpy(generator.uniform(-0.05, 0.05, (4, lanes))),
            torch.from_numpy(rows if members == 1 else rows[None]),
            torch.from_numpy(places.reshape(-1)),
        )
        learned, world = program(*kept[0], arrays, draws, hyperparameters)
        kept[0] = learned, world
        world.length.numpy()  # the loop has to know which episodes ended
        if head[0] == config.num_envs and not arrays.reward[draws.places].all():
            raise RuntimeError("the program has stored nothing")

    return run


def seconds_of(way: Callable[[], None]) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        way()
    return (time.perf_counter() - start) / CALLS


def compare(members: int) -> None:
    config, _ = compose([*WORKS["w1"], *COMMON, "env.vectorization=batched", "device.compile=true"])
    population = tuple(replace(config, seed=seed) for seed in range(members)) if members > 1 else ()
    with build(config, population=population) as parts, torch.no_grad():
        ways = {"parts": by_parts(parts), "program": by_program(parts, config, members)}
        learning_starts = cast(DQNConfig, config.algo).learning_starts
        for way in ways.values():
            for _ in range(2 * math.ceil(learning_starts / config.num_envs) + 100):
                way()
        times = {name: np.array([0.0] * ROUNDS) for name in ways}
        for number in range(ROUNDS):
            for name, way in ways.items():
                times[name][number] = seconds_of(way) * 1e6
    tenth = {name: float(np.quantile(x, 0.1)) for name, x in times.items()}
    median = {name: float(np.median(x)) for name, x in times.items()}
    ratio = median["parts"] / median["program"]
    for name in ways:
        print(f"{members:3} members, {name:8} tenth {tenth[name]:7.0f}, median {median[name]:7.0f}")
    print(
        f"{members:3} members, parts / program: {ratio:.2f} (median), {tenth['parts'] / tenth['program']:.2f} (tenth)"
    )


if __name__ == "__main__":
    for count in [int(arg) for arg in sys.argv[1:]] or [1, 16]:
        compare(count)
