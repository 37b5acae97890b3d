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
from halves import often
from resume_cases import CONVOLUTIONS, FRAMES, PRIORITIZED
from small_runs import dqn_config, env_config, make_steps, run_config
from torch import Tensor
from torch.fx import GraphModule
from torch.utils._pytree import tree_flatten, tree_unflatten

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
    ("dqn", 1): ["141 a843e935f0151bbf", "188 d2133f2577e2b957"],
    ("dqn", 3): ["209 a40788ed2882815d", "233 87c15b581aef26b5"],
    (_SOFT, 1): ["163 c4195bfc60555b40", "253 affca0603c569958"],
    (_SOFT, 3): ["179 7bfb604f5d022b4d", "386 5033dbc232916f21"],
}
"""By case and number of members, of the programs of learning and of stepping."""


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[GraphModule]:
    """The operations of each program, in the order of their first calls; they run as they are."""
    from torch.fx.experimental.proxy_tensor import make_fx

    found: list[GraphModule] = []

    def program(procedure: Callable[..., None], args: tuple[Any, ...]) -> Callable[[], None]:
        leaves, form = tree_flatten(args)

        def flat(*tensors: Tensor) -> None:
            procedure(*tree_unflatten(list(tensors), form))

        found.append(make_fx(flat, tracing_mode="fake", _allow_non_fake_inputs=True)(*leaves))
        return lambda: procedure(*args)

    monkeypatch.setattr("rltrain.compute.ahead.program", program)
    monkeypatch.setattr("rltrain.jobs.build.has_compiler", lambda: True)
    monkeypatch.setattr("rltrain.compute.ahead.available", lambda: True)
    return found


@pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="the digests are of torch 2.13")
@pytest.mark.parametrize(("name", "members"), often(DIGESTS, [("dqn", 1), (_SOFT, 3)]))
def test_programs_have_the_operations_that_they_had(name: str, members: int, graphs: list[GraphModule]) -> None:
    learn(replace(CASES[name], device=replace(CASES[name].device, compile=True)), members)
    assert sorted(map(digest, graphs)) == DIGESTS.get((name, members))


def learn(config: RunConfig, members: int) -> None:
    """Enough steps that all programs have been called."""
    population = tuple(replace(config, seed=seed) for seed in range(members)) if members > 1 else ()
    with build(config, population=population) as parts:
        agent: Any = parts.agent
        obs = parts.envs.reset()
        with torch.no_grad():
            for _ in range(6 if config.env.vectorization == "compiled" else 30):
                obs = make_steps(agent, parts.envs, obs)


def digest(graph: GraphModule) -> str:
    operations = [
        f"{node.target} {tuple(getattr(node.meta.get('val'), 'shape', ()))}"
        for node in graph.graph.nodes
        if node.op == "call_function" and "detach" not in str(node.target)
    ]
    return f"{len(operations)} {hashlib.sha256(repr(operations).encode()).hexdigest()[:16]}"


# In place, on as many rows as their indices say: a compiled program writes there and copies nothing.
IN_PLACE = ("aten.index_put_.default", "aten.index_copy_.default", "aten.index_add_.default")
ROWS = 20_011


REPLAYS: dict[str, RunConfig] = {
    "prioritized": replace(DQN, algo=dqn_config(buffer_size=ROWS, n_step=2, prioritized=PRIORITIZED)),
    "uniform": replace(DQN, algo=dqn_config(buffer_size=ROWS, n_step=3)),
    "frames": replace(
        DQN, algo=dqn_config(buffer_size=ROWS, prioritized=PRIORITIZED), env=FRAMES, network=CONVOLUTIONS
    ),
}


@pytest.mark.parametrize(
    ("replay", "members"),
    often([("prioritized", 3), ("prioritized", 1), ("uniform", 3), ("frames", 1)], [("prioritized", 3)]),
)
def test_no_operation_takes_the_whole_replay(replay: str, members: int, graphs: list[GraphModule]) -> None:
    """What a program does in each call must not grow with what the replay keeps."""
    learn(replace(REPLAYS[replay], device=replace(DQN.device, compile=True)), members)
    whole = {
        f"{node.target} {tuple(node.meta['val'].shape)}"
        for graph in graphs
        for node in graph.graph.nodes
        if node.op == "call_function"
        and getattr(node.meta.get("val"), "numel", int)() >= ROWS
        and not getattr(node.target, "is_view", False)
        and str(node.target) not in IN_PLACE
    }
    assert graphs and not whole
