"""`env.vectorization=auto` among the ways that give the same numbers: what it takes, and what it tells."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from small_runs import env_config

from rltrain.config.schema import EnvConfig
from rltrain.envs import choice
from rltrain.envs.batched import BATCHED_ENVS
from rltrain.envs.batched.cartpole import CartPole
from rltrain.envs.choice import BATCHED_FROM, Choice, choose_exact
from rltrain.envs.make_vector import make_vector_env
from rltrain.seeding import derive_seed


def auto(id: str = "CartPole-v1", **kwargs: Any) -> EnvConfig:
    return replace(env_config(id, **kwargs), vectorization="auto")


@pytest.mark.parametrize("way", ["sync", "async", "batched", "compiled"])
def test_a_way_that_is_asked_for_is_taken(way: Any) -> None:
    assert choose_exact(replace(auto(), vectorization=way), 64) == Choice(way)


@pytest.mark.parametrize("id", [id for id in BATCHED_ENVS if "/" not in id])
@pytest.mark.filterwarnings("ignore:.*out of date")
def test_many_environments_are_batched_where_they_have_a_twin(id: str) -> None:
    assert choose_exact(auto(id), BATCHED_FROM) == Choice(
        "batched", "the numbers of sync, faster from 8 environments on"
    )
    assert choose_exact(auto(id), BATCHED_FROM - 1) == Choice("sync", "the fastest for fewer than 8 environments")


def test_a_twin_may_pay_from_more_environments_on() -> None:
    pytest.importorskip("minatar")
    assert choose_exact(auto("MinAtar/Seaquest-v1"), 159).way == "sync"
    assert choose_exact(auto("MinAtar/Seaquest-v1"), 160).why == "the numbers of sync, faster from 160 environments on"


@pytest.mark.parametrize("config", [auto("FrozenLake-v1"), auto("probe_envs:Walk-v0")], ids=lambda c: c.id)
def test_an_environment_without_a_twin_is_stepped_as_it_is(config: EnvConfig) -> None:
    assert choose_exact(config, 64) == Choice("sync", f"{config.id} has no batched twin")


def test_settings_that_the_twin_does_not_take() -> None:
    config = auto("CartPole-v1", render_mode="rgb_array")
    assert choose_exact(config, 64) == Choice("sync", "its batched twin does not take these settings")


class RoundsOtherwise(CartPole):
    """Differs by rounding alone, as a twin may on another machine."""

    def step(self, xp: Any, state: Any, action: Any) -> Any:
        after, *rest = super().step(xp, state, action)
        return xp.nextafter(after, after + 1), *rest


class PaysOtherwise(CartPole):
    def step(self, xp: Any, state: Any, action: Any) -> Any:
        after, reward, terminated = super().step(xp, state, action)
        return after, reward * (1 + 1e-12), terminated


class FallsLater(CartPole):
    def step(self, xp: Any, state: Any, action: Any) -> Any:
        after, reward, terminated = super().step(xp, state, action)
        return after, reward, terminated & (xp.abs(after[2]) > 0.25)


class BeginsElsewhere(CartPole):
    def from_uniform(self, uniform: np.ndarray) -> np.ndarray:
        return super().from_uniform(1 - uniform)


class Raises(CartPole):
    def step(self, xp: Any, state: Any, action: Any) -> Any:
        raise ZeroDivisionError("by none")


class ObservesNothing(CartPole):
    def observe(self, xp: Any, state: Any) -> Any:
        raise KeyError("angle")


class OfOneLane(CartPole):
    def observe(self, xp: Any, state: Any) -> Any:
        return state[:, 0]


class PaysNothing(CartPole):
    def step(self, xp: Any, state: Any, action: Any) -> Any:
        after, reward, terminated = super().step(xp, state, action)
        return after, reward * np.nan, terminated


class NeverBegins:
    def start(self) -> None: ...


OTHER = "its batched twin gives other numbers here"


@pytest.mark.parametrize(
    ("twin", "why"),
    [
        (RoundsOtherwise, OTHER),
        (PaysOtherwise, OTHER),
        (FallsLater, OTHER),
        (BeginsElsewhere, OTHER),
        (Raises, "its batched twin failed: ZeroDivisionError: by none"),
        (ObservesNothing, "its batched twin fails in observe: KeyError: 'angle'"),
        (OfOneLane, "its batched twin gave obs of shape (4,), not (4, 11)"),
        (PaysNothing, "its batched twin fails: environment 0 failed in step 1 of the episode with seed"),
        (NeverBegins, "the batched twin NeverBegins fails in start_state: AttributeError: 'NeverBegins' object has no"),
    ],
)
def test_a_twin_with_other_numbers_is_not_taken(twin: type, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BATCHED_ENVS, "CartPole-v1", twin)
    found = choose_exact(auto(), 64)
    assert found.way == "sync" and found.why is not None and found.why.startswith(why) and len(found.why) <= 150


@pytest.mark.filterwarnings("ignore:.*Overriding")
def test_an_environment_registered_over_one_with_a_twin_keeps_its_own_numbers() -> None:
    gymnasium.register(id="CartPole-v1", entry_point="probe_envs:Walk")
    try:
        assert choose_exact(auto(), 64).way == "sync"
    finally:
        gymnasium.register(id="CartPole-v1", entry_point="gymnasium.envs.classic_control.cartpole:CartPoleEnv",
                           vector_entry_point="gymnasium.envs.classic_control.cartpole:CartPoleVectorEnv",
                           max_episode_steps=500, reward_threshold=475.0)  # fmt: skip


def test_trying_a_twin_draws_nothing_that_a_run_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's own environments begin as if there had been no trial."""

    def first(way: Any) -> np.ndarray:
        config = replace(auto(), vectorization=way)
        if way == "auto":
            config = replace(config, vectorization=choose_exact(config, 9).way)
        envs = make_vector_env(config, 9, lambda env, number: derive_seed(3, "environment", env, number))
        np.random.seed(0)
        obs = envs.reset()
        envs.close()
        return obs

    assert first("auto").tobytes() == first("sync").tobytes()
    assert choice.trial_envs(auto(), "batched").num_envs > 8  # more than one vector instruction's
