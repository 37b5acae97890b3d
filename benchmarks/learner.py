"""DQN's own learner, as runs have it, to be timed by itself."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import cast

import numpy as np
import torch

from benchmarks.speed.programs import WORKS
from rltrain.agents import AgentContext, make_agent
from rltrain.config.application import compose
from rltrain.config.schema import DQNConfig
from rltrain.engine.off_policy import OffPolicyAgent
from rltrain.types import ActionSpec, ObservationSpec

OBSERVATION, ACTION = ObservationSpec("box", (4,), "float32"), ActionSpec("discrete", (), n=2)


def learner_of(
    hidden: tuple[int, ...], members: int, device: torch.device, compile: bool, graphs: bool
) -> OffPolicyAgent:
    """An agent whose replay is full of random numbers."""
    config, _ = compose([*WORKS["w1"], "env.vectorization=compiled", f"network.hidden={list(hidden)}"])
    population = tuple(replace(config, seed=seed) for seed in range(members)) if members > 1 else ()
    agent = make_agent(AgentContext(config, OBSERVATION, ACTION, device, compile, population, graphs))
    assert isinstance(agent, OffPolicyAgent)
    generator = torch.Generator(device).manual_seed(0)
    for array in (
        agent.replay.memory.arrays.obs,
        agent.replay.memory.arrays.next_obs,
        agent.replay.memory.arrays.reward,
    ):
        array.normal_(generator=generator)
    agent.replay.written.fill_(agent.replay.capacity)
    agent.replay.fetch_counts()
    return agent


def us_per_update(agent: OffPolicyAgent, device: torch.device, rounds: int) -> list[float]:
    """Microseconds per gradient step of all members, of each round; a round ends when the device has finished."""
    config = cast(DQNConfig, agent._config)
    calls, generator = agent._choose_depth(), np.random.default_rng(0)
    times = []
    for _ in range(rounds + 2):  # the first two compile, capture and fill caches
        agent._learner.prepare(calls, generator.random((agent._members, calls * config.batch_size)))
        wait(device)
        start = time.perf_counter()
        with torch.no_grad():
            for _ in range(calls):
                agent._learner.learn()
        wait(device)
        times.append((time.perf_counter() - start) / calls * 1e6)
    return times[2:]


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
