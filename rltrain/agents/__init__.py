"""Agents by name. A new one: a file here, a dataclass in the schema, conf/algo/<name>.yaml, a line in both dicts."""

from __future__ import annotations

from collections.abc import Callable

from rltrain.agents.agent import Agent, AgentContext, LoadablePolicy, Policy
from rltrain.agents.dqn import DQN, GreedyQ
from rltrain.agents.q_learning import GreedyTable, QLearning
from rltrain.agents.reinforce import GreedyPolicy, Reinforce

AGENTS: dict[str, Callable[[AgentContext], Agent]] = {"dqn": DQN, "q_learning": QLearning, "reinforce": Reinforce}
POLICIES: dict[str, Callable[[AgentContext], LoadablePolicy]] = {
    "dqn": GreedyQ,
    "q_learning": GreedyTable,
    "reinforce": GreedyPolicy,
}
"""What is left of an agent when it only acts."""

__all__ = ["AGENTS", "POLICIES", "Agent", "AgentContext", "LoadablePolicy", "Policy"]
