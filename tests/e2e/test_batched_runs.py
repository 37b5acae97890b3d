"""Runs with `env.vectorization=batched`: trained, evaluated, stopped and continued."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_runs import dqn_config, env_config, reinforce_config, run_config
from whole_runs import COMMON_ARGS, StopAfter, assert_same_run, config_of, one_line, resume, rltrain_here, rows, train

from rltrain.config.schema import CheckpointConfig, EvalConfig, RunConfig
from rltrain.envs.batched import BATCHED_ENVS
from rltrain.training.evaluator import Evaluator

SHORT = {"eval": EvalConfig(50, 3), "checkpoint": CheckpointConfig(40, 3, True), "total_steps": 150}
CARTPOLE = replace(env_config("CartPole-v1"), vectorization="batched")
PENDULUM = replace(env_config("Pendulum-v1"), vectorization="batched", max_episode_steps=15)
CASES: dict[str, RunConfig] = {
    "dqn": run_config(dqn_config(n_step=3, buffer_size=500), env=CARTPOLE, num_envs=4, **SHORT),
    "reinforce": run_config(reinforce_config(), env=PENDULUM, num_envs=2, **SHORT),  # lanes idle between updates
}


@pytest.mark.parametrize("name", CASES)
def test_stopped_and_continued_it_equals_the_uninterrupted_run(name: str, tmp_path: Path) -> None:
    looks = train(CASES[name], tmp_path / "whole")
    assert train(CASES[name], tmp_path / "parts", StopAfter(looks // 3)) < looks
    assert resume(tmp_path / "parts", stop=StopAfter(looks // 4)) == 143
    assert resume(tmp_path / "parts") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_run_is_the_same_batched_and_one_by_one(tmp_path: Path) -> None:
    found = []
    for vectorization in ("batched", "sync"):
        args = [f"env.vectorization={vectorization}", "num_envs=5", "total_steps=400", "algo.learning_starts=50"]
        periods = ["eval.period=200", "eval.episodes=3", "hydra.run.dir=" + vectorization]
        assert rltrain_here(tmp_path, *COMMON_ARGS, *args, *periods) == 0
        run = tmp_path / vectorization
        assert config_of(run).env.vectorization == vectorization
        assert rltrain_here(tmp_path, "evaluate", vectorization, "episodes=4", "seed=3") == 0
        results = [json.loads((run / name).read_text()) for name in ("result.json", "evaluation.json")]
        found.append((rows(run), *results))
    assert found[0] == found[1]


class Balance:
    """Holds CartPole's pole for some time; swings Acrobot up; pushes the car the way it moves."""

    def __init__(self, id: str) -> None:
        self._id = id

    def act_greedy(self, obs: np.ndarray) -> np.ndarray:
        if self._id.startswith("CartPole"):
            return (obs[:, 2] > 0).astype(np.int64)
        if self._id == "Pendulum-v1":
            return obs[:, 2:] / 8
        return 2 * (obs[:, -1] > 0).astype(np.int64)


@pytest.mark.parametrize("id", [id for id in BATCHED_ENVS if "/" not in id])
@pytest.mark.filterwarnings("ignore:.*out of date")
def test_an_evaluation_finds_the_returns_of_single_environments(id: str) -> None:
    found = []
    for vectorization in ("batched", "sync"):
        evaluator = Evaluator(replace(env_config(id), vectorization=vectorization), seed=4, episodes=5)
        statistics = evaluator.evaluate(Balance(id), 12, key=7)
        assert statistics is not None
        found.append(np.array(statistics.returns))
        evaluator.close()
    assert np.array_equal(found[0], found[1])
    assert len(set(found[0].tolist())) > 3


def test_what_has_no_twin_is_refused_before_a_folder_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["env=FrozenLake-v1"], ["-m", "env=CartPole-v1,FrozenLake-v1"]):
        assert rltrain_here(tmp_path, *args, "env.vectorization=batched") == 2
        assert "FrozenLake-v1 has no batched twin; use sync or async" in one_line(capsys, 3)
    assert rltrain_here(tmp_path, "env.vectorization=batched", "env.step_timeout=3") == 2
    assert "needs env.vectorization=async" in one_line(capsys)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
