"""Algorithms and agents by name.

A new algorithm: a file here, a dataclass in the schema, conf/algo/<name>.yaml, a line in ALGORITHMS; the engine does
the rest. An agent that the engine cannot run has lines in AGENTS and POLICIES instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from rltrain.agents.c51 import C51
from rltrain.agents.dqn import DQN
from rltrain.agents.iqn import IQN
from rltrain.agents.ppo import PPO
from rltrain.agents.pqn import PQN
from rltrain.agents.q_learning import GreedyTable, QLearning
from rltrain.agents.qr_dqn import QRDQN
from rltrain.agents.reinforce import Reinforce
from rltrain.engine.algorithm import Algorithm, Build
from rltrain.engine.cadence import EveryEpisodes, EveryRollout, UpdatesPerStep
from rltrain.engine.episodes import EpisodeAgent
from rltrain.engine.off_policy import OffPolicyAgent
from rltrain.engine.policy import GreedyPolicy
from rltrain.engine.protocol import Agent, AgentContext, Explorer, LoadablePolicy, Policy
from rltrain.engine.rollouts import RolloutAgent
from rltrain.errors import RequestError
from rltrain.networks import check_population

ALGORITHMS: dict[str, Callable[[Build], Algorithm]] = {
    "dqn": DQN, "c51": C51, "qr_dqn": QRDQN, "iqn": IQN, "reinforce": Reinforce, "ppo": PPO, "a2c": PPO,
    "pqn": PQN,
}  # fmt: skip
AGENTS: dict[str, Callable[[AgentContext], Agent]] = {"q_learning": QLearning}
POLICIES: dict[str, Callable[[AgentContext], LoadablePolicy]] = {"q_learning": GreedyTable}
"""The part of an agent that only acts."""
_BY_CADENCE: dict[type, Callable[[list[Algorithm], AgentContext], Agent]] = {
    UpdatesPerStep: OffPolicyAgent,
    EveryEpisodes: EpisodeAgent,
    EveryRollout: RolloutAgent,
}


def make_agent(context: AgentContext) -> Agent:
    """The agent of a run's config, or of a population's.

    Raises:
        RequestError: a plug-in has added a part of the algorithm only.
    """
    name = context.config.algo.name
    if name in AGENTS:
        _check_policy(name)
        return AGENTS[name](context)
    algorithms = _algorithms(context)
    return _BY_CADENCE[type(algorithms[0].cadence)](algorithms, context)


def make_policy(context: AgentContext) -> LoadablePolicy:
    """Builds the part of an agent that only acts; raises as `make_agent`."""
    name = context.config.algo.name
    if name in AGENTS:
        _check_policy(name)
    return POLICIES[name](context) if name in POLICIES else GreedyPolicy(_algorithms(context), context)


def multiply_adds(context: AgentContext) -> int:
    """Multiply-adds of one pass forward, for one observation, of the networks that a member learns; 0 of an agent that
    the engine does not run."""
    if context.config.algo.name in AGENTS:
        return 0
    algorithm, observation = _algorithms(replace(context, population=()))[0], context.observation
    obs = torch.zeros(1, *observation.shape, dtype=getattr(torch, observation.dtype), device=context.device)
    with torch.no_grad():
        return sum(algorithm.networks[name].multiply_adds(obs) for name in algorithm.learns)


def _algorithms(context: AgentContext) -> list[Algorithm]:
    """One of each member."""
    name, spaces = context.config.algo.name, (context.observation, context.action)
    if name not in ALGORITHMS:
        raise _unregistered(name, "AGENTS" if name in POLICIES else "ALGORITHMS")
    make = ALGORITHMS[name]
    algorithms = [make(Build(config, *spaces, context.device)) for config in context.configs]
    if len(algorithms) > 1:
        first = algorithms[0]
        check_population(context.config.network, first.networks[first.acts], context.observation)
    return algorithms


def _check_policy(name: str) -> None:
    """Whether what acts by itself is there too, which nothing else asks for before the training has ended."""
    if name not in POLICIES and name not in ALGORITHMS:
        raise _unregistered(name, "POLICIES")


def _unregistered(name: str, registry: str) -> RequestError:
    other = "; of an agent that the engine does not run, AGENTS and POLICIES" if registry == "ALGORITHMS" else ""
    where = f"it is not in rltrain.agents.{registry}"
    return RequestError(f"algo={name}: {where}, to which a plug-in adds {registry}[{name!r}] = ...{other}")


__all__ = [
    "AGENTS", "ALGORITHMS", "POLICIES", "Agent", "AgentContext", "Explorer", "LoadablePolicy", "Policy", "make_agent",
    "make_policy", "multiply_adds",
]  # fmt: skip
