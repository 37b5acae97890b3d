"""The operations of each program that is compiled change on purpose only.

A digest of the sequence of operations and shapes is the same on every machine; with another version of torch it is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_runs import dqn_config, env_config, run_config
from torch import Tensor

from rltrain.compute.ahead import Program
from rltrain.config.schema import RunConfig, SoftUpdateConfig
from rltrain.jobs.build import build

STEPPED = replace(env_config("CartPole-v1"), vectorization="compiled")
DQN = run_config(dqn_config(n_step=3), env=STEPPED, num_envs=4)
CASES: dict[str, RunConfig] = {
    "dqn": DQN,
    "dqn soft, not double, clipped by value": replace(
        DQN, algo=dqn_config(double=False, loss="mse", max_grad_value=0.1, gradient_steps=2),
        target_update=SoftUpdateConfig("soft", 0.1, 1, "gradient_steps"),
    ),
}  # fmt: skip
_SOFT = "dqn soft, not double, clipped by value"
DIGESTS: dict[tuple[str, int], list[str]] = {
    ("dqn", 1): ["141 a843e935f0151bbf", "184 f6b7407eaa7e9b35"],
    ("dqn", 3): ["205 5dbb606c3c298a64", "233 87c15b581aef26b5"],
    (_SOFT, 1): ["159 1a29ddd1b2155094", "253 affca0603c569958"],
    (_SOFT, 3): ["175 613243dc5c11c35a", "386 5033dbc232916f21"],
}
"""By case and number of members, of the programs of learning and of stepping."""


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A digest of each program, in the order of their first calls; they run as they are."""
    from torch.fx.experimental.proxy_tensor import make_fx

    found: list[str] = []

    def load(program: Program[Any], args: Any, leaves: list[Tensor]) -> Callable[[list[Tensor]], list[Tensor]]:
        from rltrain.compute.ahead import _refill

        def flat(*tensors: Tensor) -> list[Tensor]:
            program._function(*_refill(args, iter(tensors)))
            return []

        graph = make_fx(flat, tracing_mode="fake", _allow_non_fake_inputs=True)(*leaves)
        operations = [
            f"{node.target} {tuple(getattr(node.meta.get('val'), 'shape', ()))}"
            for node in graph.graph.nodes
            if node.op == "call_function" and "detach" not in str(node.target)
        ]
        found.append(f"{len(operations)} {hashlib.sha256(repr(operations).encode()).hexdigest()[:16]}")
        return lambda tensors: flat(*tensors)

    monkeypatch.setattr("rltrain.compute.ahead.Program._load", load)
    monkeypatch.setattr("rltrain.jobs.build.has_compiler", lambda: True)
    monkeypatch.setattr("rltrain.compute.ahead.available", lambda: True)
    return found


@pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="the digests are of torch 2.13")
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_programs_have_the_operations_that_they_had(name: str, members: int, traced: list[str]) -> None:
    config = replace(CASES[name], device=replace(CASES[name].device, compile=True))
    population = tuple(replace(config, seed=seed) for seed in range(members)) if members > 1 else ()
    with build(config, population=population) as parts:
        agent: Any = parts.agent
        parts.envs.reset()
        with torch.no_grad():
            for _ in range(6):
                agent.iterate(parts.envs, 8)
    assert sorted(traced) == DIGESTS.get((name, members))
