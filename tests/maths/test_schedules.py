"""Epsilon in closed form."""

from __future__ import annotations

import math
from typing import get_args

import pytest

from rltrain.config.schema import (
    ConstantConfig,
    ExplorationConfig,
    ExponentialConfig,
    LinearConfig,
    PerEpisodeConfig,
)
from rltrain.maths.schedules import SCHEDULES, make_schedule


@pytest.mark.parametrize(
    ("env_step", "epsilon"), [(0, 0.9), (1, 0.8992), (500, 0.5), (999, 0.1008), (1000, 0.1), (10**9, 0.1)]
)
def test_linear_reaches_its_end_exactly_at_steps(env_step: int, epsilon: float) -> None:
    schedule = make_schedule(LinearConfig("linear", 0.9, 0.1, 1000))
    assert schedule(env_step, 12345) == pytest.approx(epsilon, abs=1e-12)


@pytest.mark.parametrize("env_step", [0, 1, 1000, 3000, 10**9])
def test_exponential_is_the_formula(env_step: int) -> None:
    schedule = make_schedule(ExponentialConfig("exponential", 0.9, 0.05, 1000.0))
    assert schedule(env_step, 12345) == pytest.approx(0.05 + 0.85 * math.exp(-env_step / 1000.0), abs=1e-12)


@pytest.mark.parametrize(("episodes", "epsilon"), [(0, 1.0), (1, 0.5), (3, 0.125), (4, 0.1), (1000, 0.1)])
def test_per_episode_multiplies_after_each_and_stops_at_its_end(episodes: int, epsilon: float) -> None:
    schedule = make_schedule(PerEpisodeConfig("per_episode", 1.0, 0.1, 0.5))
    assert schedule(12345, episodes) == epsilon


def test_constant_is_its_end() -> None:
    schedule = make_schedule(ConstantConfig("constant", 0.07))
    assert {schedule(s, e) for s in (0, 10**9) for e in (0, 1000)} == {0.07}


def test_every_kind_of_config_has_a_schedule() -> None:
    assert len(SCHEDULES) == len(get_args(ExplorationConfig))
