"""CUDA graphs: what is captured does what it does uncaptured; and where it cannot be captured it runs as it is."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from small_runs import DISCRETE, VECTOR, ScriptedEnvs, dqn_config, drive, env_config, optimizer, run_config

from rltrain.agents import AgentContext, make_agent
from rltrain.compute.choices import choose_cuda_graphs
from rltrain.compute.compiling import Bound
from rltrain.compute.graphs import Graph
from rltrain.config.schema import RunConfig, SoftUpdateConfig
from rltrain.engine.members import MemberNetworks
from rltrain.engine.off_policy import OffPolicyAgent
from rltrain.errors import RequestError
from rltrain.jobs.build import build
from rltrain.networks import make_network

CUDA = torch.device("cuda", 0)
CONFIG = run_config(dqn_config())


@pytest.fixture
def cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return CUDA


def is_captured(program: Bound) -> bool:
    return cast(Graph, program._graph).captured


@pytest.mark.gpu
class TestGraph:
    def test_it_is_captured_at_its_second_call_and_every_call_counts(self, cuda: torch.device) -> None:
        count, made = torch.zeros(1, device=cuda), []

        def procedure() -> None:
            made.append(None)
            count.add_(1)

        graph = Graph(procedure, cuda)
        captured = []
        for _ in range(5):
            graph()
            captured.append(graph.captured)
        assert count.item() == 5
        assert captured == [False, True, True, True, True]
        assert len(made) == 2, "a launch runs no Python"

    def test_what_waits_for_the_device_runs_as_it_is(
        self, cuda: torch.device, caplog: pytest.LogCaptureFixture
    ) -> None:
        count = torch.zeros(1, device=cuda)

        def procedure() -> None:
            count.add_(1 + 0 * count.item())

        graph = Graph(procedure, cuda)
        with caplog.at_level(logging.WARNING):
            for _ in range(4):
                graph()
        assert count.item() == 4 and not graph.captured
        assert ["capturing a CUDA graph failed" in record.message for record in caplog.records] == [True]

    def test_it_reads_its_memory_at_every_launch(self, cuda: torch.device) -> None:
        x, y = torch.zeros(3, device=cuda), torch.zeros(3, device=cuda)
        double = Bound(lambda x, y: y.copy_(2 * x), lambda x, y: y.copy_(2 * x), (x, y), cuda_graphs=True)
        for number in range(5):
            x.fill_(number)
            double()
            assert y.tolist() == [2 * number] * 3


def test_they_are_chosen_where_there_is_a_gpu_and_refused_elsewhere() -> None:
    device = CONFIG.device
    assert not choose_cuda_graphs(device, torch.device("cpu"))
    assert choose_cuda_graphs(device, CUDA)
    assert not choose_cuda_graphs(replace(device, cuda_graphs=False), CUDA)
    with pytest.raises(RequestError, match=r"device.cuda_graphs=true: needs a CUDA device, and this run is on the cpu"):
        choose_cuda_graphs(replace(device, cuda_graphs=True), torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.parametrize("members", [1, 3])
def test_acting_by_launches_is_acting(members: int, cuda: torch.device) -> None:
    networks = [make_network(CONFIG.network, VECTOR, 3, seed, cuda) for seed in range(members)]
    plain, launched = MemberNetworks(networks), MemberNetworks(networks, cuda_graphs=True)
    generator = np.random.default_rng(0)
    for turn in range(5):
        obs = generator.normal(size=(2 * members, 3)).astype(np.float32)
        torch.testing.assert_close(launched.act(obs), plain(torch.from_numpy(obs).to(cuda)))
        plain.params.mul_(1.1 + turn)
        if members > 1:
            launched.params.mul_(1.1 + turn)


@pytest.mark.gpu
@pytest.mark.parametrize("members", [1, 3])
def test_captured_updates_are_the_uncaptured_ones(members: int, cuda: torch.device) -> None:
    algo = dqn_config(n_step=2, gradient_steps=2, optimizer=optimizer(lr=1e-2))
    target = SoftUpdateConfig("soft", 0.1, 1, "gradient_steps")
    configs = tuple(run_config(algo, num_envs=2, seed=seed, target_update=target) for seed in range(members))

    def trained(cuda_graphs: bool) -> OffPolicyAgent:
        population = configs if members > 1 else ()
        agent = make_agent(AgentContext(configs[0], VECTOR, DISCRETE, cuda, False, population, cuda_graphs))
        assert isinstance(agent, OffPolicyAgent)
        metrics = [step for step in drive(agent, ScriptedEnvs(2 * members), 60) if step]
        assert len(metrics) > 20 and len({step["train/td_loss"].sum().item() for step in metrics}) == len(metrics)
        return agent

    captured, plain = trained(True), trained(False)
    assert is_captured(captured._learner.program)
    for member in range(members):
        found, expected = captured.state_dict(member), plain.state_dict(member)
        assert found["state"] == expected["state"]
        for section in ("network", "optimizer", "replay"):
            for name, tensor in found[section].items():
                torch.testing.assert_close(tensor, expected[section][name], rtol=1e-3, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("n_step", "members", "compile"), [(1, 1, False), (1, 3, False), (3, 1, False), (3, 3, False), (3, 1, True)]
)
def test_blocks_on_a_gpu_lead_where_the_cpu_leads(
    n_step: int, members: int, compile: bool, cuda: torch.device, caplog: pytest.LogCaptureFixture
) -> None:
    """Up to rounding, for as long as that does not grow: some dozens of updates."""
    env = replace(env_config("CartPole-v1"), vectorization="compiled")
    config = run_config(dqn_config(n_step=n_step, buffer_size=200), env=env, num_envs=3)

    def trained(device: str) -> tuple[list[object], list[dict[str, torch.Tensor]]]:
        placed = replace(config, device=replace(config.device, name=device, compile=compile and device == "cuda"))
        population = tuple(replace(placed, seed=seed) for seed in range(members)) if members > 1 else ()
        with build(placed, population=population) as parts:
            agent, envs = cast(OffPolicyAgent, parts.agent), parts.envs
            envs.reset()
            episodes: list[object] = []
            steps = 0
            while steps < 60:
                block = agent.iterate(envs, min(25, 60 - steps))
                episodes += [(e.env, e.number, e.length, e.episode_return) for e in block.episodes]
                steps += block.steps
            if device == "cuda":
                assert is_captured(agent._learner.program)
                assert agent._stepper is not None and is_captured(agent._stepper.program)
            states = [agent.state_dict(member) for member in range(members)]
            return episodes, [{k: v.cpu() for k, v in {**s["network"], **s["replay"]}.items()} for s in states]

    (episodes, states), (expected_episodes, expected_states) = trained("cuda"), trained("cpu")
    assert not [record for record in caplog.records if record.name.startswith("rltrain")], "something fell back"
    assert len(episodes) > 3 and episodes == expected_episodes
    for state, expected in zip(states, expected_states, strict=True):
        for name, tensor in state.items():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-2, atol=1e-4)


@pytest.mark.gpu
def test_no_update_waits_for_the_device(cuda: torch.device) -> None:
    """torch's own sync detector: once warm, blocks of steps and updates of the parts wait where they say so only."""
    env = replace(env_config("CartPole-v1"), vectorization="compiled")
    config = run_config(dqn_config(), env=env, num_envs=3)
    placed: RunConfig = replace(config, device=replace(config.device, name="cuda"))
    with build(placed) as parts:
        agent, envs = cast(OffPolicyAgent, parts.agent), parts.envs
        envs.reset()
        for _ in range(3):
            agent.iterate(envs, 20)
        assert agent._stepper is not None
        agent._stepper.prepare(agent._draw(4), agent._running)
        agent._prepare_calls(4)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(4):
                agent._stepper.step()
                agent._learner.learn()
        finally:
            torch.cuda.set_sync_debug_mode("default")
