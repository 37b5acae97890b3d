"""Tabular Q-learning: the rule against hand values and a naive table, how it explores, that it can be saved."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import (
    BOX,
    CPU,
    DISCRETE,
    STATES,
    VECTOR,
    ScriptedEnvs,
    assert_same_state,
    drive,
    make_agent,
    q_learning_config,
    run_config,
)

from rltrain.agents import POLICIES, AgentContext
from rltrain.agents.q_learning import QLearning, epsilon_greedy, step_size, td_target
from rltrain.config.schema import ConstantConfig, LinearConfig, PerEpisodeConfig, RunConfig
from rltrain.errors import RequestError
from rltrain.types import Episode, Transition


def config_of(**changes: Any) -> RunConfig:
    """`algo_<key>=...` changes the algorithm's keys, anything else the run's."""
    algo = {key.removeprefix("algo_"): value for key, value in changes.items() if key.startswith("algo_")}
    run = {key: value for key, value in changes.items() if not key.startswith("algo_")}
    return run_config(q_learning_config(**algo), **run)


def small_agent(**changes: Any) -> QLearning:
    agent = make_agent(config_of(**changes), STATES)
    assert isinstance(agent, QLearning)
    return agent


def transition(
    *rows: tuple[int, int, float, int], terminated: tuple[bool, ...] = (), truncated: tuple[bool, ...] = ()
) -> Transition:
    """One vector step from rows (s, a, r, s'), one per environment."""
    obs, action, reward, next_obs = (np.array(column) for column in zip(*rows, strict=True))
    never = (False,) * len(rows)
    return Transition(
        obs, action, reward.astype(np.float32), next_obs, np.array(terminated or never), np.array(truncated or never),
        np.ones(len(rows), np.bool_),
    )  # fmt: skip


def learn(agent: QLearning, step: Transition) -> dict[str, float]:
    agent.observe(step, [])
    return {tag: value.item() for tag, value in agent.update().items()}


def test_one_update_by_hand() -> None:
    agent = small_agent(algo_alpha=0.25, algo_gamma=0.5)
    agent.q_table[0, 2] = [3.0, 1.0, 2.0]
    agent.q_table[0, 4] = [-1.0, 6.0, 2.0]
    metrics = learn(agent, transition((2, 1, 4.0, 4)))
    # The target is 4 + 0.5 * 6 = 7, the error 6, and a quarter of it is learnt.
    assert agent.q_table[0, 2].tolist() == [3.0, 2.5, 2.0]
    assert agent.q_table[0, 4].tolist() == [-1.0, 6.0, 2.0]
    assert metrics == {"train/td_loss": 36.0, "train/q_value": 1.0, "train/learning_rate": 0.25}
    assert agent.visits.sum() == agent.visits[0, 2, 1] == 1
    assert agent.q_table.dtype == np.float64


def test_values_that_are_large_have_an_error_that_is_finite() -> None:
    agent = small_agent(algo_initial_value=1e25, algo_alpha=0.5)
    assert learn(agent, transition((2, 1, 0.0, 4)))["train/td_loss"] == pytest.approx(1e48)


@pytest.mark.parametrize(
    ("terminated", "truncated", "expected"), [(True, False, 2.0), (False, True, 3.5), (True, True, 2.0)]
)
def test_nothing_follows_a_termination_and_a_cut_has_its_value(
    terminated: bool, truncated: bool, expected: float
) -> None:
    agent = small_agent(algo_alpha=0.5, algo_gamma=0.5)
    agent.q_table[0, 5] = 6.0
    learn(agent, transition((0, 0, 4.0, 5), terminated=(terminated,), truncated=(truncated,)))
    assert agent.q_table[0, 0, 0] == expected


def test_environments_are_learnt_in_their_order_each_from_what_the_one_before_left() -> None:
    agent = small_agent(algo_alpha=0.5, algo_gamma=0.5, num_envs=3)
    metrics = learn(agent, transition((0, 0, 4.0, 1), (0, 0, 4.0, 1), (3, 2, 0.0, 0)))
    # 0 + (4 - 0) / 2 = 2; 2 + (4 - 2) / 2 = 3; then a half of 0.5 * 3.
    assert agent.q_table[0, 0, 0] == 3.0
    assert agent.q_table[0, 3, 2] == 0.75
    assert agent.visits[0, 0, 0] == 2
    assert metrics["train/td_loss"] == pytest.approx((16 + 4 + 2.25) / 3)
    assert metrics["train/q_value"] == pytest.approx(2 / 3)


def test_the_step_size_falls_with_the_visits_of_the_pair() -> None:
    assert [step_size(0.5, 0.0, n) for n in (1, 2, 100)] == [0.5, 0.5, 0.5]
    assert [step_size(1.0, 1.0, n) for n in (1, 2, 4)] == [1.0, 0.5, 0.25]
    assert step_size(0.8, 0.5, 16) == pytest.approx(0.2)
    assert td_target(1.0, 0.5, [-3.0, 2.0, 1.0]) == 2.0


def test_a_decay_of_one_is_the_mean_of_the_targets() -> None:
    agent = small_agent(algo_alpha=1.0, algo_alpha_decay=1.0, algo_initial_value=50.0)
    rates = [learn(agent, transition((1, 0, r, 0), terminated=(True,)))["train/learning_rate"] for r in (4.0, 1.0, 7.0)]
    assert agent.q_table[0, 1, 0] == pytest.approx(4.0)
    assert rates == pytest.approx([1, 1 / 2, 1 / 3])
    learn(agent, transition((1, 1, 3.0, 0), terminated=(True,)))
    assert agent.q_table[0, 1].tolist() == [pytest.approx(4.0), 3.0, 50.0]  # another pair has visits of its own


class Naive:
    """The rule once more, with dictionaries."""

    def __init__(self, config: RunConfig) -> None:
        self.algo: Any = config.algo
        self.q: dict[tuple[int, int], float] = {}
        self.n: dict[tuple[int, int], int] = {}

    def learn(self, t: Transition) -> None:
        for i in range(len(t.obs)):
            pair, best = (int(t.obs[i]), int(t.action[i])), -np.inf
            for action in range(DISCRETE.n):
                best = max(best, self.value(int(t.next_obs[i]), action))
            goal = float(t.reward[i]) + (0 if t.terminated[i] else self.algo.gamma * best)
            self.n[pair] = self.n.get(pair, 0) + 1
            rate = self.algo.alpha / self.n[pair] ** self.algo.alpha_decay
            self.q[pair] = (1 - rate) * self.value(*pair) + rate * goal

    def value(self, state: int, action: int) -> float:
        return self.q.get((state, action), self.algo.initial_value)


@settings(max_examples=15, deadline=None)
@given(
    num_envs=st.sampled_from([1, 3]), decay=st.sampled_from([0.0, 0.6, 1.0]), initial=st.sampled_from([0.0, 2.0]),
    gamma=st.sampled_from([0.0, 0.9, 1.0]), seed=st.integers(0, 1000),
)  # fmt: skip
def test_it_equals_a_naive_table(num_envs: int, decay: float, initial: float, gamma: float, seed: int) -> None:
    agent = small_agent(algo_alpha_decay=decay, algo_initial_value=initial, algo_gamma=gamma, num_envs=num_envs)
    naive, envs = Naive(config_of(**{f"algo_{k}": v for k, v in vars(agent._algos[0]).items()})), ScriptedEnvs
    scripted = envs(num_envs, STATES, seed=seed)
    for _ in range(60):
        step, episodes = scripted.step(agent.act(scripted.obs), agent.active)
        agent.observe(step, episodes)
        agent.update()
        naive.learn(step)
    expected = [[naive.value(s, a) for a in range(DISCRETE.n)] for s in range(STATES.n)]
    np.testing.assert_allclose(agent.q_table[0], expected, rtol=1e-12, atol=1e-12)


def test_epsilon_greedy_explores_uniformly_and_breaks_ties_evenly() -> None:
    grid = (np.arange(1200) + 0.5) / 1200
    q_values = [1.0, 7.0, 7.0, -2.0]
    assert np.bincount([epsilon_greedy(q_values, 0.1, 0.0999, u) for u in grid]).tolist() == [300] * 4
    assert np.bincount([epsilon_greedy(q_values, 0.1, 0.1, u) for u in grid]).tolist() == [0, 600, 600]
    assert {epsilon_greedy([3.0, 5.0], 0.0, 0.0, u) for u in (0.0, 0.99999)} == {1}


def test_training_breaks_ties_at_random_and_evaluation_does_not() -> None:
    agent = small_agent(num_envs=300, exploration=ConstantConfig("constant", 0.0))
    agent.q_table[0, 1] = [0.0, 5.0, 5.0]
    obs = np.repeat([0, 1], 150)
    action = agent.act(obs)
    assert action.dtype == np.int64
    assert set(action[:150].tolist()) == {0, 1, 2} and set(action[150:].tolist()) == {1, 2}
    before = copy.deepcopy(agent.state_dict()["state"])
    assert agent.act_greedy(obs).tolist() == [0] * 150 + [1] * 150, "of equal values the first"
    assert agent.state_dict()["state"] == before, "acting greedily draws no random number"


def test_actions_are_greedy_or_uniform_with_probability_epsilon() -> None:
    agent, counts = small_agent(num_envs=50, exploration=ConstantConfig("constant", 0.4)), np.zeros(3)
    agent.q_table[0] = np.random.default_rng(0).normal(size=(6, 3))
    for _ in range(100):
        obs = np.random.default_rng(0).integers(0, 6, 50)
        counts += np.bincount((agent.act(obs) - agent.act_greedy(obs)) % 3, minlength=3)
    expected = 5000 * np.array([0.6 + 0.4 / 3, 0.4 / 3, 0.4 / 3])
    assert ((counts - expected) ** 2 / expected).sum() < 13.8  # chi-square with 2 degrees of freedom, p = 0.001


def test_epsilon_is_the_same_at_the_same_environment_step() -> None:
    curves: dict[int, dict[int, float]] = {}
    for num_envs in (1, 4):
        agent = small_agent(num_envs=num_envs, exploration=LinearConfig("linear", 1.0, 0.1, 60))
        curves[num_envs] = {0: agent.epsilon()}
        for k, _ in enumerate(drive(agent, ScriptedEnvs(num_envs, STATES), 80 // num_envs), start=1):
            curves[num_envs][k * num_envs] = agent.scalars()["train/epsilon"]
        assert agent.gradient_steps == 80
    assert all(curves[1][step] == epsilon for step, epsilon in curves[4].items())
    assert curves[4][0] == 1.0 and curves[4][40] == pytest.approx(0.4)


def test_epsilon_falls_with_the_episodes_of_all_environments() -> None:
    agent = small_agent(num_envs=2, exploration=PerEpisodeConfig("per_episode", 1.0, 0.1, 0.5))
    agent.observe(transition((0, 0, 0.0, 1), (0, 0, 0.0, 1)), [Episode(1, 0, 0.0, 3), Episode(0, 0, 0.0, 3)])
    assert agent.epsilon() == 0.25


@pytest.mark.parametrize("num_envs", [1, 3])
def test_saved_and_loaded_it_goes_on_as_if_nothing_happened(num_envs: int) -> None:
    agent, envs = small_agent(num_envs=num_envs, algo_alpha_decay=0.7), ScriptedEnvs(num_envs, STATES)
    list(drive(agent, envs, 20))
    state = copy.deepcopy(agent.state_dict())
    resumed, resumed_envs = small_agent(num_envs=num_envs, algo_alpha_decay=0.7, seed=9), copy.deepcopy(envs)
    resumed.load_state_dict(state)
    runs = [list(drive(a, e, 30)) for a, e in ((agent, envs), (resumed, resumed_envs))]
    assert runs[0] == runs[1]
    assert_same_state(agent, resumed)


def test_the_state_is_a_copy() -> None:
    agent = small_agent()
    state = agent.state_dict()
    learn(agent, transition((0, 0, 4.0, 1)))
    assert state["network"]["q_table"].abs().sum() == 0 == state["optimizer"]["visits"].sum()


def test_a_table_from_elsewhere_is_taken_if_it_fits() -> None:
    agent, table = small_agent(), torch.arange(18, dtype=torch.float64).reshape(6, 3)
    agent.load_network({"q_table": table})
    assert agent.act_greedy(np.arange(6)).tolist() == [2] * 6
    assert agent.q_table[0].tolist() == table.tolist()
    with pytest.raises(ValueError, match=r"shape \(5, 3\), not \(6, 3\)"):
        agent.load_network({"q_table": table[:5]})


@pytest.mark.parametrize(("observation", "action"), [(VECTOR, DISCRETE), (STATES, BOX)])
def test_other_spaces_are_refused(observation: Any, action: Any) -> None:
    with pytest.raises(RequestError, match="algo=q_learning: needs Discrete observations and Discrete actions"):
        POLICIES["q_learning"](AgentContext(config_of(), observation, action, CPU))


def population(configs: list[RunConfig]) -> QLearning:
    return QLearning(AgentContext(configs[0], STATES, DISCRETE, CPU, population=tuple(configs)))


def test_members_are_their_single_runs_bit_for_bit() -> None:
    own = [
        {"seed": 3, "algo_gamma": 0.5, "algo_alpha": 0.9, "algo_alpha_decay": 0.6, "algo_initial_value": 1.0},
        {"seed": 4, "exploration": LinearConfig("linear", 0.5, 0.0, 20)},
        {"seed": 5, "algo_gamma": 0.99, "algo_alpha": 0.1, "algo_alpha_decay": 1.0},
    ]
    configs = [config_of(num_envs=2, **changes) for changes in own]
    together, singles = population(configs), [make_agent(config, STATES) for config in configs]
    all_envs = [ScriptedEnvs(2, STATES, seed=member) for member in range(3)]
    alone = copy.deepcopy(all_envs)
    for step in range(80):
        if step == 50:
            together.retire(1)
            retired = copy.deepcopy(together.state_dict(1))
        obs = np.concatenate([envs.obs for envs in all_envs])
        actions, active = together.act(obs), together.active.copy()
        parts = [e.step(actions[2 * m : 2 * m + 2], active[2 * m : 2 * m + 2]) for m, e in enumerate(all_envs)]
        columns = (np.concatenate([getattr(t, key) for t, _ in parts]) for key in Transition.__slots__)
        episodes = [Episode(2 * m + e.env, e.number, 0.0, e.length) for m, (_, own_ones) in enumerate(parts)
                    for e in own_ones]  # fmt: skip
        together.observe(Transition(*columns), episodes)
        metrics = together.update()
        for member, (single, envs) in enumerate(zip(singles, alone, strict=True)):
            if member == 1 and step >= 50:
                continue
            (found,) = drive(single, envs, 1)
            assert {tag: value[member].item() for tag, value in metrics.items()} == {
                tag: value.item() for tag, value in found.items()
            }
    for member, single in enumerate(singles):
        found, expected = together.state_dict(member), single.state_dict()
        assert found["state"] == expected["state"]
        assert torch.equal(found["network"]["q_table"], expected["network"]["q_table"])
        assert torch.equal(found["optimizer"]["visits"], expected["optimizer"]["visits"])
    assert together.state_dict(1)["state"] == retired["state"]
    assert torch.equal(together.state_dict(1)["network"]["q_table"], retired["network"]["q_table"])
    lanes = np.tile(np.arange(6), 3)
    greedy = [agent.act_greedy(np.arange(6)) for agent in singles]
    assert together.act_greedy(lanes).tolist() == np.concatenate(greedy).tolist()


def test_sizes_for_the_header() -> None:
    agent = small_agent()
    assert (agent.num_parameters, agent.replay_bytes) == ({"q_table": 18}, 0)


def test_what_is_exported_looks_the_greedy_action_up() -> None:
    agent = small_agent()
    agent.q_table[0] = np.random.default_rng(0).normal(size=(6, 3))
    obs = np.array([5, 0, 3, 3, 1])
    assert agent.greedy_module()(torch.from_numpy(obs)).tolist() == agent.act_greedy(obs).tolist()
