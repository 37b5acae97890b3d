"""Greedy evaluation: exactly so many episodes, the same ones whatever else happened, nobody favoured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_runs import env_config

from rltrain.config.wrappers import NormalizeObservationConfig
from rltrain.seeding import derive_seed
from rltrain.training import evaluator as module
from rltrain.training.evaluator import EpisodeStatistics, Evaluator

RANDOM_LENGTH = env_config("probe_envs:ConstantTerminated-v0")  # one per step, ends with probability 1/10


class AlwaysZero:
    """A policy; it has nothing but act_greedy, so nothing else can be asked of it."""

    def __init__(self) -> None:
        self.first_obs: list[np.ndarray] = []
        self.calls = 0

    def act_greedy(self, obs: np.ndarray) -> np.ndarray:
        if self.calls == 0:
            self.first_obs = [row.copy() for row in obs]
        self.calls += 1
        assert self.calls < 1000, "this evaluation does not end"
        return np.zeros(len(obs), np.int64)


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


def test_an_episode_that_never_ends_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_EPISODE", 30)
    endless = Evaluator(env_config("probe_envs:Pid-v0"), 0, 2)
    assert returns_of(endless, 2, 1) == (0.0, 0.0)
    limited = Evaluator(replace(env_config("probe_envs:FixedLength-v0"), max_episode_steps=5), 0, 1)
    assert returns_of(limited, 1, 1) == (15.0,)
    endless.close()
    endless.close()


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
