"""Values in another spelling: the refusal says what to write, and what it says is taken."""

from __future__ import annotations

from typing import Any

import pytest
from small_runs import dqn_config, run_config

from rltrain.config.plain import to_plain
from rltrain.config.schema import RunConfig
from rltrain.config.stored import parse_value
from rltrain.config.validate import build_section, validate
from rltrain.errors import RequestError


def changed(key: str, value: Any) -> dict[str, Any]:
    """A plain config with another value of a dotted key."""
    plain = to_plain(run_config(dqn_config()))
    *path, name = key.split(".")
    section = plain
    for part in path:
        section = section[part]
    section[name] = value
    return plain


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("algo.double", "yes", "true"), ("algo.double", 0, "false"), ("device.compile", "on", "true"),
        ("algo.munchausen", True, "0.9"), ("algo.munchausen", False, "null"), ("env.reward_clip", "yes", "1.0"),
        ("algo.max_grad_norm", 0, "null"), ("eval.period", "never", "null"), ("eval.period", -1, "null"),
        ("total_steps", "1.5k", "1_500"), ("total_steps", "1M", "1_000_000"),
        ("network.hidden", 64, "[64]"), ("network.hidden", None, "[]"), ("env.wrappers", "time_aware", "[time_aware]"),
        ("algo.optimizer", "radam", "radam"),
    ],
)  # fmt: skip
def test_the_refusal_says_what_to_write(key: str, value: Any, meant: str) -> None:
    with pytest.raises(RequestError) as error:
        validate(changed(key, value))
    written = str(error.value).partition("; write ")[2].strip("'")
    key = f"{key}.name" if key == "algo.optimizer" else key
    assert written == f"{key}={meant}"
    build_section(RunConfig, changed(key, parse_value(meant)), "")


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("seed", "random", "must be an integer >= 0"), ("algo.n_step", True, "must be an integer >= 1"),
        ("algo.gamma", 1.5, "must be >= 0 and <= 1"), ("algo.double", "maybe", "must be true or false"),
        ("total_steps", "1.2345k", "must be an integer >= 1"), ("network.init", "foo", "must be orthogonal or null"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_left_at_the_rule(key: str, value: Any, rule: str) -> None:
    with pytest.raises(RequestError) as error:
        validate(changed(key, value))
    assert str(error.value).endswith(rule)
