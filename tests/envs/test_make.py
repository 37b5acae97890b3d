"""Environments by id: what is found, and what is said where nothing is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_runs import env_config

from rltrain.envs.make import find_environment
from rltrain.errors import RequestError


def test_the_threshold_is_that_of_the_registered_task() -> None:
    other = {"sutton_barto_reward": True}, {"sutton_barto_reward": False}
    changes: list[dict[str, Any]] = [{"kwargs": kwargs} for kwargs in other]
    changes += [{"max_episode_steps": steps} for steps in (200, 500, 1000)]
    found = [find_environment(replace(env_config("CartPole-v1"), **change)).reward_threshold for change in changes]
    assert found == [None, None, None, 475.0, 475.0]


def test_a_module_that_registers_another_id_says_which_it_has() -> None:
    with pytest.raises(RequestError, match=r"module probe_envs has registered no Bandits-v0; it has .*Bandit-v0"):
        find_environment(env_config("probe_envs:Bandits-v0"))
    with pytest.raises(RequestError, match=r"without \.py: env=probe_envs:Bandit-v0"):
        find_environment(env_config("probe_envs.py:Bandit-v0"))


def test_a_syntax_error_in_a_module_is_named_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "misspelt_env.py").write_text("import gymnasium\n\nclass Walk(:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RequestError, match=r"SyntaxError: invalid syntax, at .*misspelt_env\.py:3"):
        find_environment(env_config("misspelt_env:Walk-v0"))
