"""DQN as the loop drives it: when it learns, how it explores, what the target does, that it can be saved."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import (
    DISCRETE,
    IMAGES,
    STATES,
    VECTOR,
    ScriptedEnvs,
    assert_same_state,
    dqn_config,
    drive,
    make_agent,
    network_of,
    optimizer,
    run_config,
)
from torch import Tensor

from rltrain.config.schema import ConstantConfig, ExponentialConfig, HardUpdateConfig, SoftUpdateConfig
from rltrain.engine.learner import mean_metrics
from rltrain.engine.off_policy import OffPolicyAgent
from rltrain.engine.protocol import Agent
from rltrain.types import ObservationSpec


def small_agent(
    device: torch.device | None = None, observation: ObservationSpec = VECTOR, **changes: Any
) -> OffPolicyAgent:
    """`algo_<key>=...` changes the algorithm's keys, anything else the run's."""
    algo = {key.removeprefix("algo_"): value for key, value in changes.items() if key.startswith("algo_")}
    run = {key: value for key, value in changes.items() if not key.startswith("algo_")}
    agent = make_agent(run_config(dqn_config(**algo), **run), observation, device=device or torch.device("cpu"))
    assert isinstance(agent, OffPolicyAgent)
    return agent


def part(agent: Agent, prefix: str) -> Tensor:
    return torch.cat([t.reshape(-1) for name, t in network_of(agent).items() if name.startswith(prefix)])


@settings(max_examples=15, deadline=None)
@given(
    learning_starts=st.integers(0, 25),
    train_period=st.integers(1, 7),
    gradient_steps=st.integers(1, 3),
    num_envs=st.sampled_from([1, 4]),
)
def test_the_number_of_gradient_steps_is_the_formula_at_every_step(
    learning_starts: int, train_period: int, gradient_steps: int, num_envs: int
) -> None:
    agent = small_agent(
        algo_learning_starts=learning_starts, algo_train_period=train_period, algo_gradient_steps=gradient_steps,
        algo_batch_size=2, num_envs=num_envs,
    )  # fmt: skip
    steps, before = 0, 0
    for metrics in drive(agent, ScriptedEnvs(num_envs), 40 // num_envs):
        steps += num_envs
        expected = max(0, (steps - learning_starts) // train_period) * gradient_steps
        assert agent.gradient_steps == expected
        assert bool(metrics) == (expected > before)
        before = expected
    assert agent.scalars()["train/gradient_steps"] == before


@pytest.mark.parametrize(
    "exploration", [None, ExponentialConfig("exponential", 1.0, 0.05, 30.0)], ids=["linear", "exponential"]
)
def test_epsilon_is_the_same_at_the_same_environment_step(exploration: Any) -> None:
    changes = {} if exploration is None else {"exploration": exploration}
    curves: dict[int, dict[int, float]] = {}
    for num_envs in (1, 4):
        agent = small_agent(num_envs=num_envs, **changes)
        curves[num_envs] = {0: agent.scalars()["train/epsilon"]}
        for k, _ in enumerate(drive(agent, ScriptedEnvs(num_envs), 80 // num_envs), start=1):
            curves[num_envs][k * num_envs] = agent.scalars()["train/epsilon"]
    assert all(curves[1][step] == epsilon for step, epsilon in curves[4].items())
    assert curves[4][0] == 1.0
    assert curves[4][40] == pytest.approx(0.4 if exploration is None else 0.05 + 0.95 * np.exp(-4.0 / 3.0))


def test_actions_are_greedy_or_uniform_with_probability_epsilon(device: torch.device) -> None:
    agent = small_agent(device, num_envs=50, exploration=ConstantConfig("constant", 0.4))
    generator, counts, greedy_rows, total = np.random.default_rng(0), np.zeros(3), 0, 0
    for _ in range(100):
        obs = generator.normal(size=(50, 3)).astype(np.float32)
        greedy, action = agent.act_greedy(obs), agent.act(obs)
        assert action.dtype == np.int64
        greedy_rows += int((action == greedy).sum())
        counts += np.bincount((action - greedy) % 3, minlength=3)
        total += 50
    expected = total * np.array([0.6 + 0.4 / 3, 0.4 / 3, 0.4 / 3])  # a uniform draw may be the greedy action too
    assert ((counts - expected) ** 2 / expected).sum() < 13.8  # chi-square with 2 degrees of freedom, p = 0.001


def test_at_the_ends_of_epsilon_no_action_is_left_to_chance() -> None:
    obs = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    always = small_agent(num_envs=40, exploration=ConstantConfig("constant", 1.0))
    never = small_agent(num_envs=40, exploration=ConstantConfig("constant", 0.0))
    with torch.no_grad():
        expected = never.networks["q_network"](torch.from_numpy(obs)).argmax(-1).numpy()
    assert np.array_equal(never.act(obs), expected)
    assert set(always.act(obs).tolist()) == {0, 1, 2}


def test_acting_greedily_draws_no_random_number() -> None:
    agent = small_agent()
    before = copy.deepcopy(agent.state_dict()["state"])
    agent.act_greedy(np.zeros((5, 3), np.float32))
    assert agent.state_dict()["state"] == before


@pytest.mark.parametrize("num_envs", [1, 4])
@pytest.mark.parametrize("unit", ["env_steps", "gradient_steps", "episodes"])
@pytest.mark.parametrize("train_period", [1, 3])
def test_the_hard_target_is_the_network_at_each_multiple_and_the_old_one_in_between(
    num_envs: int, unit: str, train_period: int
) -> None:
    period = 3 if unit == "episodes" else 10
    agent = small_agent(
        num_envs=num_envs, target_update=HardUpdateConfig("hard", period, unit),  # type: ignore[arg-type]
        algo_train_period=train_period, algo_gradient_steps=2 if train_period == 3 else 1,
        algo_learning_starts=16, algo_optimizer=optimizer(lr=0.01),
    )  # fmt: skip
    target, copies = part(agent, "target_network."), 0
    assert torch.equal(target, part(agent, "q_network."))
    counts = {"env_steps": 0, "gradient_steps": 0, "episodes": 0}
    networks: dict[int, Tensor] = {}  # after each gradient step
    record_networks(agent, networks)
    for _ in drive(agent, ScriptedEnvs(num_envs), 120 // num_envs):
        state = agent.state_dict()["state"]
        now = {unit: state[unit] for unit in counts}
        passed = range(counts[unit], now[unit]) if unit == "episodes" else range(counts[unit] + 1, now[unit] + 1)
        due = [count for count in passed if count % period == 0]
        if due:
            copies += 1
            target = networks[due[-1]] if unit == "gradient_steps" else part(agent, "q_network.")
        assert torch.equal(part(agent, "target_network."), target), now
        counts = now
    assert copies > 3
    assert counts["gradient_steps"] > 30


def record_networks(agent: OffPolicyAgent, networks: dict[int, Tensor]) -> None:
    """Lets each of the agent's gradient steps note the network that it makes."""
    learn = agent._learner.learn

    def recorded() -> None:
        learn()
        networks[len(networks) + 1] = part(agent, "q_network.")

    agent._learner.learn = recorded  # type: ignore[method-assign]


def test_the_soft_target_follows_every_gradient_step() -> None:
    agent = small_agent(target_update=SoftUpdateConfig("soft", 0.1, 1, "gradient_steps"), algo_learning_starts=2)
    target = part(agent, "target_network.").double().numpy()
    for metrics in drive(agent, ScriptedEnvs(1), 30):
        if metrics:
            target = 0.1 * part(agent, "q_network.").double().numpy() + 0.9 * target
        np.testing.assert_allclose(part(agent, "target_network.").numpy(), target, rtol=1e-5, atol=1e-7)


def test_neither_gradients_nor_weight_decay_move_the_target() -> None:
    agent = small_agent(
        target_update=HardUpdateConfig("hard", 10**6, "env_steps"),
        algo_learning_starts=1, algo_optimizer=optimizer("adamw", weight_decay=0.5, lr=0.1),
    )  # fmt: skip
    before = part(agent, "target_network.")
    list(drive(agent, ScriptedEnvs(1), 20))
    assert torch.equal(part(agent, "target_network."), before)
    assert not torch.equal(part(agent, "q_network."), before)


@pytest.mark.parametrize(
    ("num_envs", "n_step", "observation", "stopped_at"),
    [(1, 1, VECTOR, 0), (1, 3, IMAGES, 45), (4, 1, STATES, 12), (4, 3, VECTOR, 7), (4, 3, STATES, 0)],
)
def test_an_agent_stopped_at_k_continues_bit_for_bit(
    num_envs: int, n_step: int, observation: ObservationSpec, stopped_at: int, device: torch.device
) -> None:
    changes: dict[str, Any] = {
        "num_envs": num_envs, "algo_n_step": n_step, "algo_buffer_size": 33, "algo_train_period": 2,
        "target_update": SoftUpdateConfig("soft", 0.3, 2, "episodes"),
    }  # fmt: skip

    def make(seed: int = 0) -> OffPolicyAgent:
        return small_agent(device, observation, seed=seed, **changes)

    agent, envs = make(), ScriptedEnvs(num_envs, observation)
    list(drive(agent, envs, stopped_at))
    state = copy.deepcopy(agent.state_dict())
    resumed, resumed_envs = make(seed=9), copy.deepcopy(envs)
    resumed.load_state_dict(state)
    runs = [list(drive(a, e, 40 // num_envs)) for a, e in ((agent, envs), (resumed, resumed_envs))]
    first, second = ([{tag: value.item() for tag, value in step.items()} for step in run] for run in runs)
    assert first == second
    assert any(first)
    assert_same_state(agent, resumed)


def test_abandoned_episodes_leave_no_window_behind() -> None:
    agent, envs = small_agent(algo_n_step=3, algo_learning_starts=1000), ScriptedEnvs(1, end=0.0)
    list(drive(agent, envs, 4))
    assert agent.replay.size == 2
    agent.abandon_episodes(np.array([True]))
    list(drive(agent, envs, 2))
    assert agent.replay.size == 2  # a window of three steps would span two episodes
    list(drive(agent, envs, 1))
    assert agent.replay.size == 3


def test_a_network_from_elsewhere_becomes_the_target_too() -> None:
    agent, other = small_agent(seed=0), small_agent(seed=1)
    agent.load_network(network_of(other))
    for prefix in ("q_network.", "target_network."):
        assert torch.equal(part(agent, prefix), part(other, "q_network."))


def test_the_network_starts_the_same_on_every_device_and_differs_by_seed(device: torch.device) -> None:
    assert torch.equal(part(small_agent(device), "q_network.").cpu(), part(small_agent(), "q_network."))
    assert not torch.equal(part(small_agent(seed=1), "q_network."), part(small_agent(), "q_network."))


def test_sizes_for_the_header() -> None:
    agent = small_agent()
    assert agent.num_parameters == {"q_network": 3 * 8 + 8 + 8 * DISCRETE.n + DISCRETE.n}
    assert agent.replay_bytes == 50 * (3 * 4 + 8 + 4 + 3 * 4 + 4)


def test_the_metrics_of_several_gradient_steps_are_averaged() -> None:
    one, three = {"loss": torch.tensor(1.0)}, {"loss": torch.tensor(3.0)}
    assert mean_metrics([]) == {}
    assert mean_metrics([one]) is one
    assert mean_metrics([one, three]) == {"loss": torch.tensor(2.0)}
