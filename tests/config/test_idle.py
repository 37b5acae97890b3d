"""Keys that change nothing are told to whoever types them."""

from __future__ import annotations

import pytest

from rltrain.config.application import compose
from rltrain.config.idle import idle_keys, idle_lines
from rltrain.config.plain import to_plain

MUNCHAUSEN = {"algo.munchausen_temperature", "algo.munchausen_clip"}
WEIGHTS = {"algo.prioritized.beta", "algo.prioritized.beta_steps", "algo.prioritized.eps"}


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ("algo=dqn", MUNCHAUSEN),
        ("algo=dqn algo.munchausen=0.9 algo.double=false", set()),
        ("algo=c51", set()),
        ("algo=dqn network.noisy=true exploration=none", {*MUNCHAUSEN, "exploration.duration"}),
        ("algo=reinforce", set()),
        ("algo=reinforce algo.baseline=mean", {"algo.value.lr", "algo.value.steps", "algo.value.hidden"}),
        ("algo=a2c", {"algo.clip", "algo.value.clip", "algo.target_kl"}),
        ("algo=a2c algo.epochs=2", set()),
        ("algo=ppo algo.epochs=1", {"algo.target_kl"}),
        ("algo=dqn algo.munchausen=0.9 algo.double=false replay=prioritized", set()),
        ("algo=c51 replay=prioritized algo.prioritized.alpha=0", WEIGHTS),
        ("algo=c51 replay=prioritized algo.prioritized.beta=1", {"algo.prioritized.beta_steps"}),
        ("algo=ppo", set()),
        ("algo=q_learning env=FrozenLake-v1", set()),
    ],
)
def test_keys_are_idle_where_another_turns_off_what_they_belong_to(words: str, keys: set[str]) -> None:
    assert set(idle_keys(to_plain(compose(["tuned=none", *words.split()])[0]))) == keys


def test_only_typed_keys_are_told() -> None:
    overrides = ["algo=reinforce", "algo.baseline=mean", "algo.value.lr=0.1", "algo.gamma=0.9"]
    config = to_plain(compose(overrides)[0])
    assert idle_lines([(config, overrides)]) == ["idle      algo.value.lr has no effect with algo.baseline=mean"]
    assert idle_lines([(config, overrides[:2])]) == []
