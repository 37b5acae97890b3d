"""Greedy evaluation: exactly so many episodes, the same ones whatever else happened, nobody favoured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from halves import often
from probe_envs import Scarce
from small_runs import CPU, dqn_config, env_config, ppo_config, run_config

from rltrain.agents import AgentContext, make_agent
from rltrain.config.schema import AlgoConfig, RunConfig
from rltrain.config.wrappers import NormalizeObservationConfig
from rltrain.errors import RequestError
from rltrain.jobs.build import build_envs
from rltrain.seeding import derive_seed
from rltrain.training import evaluator as module
from rltrain.training.evaluator import EpisodeStatistics, Evaluator

RANDOM_LENGTH = env_config("probe_envs:ConstantTerminated-v0")  # one per step, ends with probability 1/10


class AlwaysZero:
    """A policy; it has nothing but act_greedy, so nothing else can be asked of it."""

    def __init__(self) -> None:
        self.first_obs: list[np.ndarray] = []
        self.calls = 0

    most_calls = 1000

    def act_greedy(self, obs: np.ndarray) -> np.ndarray:
        if self.calls == 0:
            self.first_obs = [row.copy() for row in obs]
        self.calls += 1
        assert self.calls < self.most_calls, "this evaluation does not end"
        return np.zeros(len(obs), np.int64)


class Patient(AlwaysZero):
    most_calls = 30_000


def returns_of(evaluator: Evaluator, episodes: int, key: int) -> tuple[float, ...]:
    statistics = evaluator.evaluate(AlwaysZero(), episodes, key)
    assert statistics is not None
    return statistics.returns


def test_the_same_policy_seed_and_key_give_the_same_returns_whatever_else_happened() -> None:
    evaluator = Evaluator(RANDOM_LENGTH, 0, 30)
    first = returns_of(evaluator, 30, 5000)
    assert len(first) == 30
    returns_of(evaluator, 7, 123)
    assert returns_of(evaluator, 30, 5000) == first
    assert returns_of(Evaluator(RANDOM_LENGTH, 0, 30), 30, 5000) == first
    assert returns_of(evaluator, 30, 5001) != first
    assert returns_of(Evaluator(RANDOM_LENGTH, 1, 30), 30, 5000) != first


def test_how_many_play_side_by_side_does_not_matter() -> None:
    """One after the other, short episodes cannot be favoured; so they are not with 20 lanes either."""
    alone = returns_of(Evaluator(RANDOM_LENGTH, 3, 1), 45, 1)
    assert len(set(alone)) > 10
    for most in (7, 20, 100):
        assert returns_of(Evaluator(RANDOM_LENGTH, 3, most), 45, 1) == alone


def test_fewer_episodes_are_the_first_of_more() -> None:
    evaluator = Evaluator(RANDOM_LENGTH, 0, 100)
    assert returns_of(evaluator, 3, 1) == returns_of(evaluator, 50, 1)[:3]


def test_every_lane_has_a_stream_of_its_own_that_no_training_episode_has(monkeypatch: pytest.MonkeyPatch) -> None:
    used: set[int] = set()

    def record(seed: int, *purpose_and_keys: object) -> int:
        drawn = derive_seed(seed, *purpose_and_keys)  # type: ignore[arg-type]
        used.add(drawn)
        return drawn

    monkeypatch.setattr(module, "derive_seed", record)
    policy = AlwaysZero()
    Evaluator(env_config("probe_envs:Counter-v0"), 0, 20).evaluate(policy, 40, 1)
    assert len({float(row[0]) for row in policy.first_obs}) == 20
    training = {derive_seed(0, "environment", env, number) for env in range(20) for number in range(200)}
    assert len(used) >= 40
    assert not used & training


def test_returns_are_undiscounted_and_unclipped() -> None:
    config = replace(env_config("probe_envs:FixedLength-v0"), reward_clip=1.0)
    assert returns_of(Evaluator(config, 0, 4), 4, 1) == (21.0,) * 4


def test_statistics_are_those_of_the_returns() -> None:
    statistics = EpisodeStatistics((1.0, 2.0, 6.0))
    assert statistics.to_plain() == {"mean": 3.0, "std": pytest.approx((14.0 / 3.0) ** 0.5), "min": 1.0, "max": 6.0}


def test_a_request_to_stop_drops_the_evaluation_and_the_next_one_is_whole() -> None:
    evaluator, looks = Evaluator(RANDOM_LENGTH, 0, 10), iter([False] * 3 + [True] * 100)
    assert evaluator.evaluate(AlwaysZero(), 10, 1, lambda: next(looks)) is None
    assert returns_of(evaluator, 10, 1) == returns_of(Evaluator(RANDOM_LENGTH, 0, 10), 10, 1)


def test_an_episode_that_never_ends_is_cut() -> None:
    endless = Evaluator(env_config("probe_envs:Pid-v0"), 0, 2, total_steps=12_000)
    found = endless.evaluate(AlwaysZero(), 2, 1)
    assert found == EpisodeStatistics((0.0, 0.0), asked=2, cut=2, cut_at=600)
    limited = Evaluator(replace(env_config("probe_envs:FixedLength-v0"), max_episode_steps=5), 0, 1)
    assert returns_of(limited, 1, 1) == (15.0,)
    endless.close()
    endless.close()


STRAGGLER = env_config("probe_envs:Straggler-v0")  # one reward per step; one episode in five never ends


def in_their_order(key: int, episodes: int, steps: int, longest: int) -> tuple[list[float], int]:
    """The returns that one environment finds, episode after episode, until they have made `steps`; how many are cut."""
    env = gymnasium.make("Straggler-v0")
    returns: list[float] = []
    while len(returns) < episodes and sum(returns) < steps:
        env.reset(seed=derive_seed(0, "evaluation", key, len(returns)))
        length, ended = 0, False
        while not ended and length < longest:
            ended, length = env.step(0)[2], length + 1
        returns.append(float(length))
    return returns, sum(length == longest for length in returns)


@pytest.mark.parametrize(
    ("key", "episodes", "steps"),
    often([(0, 100, 14_000), (4_000, 10, 1_000), ((1 << 48) + 9, 100, 14_000)], [(0, 100, 14_000), (4_000, 10, 1_000)]),
)
def test_without_a_time_limit_it_makes_as_many_steps_as_the_training(key: int, episodes: int, steps: int) -> None:
    """Whole episodes, the first ones, and the same however many are played side by side."""
    returns, cut = in_their_order(key, episodes, steps, longest=700)
    assert cut >= 2 and (len(returns) < episodes or key > 1 << 48)
    for num_envs in (1, 3, "auto"):
        evaluator = Evaluator(STRAGGLER, 0, 100, num_envs=num_envs, period=1_000, total_steps=14_000)  # type: ignore[arg-type]
        found = evaluator.evaluate(Patient(), episodes, key)
        assert found == EpisodeStatistics(tuple(returns), episodes, cut, 700), num_envs


def test_members_are_bounded_each_by_its_own_training() -> None:
    together = Evaluator(STRAGGLER, [0, 1], 60, total_steps=[16_000, 12_000])
    found = together.evaluate_members(Patient(), 60, {0: 0, 1: 0})
    assert found is not None
    assert (found[0].cut_at, found[1].cut_at) == (800, 600)
    for member, total_steps in enumerate((16_000, 12_000)):
        assert Evaluator(STRAGGLER, member, 60, total_steps=total_steps).evaluate(Patient(), 60, 0) == found[member]


def test_a_request_to_stop_leaves_the_episodes_that_have_ended() -> None:
    looks = iter([False] * 3 + [True] * 100)
    found = Evaluator(RANDOM_LENGTH, 0, 20).evaluate(AlwaysZero(), 20, 1, lambda: next(looks), partly=True)
    assert found is not None and found.interrupted and set(found.returns) <= {1.0, 2.0, 3.0}
    whole = returns_of(Evaluator(RANDOM_LENGTH, 0, 20), 20, 1)
    assert sorted(found.returns) == sorted(length for length in whole if length <= 3)
    assert found.count_to_plain() == {"episodes": len(found.returns), "episodes_asked": 20, "partial": True}
    assert Evaluator(RANDOM_LENGTH, 0, 20).evaluate(AlwaysZero(), 20, 1, lambda: True, partly=True) is None


class TestEnvironments:
    """How many are made: each once, as many as pays, and never more than the machine can hold."""

    @pytest.fixture(autouse=True)
    def none_made(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(Scarce, "made", 0)
        yield
        assert Scarce.alive == 0

    @pytest.mark.parametrize(("most", "asked", "made"), [(1, "auto", 1), (7, "auto", 7), (90, "auto", 20), (90, 3, 3)])
    def test_as_many_as_there_can_be(self, most: int, asked: Any, made: int) -> None:
        evaluator = Evaluator(env_config("probe_envs:Scarce-v0", most=most), 0, 100, num_envs=asked)
        assert evaluator.num_envs is None
        for key in (1, 2):
            assert returns_of(evaluator, 30, key) == (10.0,) * 30
        assert (evaluator.num_envs, Scarce.made) == (made, made)
        evaluator.close()

    def test_no_more_than_episodes(self) -> None:
        evaluator = Evaluator(env_config("probe_envs:Scarce-v0", most=90), 0, 3, num_envs=50)
        assert returns_of(evaluator, 3, 1) == (10.0,) * 3 and Scarce.made == 3
        evaluator.close()

    def test_as_many_of_each_member(self) -> None:
        evaluator = Evaluator(env_config("probe_envs:Scarce-v0", most=8), [0, 1, 2], 5)
        assert evaluator.open().num_envs == 6 and Scarce.alive == 6
        evaluator.close()
        with pytest.raises(RequestError, match="the port is in use"):
            Evaluator(env_config("probe_envs:Scarce-v0", most=2), [0, 1, 2], 5).open()

    @pytest.mark.parametrize(("vectorization", "of_each"), [("auto", 20), ("batched", 20), ("sync", 320 // 30)])
    def test_many_members_have_few_each_but_where_a_twin_steps_all_at_once(
        self, vectorization: Any, of_each: int
    ) -> None:
        config = replace(env_config("CartPole-v1"), vectorization=vectorization)
        evaluator = Evaluator(config, list(range(30)), 100)
        evaluator.open()
        assert evaluator.num_envs == of_each
        evaluator.close()

    def test_few_where_each_takes_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_MAKING_SECONDS", 0.05)
        evaluator = Evaluator(env_config("probe_envs:Scarce-v0", most=90, seconds=0.03), 0, 100)
        assert evaluator.open().num_envs in (2, 3)
        evaluator.close()


def test_the_threshold_is_the_environments() -> None:
    assert Evaluator(env_config("CartPole-v1"), 0, 1).reward_threshold == 475.0
    assert Evaluator(RANDOM_LENGTH, 0, 1).reward_threshold is None


def test_an_evaluation_uses_each_members_statistics_and_leaves_them_as_they_are():
    config = replace(env_config("CartPole-v1"), wrappers=(NormalizeObservationConfig("normalize_observation"),))
    name = "statistics.normalize_observation."
    mean = np.array([[0.1] * 4, [1.1] * 4])
    given = {f"{name}count": np.full(2, 9.0), f"{name}mean": mean, f"{name}m2": np.full((2, 4), 36.0)}
    seen = []

    class Left:
        def act_greedy(self, obs):
            seen.append(obs)
            return np.zeros(len(obs), np.int64)

    evaluator = Evaluator(config, [0, 1], 2, lambda: given)
    evaluator.evaluate_members(Left(), 4, {0: 1, 1: 1})
    assert all(np.array_equal(array, given[key]) for key, array in evaluator._envs.statistics().items())
    starts = seen[0].reshape(2, 2, 4)  # within 0.05 of 0, minus the mean, over 2
    assert (abs(starts + mean[:, None] / 2) <= 0.026).all()


class TestSomeMembers:
    """Of a population, those that are evaluated are asked alone where that plays the same episodes."""

    WRAPPED = replace(
        env_config("CartPole-v1"), wrappers=(NormalizeObservationConfig("normalize_observation"),), vectorization="auto"
    )

    def agent(self, config: RunConfig) -> Any:
        algos = [replace(config.algo, gamma=gamma) for gamma in (0.9, 0.7, 0.5)]
        configs = tuple(replace(config, seed=seed, algo=algo) for seed, algo in enumerate(algos))
        with closing(build_envs(config, configs)) as envs:
            context = AgentContext(configs[0], envs.observation_spec, envs.action_spec, CPU, population=configs)
        return make_agent(context)

    def evaluator(self, config: RunConfig) -> Evaluator:
        name = "statistics.normalize_observation."
        mean, spread = np.arange(12.0).reshape(3, 4) / 10, np.full((3, 4), 9.0)
        given = {f"{name}count": np.full(3, 9.0), f"{name}mean": mean, f"{name}m2": spread}
        return Evaluator(config.env, [5, 6, 7], 30, lambda: given, period=100, total_steps=[1000, 2000, 3000])

    @pytest.mark.parametrize("algo", [dqn_config(), ppo_config()], ids=["dqn", "ppo"])
    @pytest.mark.parametrize("keys", [{1: 500}, {2: 100, 0: 700}])
    def test_have_the_results_that_they_have_among_all(self, algo: AlgoConfig, keys: dict[int, int]) -> None:
        config = run_config(algo, env=self.WRAPPED)
        agent, made = self.agent(config), list[int]()
        greedy = agent.greedy_of
        agent.greedy_of = lambda members, rows: made.append(len(members)) or greedy(members, rows)
        alone = self.evaluator(config).evaluate_members(agent, 30, keys)
        assert made == [len(keys)]
        agent.greedy_of = lambda members, rows: None
        assert alone == self.evaluator(config).evaluate_members(agent, 30, keys)
        assert alone is not None and {*alone} == {*keys}
        assert all(found.diagnostics["diagnostics/value"] for found in alone.values())

    def test_are_asked_among_all_where_environments_are_stepped_one_by_one(self) -> None:
        config = run_config(dqn_config(), env=replace(self.WRAPPED, vectorization="sync"))
        agent = self.agent(config)
        agent.greedy_of = lambda members, rows: pytest.fail("who is idle is not stepped, and costs nothing")
        assert self.evaluator(config).evaluate_members(agent, 2, {1: 500})
