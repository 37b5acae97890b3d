"""Cards and marks: what is known of an algorithm by the dataclass of its keys."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import pytest
from small_runs import dqn_config, ppo_config, pqn_config, q_learning_config, reinforce_config, run_config

from rltrain.config.algorithms import Card, card_of, per_member_keys, that_take
from rltrain.config.population import structure
from rltrain.config.schema import ALGO_CONFIGS, PER_MEMBER, DQNConfig, OptimizerConfig, Range
from rltrain.types import ActionSpec, ObservationSpec


def test_the_algorithms_that_take_some_spaces() -> None:
    vector = ObservationSpec("box", (4,), "float32")
    assert that_take(vector, ActionSpec("box", (1,))) == ["a2c", "ppo", "reinforce"]
    assert that_take(vector, ActionSpec("discrete", (), 2)) == sorted({*ALGO_CONFIGS} - {"q_learning"})


@dataclass(frozen=True)
class WarmConfig(DQNConfig):
    warmth: Annotated[float, Range(0), PER_MEMBER]
    width: Annotated[int, Range(1)]


@dataclass(frozen=True)
class FreeConfig:
    name: str
    optimizer: OptimizerConfig


WARM = WarmConfig(**vars(dqn_config()), warmth=0.5, width=3)


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        (
            run_config(dqn_config()),
            "algo.gamma algo.max_grad_norm algo.max_grad_value algo.optimizer.lr target_update.period"
            " exploration.start exploration.end exploration.steps exploration.duration",
        ),
        (
            run_config(reinforce_config()),
            "algo.gamma algo.entropy_coef algo.max_grad_norm algo.optimizer.lr algo.value.lr",
        ),
        (
            run_config(ppo_config()),
            "algo.gamma algo.gae_lambda algo.clip algo.entropy_coef algo.max_grad_norm algo.value.coef"
            " algo.optimizer.lr",
        ),
        (
            run_config(pqn_config()),
            "algo.gamma algo.q_lambda algo.max_grad_norm algo.optimizer.lr"
            " exploration.start exploration.end exploration.steps exploration.duration",
        ),
        (
            run_config(q_learning_config()),
            "algo.gamma algo.alpha algo.alpha_decay algo.initial_value exploration.start exploration.end"
            " exploration.steps exploration.duration",
        ),
    ],
    ids=["dqn", "reinforce", "ppo", "pqn", "q_learning"],
)
def test_members_may_differ_in_the_numbers_that_are_marked(config: Any, keys: str) -> None:
    assert set(per_member_keys(config)) == set(keys.split())


def test_a_key_of_a_plug_in_is_carried_where_it_is_marked() -> None:
    config = run_config(WARM)
    assert structure(config) is not None
    assert structure(config) == structure(replace(config, algo=replace(WARM, warmth=0.1)))
    assert structure(config) != structure(replace(config, algo=replace(WARM, width=4)))


def test_a_subclass_has_the_card_of_its_parent_and_another_class_trains_alone() -> None:
    assert card_of(WARM) is card_of(dqn_config())
    free = run_config(FreeConfig("free", dqn_config().optimizer))  # type: ignore[arg-type]
    assert type(card_of(free.algo)) is Card
    assert per_member_keys(free) and structure(free) is None


def test_the_smallest_keys_keep_a_network_s_shape() -> None:
    small = card_of(WARM).smallest(WARM)
    assert small == replace(WARM, buffer_size=1)
    assert card_of(reinforce_config()).smallest(reinforce_config()) == reinforce_config()
