"""Runs with `env.vectorization=auto`, the default: the numbers of the way it stands for, told, kept and continued."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from halves import often
from small_runs import dqn_config, env_config, run_config
from whole_runs import COMMON_ARGS, StopAfter, assert_same_run, config_of, newest, resume, rltrain_here, rows, train

import rltrain.jobs.vectorizing
from rltrain.config.schema import CheckpointConfig, EvalConfig
from rltrain.envs import choice
from rltrain.envs.batched.lanes import BatchedLanes
from rltrain.training.evaluator import Evaluator

PERIODS = ["total_steps=400", "algo.learning_starts=50", "algo.batch_size=8", "eval.period=200", "eval.episodes=9"]
MANY = run_config(
    dqn_config(buffer_size=500), env=replace(env_config("CartPole-v1"), vectorization="auto"), num_envs=8,
    total_steps=200, eval=EvalConfig(80, 9), checkpoint=CheckpointConfig(40, 3, True),
)  # fmt: skip


def results(folder: Path, name: str, *args: str) -> tuple[Any, ...]:
    assert rltrain_here(folder, *COMMON_ARGS, *PERIODS, *args, f"hydra.run.dir={name}") == 0
    return rows(folder / name), json.loads((folder / name / "result.json").read_text())


@pytest.mark.parametrize("num_envs", often([1, 8], [8]))
def test_a_plain_run_has_the_numbers_of_environments_stepped_one_by_one(
    num_envs: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [f"num_envs={num_envs}"]
    plain = results(tmp_path, "plain", *args)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("stepping")]
    assert plain == results(tmp_path, "sync", *args, "env.vectorization=sync")
    assert config_of(tmp_path / "plain").env.vectorization == "auto"
    assert stepped(tmp_path / "plain") == ("sync" if num_envs == 1 else "batched")
    assert told == [
        "stepping  sync (auto: the fastest for fewer than 8 environments)" if num_envs == 1
        else "stepping  batched (auto: the numbers of sync, faster from 8 environments on)"
    ]  # fmt: skip


def stepped(run: Path) -> str:
    """As the manifest of its newest checkpoint says."""
    way: str = newest(run).manifest["vectorization"]
    return way


def test_a_resumed_run_keeps_its_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine or this version would choose for a new one."""
    looks = train(MANY, tmp_path / "whole")
    train(MANY, tmp_path / "parts", StopAfter(looks // 2))
    monkeypatch.setattr(choice, "BATCHED_FROM", 1000)
    assert resume(tmp_path / "parts") == 0
    assert stepped(tmp_path / "parts") == "batched"
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_a_resumed_population_keeps_stepping_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = ["-m", "seed=range(0,4)", *COMMON_ARGS, *PERIODS, "num_envs=2", "checkpoint.period=100"]
    assert rltrain_here(tmp_path, *args, "hydra.sweep.dir=whole") == 0
    assert rltrain_here(tmp_path, *args, "hydra.sweep.dir=parts", stop=StopAfter(6)) == 143
    monkeypatch.setattr(rltrain.jobs.vectorizing, "ON_DEVICE_FROM", 1000)
    assert resume(tmp_path / "parts") == 0
    for job in "0123":
        assert stepped(tmp_path / "parts" / job) == "compiled"
        assert_same_run(tmp_path / "whole" / job, tmp_path / "parts" / job)


@pytest.mark.slow
def test_a_population_s_plain_command_is_the_one_on_the_device(tmp_path: Path) -> None:
    args = ["-m", "seed=range(0,4)", *COMMON_ARGS, *PERIODS, "num_envs=2"]
    for name, more in (("plain", []), ("asked", ["env.vectorization=compiled"])):
        assert rltrain_here(tmp_path, *args, *more, f"hydra.sweep.dir={name}") == 0
    for job in "0123":
        assert rows(tmp_path / "plain" / job) == rows(tmp_path / "asked" / job)


def test_a_run_that_was_told_how_is_continued_so(tmp_path: Path) -> None:
    """As all runs were before `auto`, whose manifests say nothing of it."""
    config = replace(MANY, env=replace(MANY.env, vectorization="sync"))
    looks = train(config, tmp_path / "run")
    train(config, tmp_path / "parts", StopAfter(looks // 2))
    manifest = newest(tmp_path / "parts").folder / "manifest.json"
    manifest.write_text(json.dumps({k: v for k, v in json.loads(manifest.read_text()).items() if k != "vectorization"}))
    assert resume(tmp_path / "parts") == 0
    assert stepped(tmp_path / "parts") == "sync"
    assert_same_run(tmp_path / "run", tmp_path / "parts")


class Balance:
    def act_greedy(self, obs: np.ndarray) -> np.ndarray:
        return (obs[:, 2] > 0).astype(np.int64)


def test_an_evaluation_by_the_twin_plays_the_same_episodes() -> None:
    """Returns, one by one, whether their number divides by that of the environments or not."""
    found = []
    for vectorization in ("auto", "sync"):
        config = replace(env_config("CartPole-v1"), vectorization=vectorization)
        evaluator = Evaluator(config, seed=4, episodes=100)
        assert isinstance(evaluator.open()._group, BatchedLanes) == (vectorization == "auto")
        assert evaluator.num_envs == 20
        statistics = [evaluator.evaluate(Balance(), count, key=7) for count in (100, 33)]
        found.append([s.returns for s in statistics if s is not None])
        evaluator.close()
    assert found[0] == found[1]
    assert [len(returns) for returns in found[0]] == [100, 33] and len(set(found[0][0])) > 10
