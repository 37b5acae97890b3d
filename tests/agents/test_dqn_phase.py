"""Several gradient steps in one call: what a compiled agent does, against one step at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from halves import often
from small_runs import CPU, DISCRETE, VECTOR, ScriptedEnvs, count_loads, dqn_config, drive, optimizer, run_config
from torch import Tensor

from rltrain.agents import Agent, AgentContext, make_agent
from rltrain.compute.compiling import has_compiler
from rltrain.config.schema import HardUpdateConfig, RunConfig, SoftUpdateConfig, TargetUpdateConfig
from rltrain.engine.learner import Learning

SOFT = SoftUpdateConfig("soft", 0.1, 1, "gradient_steps")


def config_of(target_update: TargetUpdateConfig = SOFT, seed: int = 0, lr: float = 1e-2, **algo: Any) -> RunConfig:
    algo = {"learning_starts": 10, "train_period": 4, "gradient_steps": 4, **algo}
    return run_config(dqn_config(optimizer=optimizer(lr=lr), **algo), target_update=target_update, seed=seed)


def agent_of(*configs: RunConfig, compile_update: bool) -> Agent:
    return make_agent(
        AgentContext(configs[0], VECTOR, DISCRETE, CPU, compile_update, configs if len(configs) > 1 else ())
    )


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The gradient steps of each call of what would be compiled; it runs as it is."""
    made: list[int] = []

    class AsItIs:
        def __init__(
            self, procedure: Callable[..., None], fallback: Callable[..., None], args: tuple[Learning], **_: Any
        ) -> None:
            self._procedure, self._run, self._args = procedure, fallback, args

        def compile(self) -> None:
            self._run = self._compiled

        def _compiled(self, memory: Learning) -> None:
            made.append(memory.draws.shape[1])
            self._procedure(memory)

        def __call__(self) -> None:
            self._run(*self._args)

    monkeypatch.setattr("rltrain.engine.learner.Bound", AsItIs)
    monkeypatch.setattr("rltrain.engine.members.MemberNetworks.compile", lambda _: None)
    return made


@pytest.mark.parametrize(
    ("target_update", "gradient_steps", "per_call"),
    [
        (SOFT, 4, 4), (SOFT, 6, 3), (SOFT, 8, 4), (SOFT, 5, 1), (SOFT, 1, 1),
        (replace(SOFT, period=6), 4, 2), (replace(SOFT, unit="env_steps"), 4, 4),
        (HardUpdateConfig("hard", 1, "gradient_steps"), 2, 2), (HardUpdateConfig("hard", 10, "gradient_steps"), 4, 2),
        (HardUpdateConfig("hard", 7, "gradient_steps"), 4, 1), (HardUpdateConfig("hard", 3, "episodes"), 3, 3),
    ],
)  # fmt: skip
@pytest.mark.parametrize("seeds", often([1, 2], [2]))
def test_steps_in_one_call_lead_to_what_single_steps_lead_to(
    target_update: TargetUpdateConfig, gradient_steps: int, per_call: int, seeds: int, calls: list[int]
) -> None:
    configs = [config_of(target_update, seed, gradient_steps=gradient_steps) for seed in range(seeds)]
    together, one_by_one = agent_of(*configs, compile_update=True), agent_of(*configs, compile_update=False)
    drives = (drive(agent, ScriptedEnvs(seeds), 40) for agent in (together, one_by_one))
    for metrics, expected in zip(*drives, strict=True):
        assert_close(metrics, expected)
        for member in range(seeds):
            found, wanted = together.state_dict(member), one_by_one.state_dict(member)
            assert found["state"] == wanted["state"]
            for section in ("network", "optimizer"):
                assert_close(found[section], wanted[section])
    assert set(calls) == {per_call}
    assert sum(calls) == one_by_one.gradient_steps == 7 * gradient_steps


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_the_periods_of_all_members_divide_into_calls(calls: list[int]) -> None:
    configs = [config_of(HardUpdateConfig("hard", period, "gradient_steps")) for period in (4, 6)]
    agent = agent_of(*configs, compile_update=True)
    for _ in drive(agent, ScriptedEnvs(2), 30):
        pass
    assert set(calls) == {2}


@pytest.mark.parametrize("target_update", [SOFT, replace(SOFT, period=2)])
def test_a_target_stays_where_its_member_has_retired(target_update: TargetUpdateConfig) -> None:
    agent = agent_of(*(config_of(target_update, seed) for seed in (0, 1)), compile_update=False)
    envs = ScriptedEnvs(2)
    for _ in drive(agent, envs, 20):
        pass
    agent.retire(0)
    before = [agent.state_dict(member)["network"] for member in (0, 1)]
    for _ in drive(agent, envs, 20):
        pass
    after = [agent.state_dict(member)["network"] for member in (0, 1)]
    changed = [any(not torch.equal(before[m][name], after[m][name]) for name in before[m]) for m in (0, 1)]
    assert changed == [False, True]


@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
@pytest.mark.slow
@pytest.mark.parametrize("ahead", [True, False])
def test_a_run_compiles_once_and_never_again(
    ahead: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ahead of its calls there is one program of one shape; by `torch.compile` dynamo counts its own."""
    from torch._dynamo.utils import counters

    loads = count_loads(monkeypatch)
    monkeypatch.setattr("rltrain.compute.ahead.available", lambda: ahead)
    counters.clear()
    agent = agent_of(config_of(gradient_steps=2), compile_update=True)
    envs = ScriptedEnvs(1)
    for _ in drive(agent, envs, 15):
        pass
    warm = (len(loads), counters["stats"]["unique_graphs"])
    assert warm == ((1, 0) if ahead else (0, 1))
    state = agent.state_dict()
    for _ in drive(agent, envs, 60):  # the replay fills and turns over, targets move, epsilon falls
        pass
    agent.load_state_dict(state)
    for _ in drive(agent, envs, 60):
        pass
    assert (len(loads), counters["stats"]["unique_graphs"]) == warm
    assert not [record for record in caplog.records if record.name.startswith("rltrain")], "it ran uncompiled"
