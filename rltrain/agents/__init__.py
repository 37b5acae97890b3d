"""Algorithms and agents by name.

A new algorithm: a file here, a dataclass in the schema, conf/algo/<name>.yaml, a line in ALGORITHMS; the engine does
the rest. An agent that the engine cannot run has lines in AGENTS and POLICIES instead.
"""

from __future__ import annotations

from collections.abc import Callable

from rltrain.agents.c51 import C51
from rltrain.agents.dqn import DQN
from rltrain.agents.q_learning import GreedyTable, QLearning
from rltrain.agents.qr_dqn import QRDQN
from rltrain.agents.reinforce import GreedyPolicy, Reinforce
from rltrain.engine import policy
from rltrain.engine.agent import OffPolicyAgent
from rltrain.engine.algorithm import Algorithm, Build
from rltrain.engine.protocol import Agent, AgentContext, LoadablePolicy, Policy

ALGORITHMS: dict[str, Callable[[Build], Algorithm]] = {"dqn": DQN, "c51": C51, "qr_dqn": QRDQN}
AGENTS: dict[str, Callable[[AgentContext], Agent]] = {"q_learning": QLearning, "reinforce": Reinforce}
POLICIES: dict[str, Callable[[AgentContext], LoadablePolicy]] = {"q_learning": GreedyTable, "reinforce": GreedyPolicy}
"""What is left of an agent when it only acts."""


def make_agent(context: AgentContext) -> Agent:
    """The agent of a run's config, or of a population's."""
    name = context.config.algo.name
    return AGENTS[name](context) if name in AGENTS else OffPolicyAgent(ALGORITHMS[name], context)


def make_policy(context: AgentContext) -> LoadablePolicy:
    """What is left of `make_agent` when it only acts."""
    name = context.config.algo.name
    return POLICIES[name](context) if name in POLICIES else policy.GreedyPolicy(ALGORITHMS[name], context)


__all__ = [
    "AGENTS", "ALGORITHMS", "POLICIES", "Agent", "AgentContext", "LoadablePolicy", "Policy", "make_agent",
    "make_policy",
]  # fmt: skip
