"""Runs that are too short for their settings: refused where nothing is learned, told where epsilon still falls."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_runs import dqn_config, run_config

from rltrain.config.horizon import epsilon_at_end
from rltrain.config.schema import ConstantConfig, ExponentialConfig, LinearConfig
from rltrain.config.search_space import Dimension
from rltrain.config.searched import fitted, late_epsilon
from rltrain.errors import RequestError

CONFIG = replace(run_config(dqn_config()), total_steps=2000, exploration=LinearConfig("linear", 1.0, 0.1, 1000))


def test_epsilon_that_still_falls_at_the_end_is_told() -> None:
    assert epsilon_at_end(CONFIG) == ""
    slow = replace(CONFIG, exploration=LinearConfig("linear", 1.0, 0.1, 4000))
    assert epsilon_at_end(slow) == (
        "is still 0.55 after total_steps=2,000, not exploration.end=0.1: exploration.steps=4,000"
    )
    assert epsilon_at_end(replace(CONFIG, exploration=ExponentialConfig("exponential", 1.0, 0.0, 500.0))) == ""
    slow = replace(CONFIG, exploration=ExponentialConfig("exponential", 1.0, 0.0, 2000.0))
    assert epsilon_at_end(slow).startswith("is still 0.37 after total_steps=2,000, not exploration.end=0:")
    assert epsilon_at_end(replace(CONFIG, exploration=LinearConfig("linear", 0.1, 0.1, 4000))) == ""


def test_a_run_that_never_explores_is_told() -> None:
    greedy = replace(CONFIG, exploration=ConstantConfig("constant", 0.0))
    assert epsilon_at_end(greedy) == "is 0 throughout, and nothing else explores: exploration.end=0"
    assert epsilon_at_end(replace(greedy, exploration=LinearConfig("linear", 0.0, 0.0, 10)))
    assert greedy.network is not None
    assert epsilon_at_end(replace(greedy, network=replace(greedy.network, noisy=True))) == ""
    assert epsilon_at_end(replace(greedy, network=None)) == ""
    assert epsilon_at_end(replace(CONFIG, exploration=ConstantConfig("constant", 0.1))) == ""


def test_a_space_that_is_longer_than_the_runs() -> None:
    assert late_epsilon(CONFIG, Dimension("exploration.steps", 100, 50_000, log=True)).startswith("is still 0.96 after")
    assert late_epsilon(CONFIG, Dimension("exploration.steps", choices=(100, 1000))) == ""
    assert late_epsilon(CONFIG, Dimension("algo.gamma", 0.9, 0.99)) == ""


@pytest.mark.parametrize(
    "dimension", [Dimension("algo.learning_starts", 100, 5000), Dimension("algo.learning_starts", choices=(100, 5000))]
)
def test_trials_that_would_learn_nothing_are_refused_before_the_first(dimension: Dimension) -> None:
    with pytest.raises(RequestError, match=r"learning_starts=5000, which is searched: learning would never start"):
        fitted([dimension], CONFIG, [])
