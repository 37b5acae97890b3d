"""Agents by name. A new one: a file here, its dataclass in the schema, a YAML in conf/algo, and a line in AGENTS."""

from __future__ import annotations

from collections.abc import Callable

from rltrain.agents.agent import Agent, AgentContext, Policy
from rltrain.agents.dqn import DQN
from rltrain.agents.reinforce import Reinforce

AGENTS: dict[str, Callable[[AgentContext], Agent]] = {"dqn": DQN, "reinforce": Reinforce}

__all__ = ["AGENTS", "Agent", "AgentContext", "Policy"]
