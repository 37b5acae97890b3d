"""A plug-in that has added a part only: one line names the registry that it left out, before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from small_runs import CPU, DISCRETE, STATES, VECTOR, dqn_config, q_learning_config, run_config

from rltrain.agents import AGENTS, POLICIES, AgentContext, make_agent, make_policy, multiply_adds
from rltrain.errors import RequestError
from rltrain.networks import make_network

NAMED: Any = replace(dqn_config(), name="mine")  # type: ignore[arg-type]


def test_an_algorithm_without_its_line() -> None:
    context = AgentContext(run_config(NAMED), VECTOR, DISCRETE, CPU)
    told = r"^algo=mine: it is not in rltrain.agents.ALGORITHMS, to which a plug-in adds ALGORITHMS\['mine'\] = "
    for ask in (make_agent, make_policy, multiply_adds):
        with pytest.raises(RequestError, match=told):
            ask(context)


@pytest.mark.parametrize("missing", ["AGENTS", "POLICIES"])
def test_an_agent_of_its_own_with_half_of_its_lines(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without its line in POLICIES it was trained to the end, and `evaluate` ended in KeyError.
    other, q_learning = {"AGENTS": (POLICIES, POLICIES), "POLICIES": (AGENTS, AGENTS)}[missing]
    monkeypatch.setitem(other, "mine", q_learning["q_learning"])  # type: ignore[arg-type]
    algo: Any = replace(q_learning_config(), name="mine")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=rf"^algo=mine: it is not in rltrain.agents.{missing}, "):
        make_agent(AgentContext(run_config(algo), STATES, DISCRETE, CPU))


def test_a_network_without_its_line() -> None:
    network: Any = replace(run_config(NAMED).network, name="mine")  # type: ignore[type-var]
    with pytest.raises(RequestError, match=r"^network=mine: it is not in rltrain.networks.NETWORKS, to which"):
        make_network(network, VECTOR, 2, 0, CPU)
