"""Runs with `env.vectorization=compiled`, which step in blocks: what is due, and what goes wrong, at its own step."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from halves import often
from small_runs import dqn_config, env_config, run_config
from whole_runs import COMMON_ARGS, one_line, rltrain_here, rows

from rltrain.envs.batched import BATCHED_ENVS
from rltrain.envs.batched.cartpole import CartPole
from rltrain.jobs.build import build
from rltrain.seeding import derive_seed
from rltrain.types import Episode

ARGS = {
    "dqn": [*COMMON_ARGS, "num_envs=5", "algo.learning_starts=50", "algo.batch_size=8", "algo.optimizer.lr=1e-5"],
    "reinforce": [*COMMON_ARGS, "algo=reinforce", "num_envs=5", "algo.episodes_per_update=5", "algo.value.steps=1"],
}
PERIODS = ["total_steps=455", "eval.period=200", "eval.episodes=3", "checkpoint.period=150", "checkpoint.keep=9"]


def trained(folder: Path, vectorization: str, *args: str, algo: str = "dqn") -> Path:
    where = "hydra.sweep.dir" if "-m" in args else "hydra.run.dir"
    command = (*args, *ARGS[algo], f"env.vectorization={vectorization}", f"{where}={vectorization}")
    assert rltrain_here(folder, *command) == 0
    return folder / vectorization


def what_was_due(run: Path) -> dict[str, Any]:
    record = json.loads((run / "result.json").read_text())
    return {
        "rows": [(row["step"], sorted(row)) for row in rows(run)],
        "checkpoints": sorted(path.name for path in (run / "checkpoints").iterdir()),
        "end": record["env_step"],
    }


def numbers(run: Path) -> list[float]:
    found = [row[tag] for row in rows(run) for tag in sorted(row) if tag.startswith(("rollout", "train"))]
    assert len(found) > 10
    return found


@pytest.mark.parametrize(
    "args",
    often(
        [([],), (["algo.n_step=3"],), (["total_episodes=9"],), (["log_period=7", "num_envs=3"],), (["reinforce"],),
         (["reinforce", "log_period=7"],), (["reinforce", "total_episodes=19"],)],
        [(["log_period=7", "num_envs=3"],)],
    ),
)  # fmt: skip
def test_what_is_due_is_done_at_the_steps_of_a_batched_run(args: list[str], tmp_path: Path) -> None:
    algo = "reinforce" if "reinforce" in args else "dqn"
    arguments = [*PERIODS, *(arg for arg in args if arg != algo)]
    runs = [trained(tmp_path, vectorization, *arguments, algo=algo) for vectorization in ("batched", "compiled")]
    assert what_was_due(runs[0]) == what_was_due(runs[1])
    assert numbers(runs[0]) == pytest.approx(numbers(runs[1]), rel=1e-3)


@pytest.mark.parametrize(
    ("algo", "limits"),
    often(
        product(("dqn", "reinforce"), ("total_steps=200,455,310", "total_episodes=12,20,15")),
        [("reinforce", "total_steps=200,455,310")],
    ),
)
def test_members_do_what_is_due_at_the_steps_of_a_batched_population(limits: str, algo: str, tmp_path: Path) -> None:
    arguments = ("-m", *PERIODS, limits)
    sweeps = [trained(tmp_path, vectorization, *arguments, algo=algo) for vectorization in ("batched", "compiled")]
    for job in ("0", "1", "2"):
        found, expected = (what_was_due(sweep / job) for sweep in sweeps)
        assert found == expected
        assert numbers(sweeps[0] / job) == pytest.approx(numbers(sweeps[1] / job), rel=1e-3)
    assert {json.loads((sweeps[0] / job / "run.json").read_text())["population"][0] for job in "012"} == {"0"}


class Breaks(CartPole):
    """A twin whose numbers go wrong in environment 1, in step 4 of its second episode: episodes last 6 steps."""

    what = "obs"

    def step(self, xp: Any, state: Any, action: Any) -> Any:
        after, reward, _ = super().step(xp, state, action)
        after = xp.stack((state[0] + 1, state[1], state[2], state[3]))  # the first number counts steps, from the start
        lane = xp.arange(len(reward)) == 1
        second = xp.abs(state[1] - self.second) < 1e-12
        wrong = lane & second & (after[0] > 3.5)
        broken = xp.where(wrong, float("nan"), 0.0)
        if self.what == "obs":
            after = after + broken
        return after, (reward + broken if self.what == "reward" else reward), after[0] > 5.5


@pytest.mark.parametrize(
    ("what", "seeds"),
    often([("obs", "0"), ("reward", "0"), ("obs", "0,1"), ("reward", "0,1")], [("obs", "0"), ("reward", "0,1")]),
)
def test_a_number_that_is_not_finite_names_environment_step_and_seed(
    what: str, seeds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = derive_seed(0, "environment", 1, 1)
    start = CartPole().start_state(np.random.Generator(np.random.PCG64(seed)))
    monkeypatch.setattr(Breaks, "second", start[1], raising=False)
    monkeypatch.setattr(Breaks, "what", what)
    monkeypatch.setitem(BATCHED_ENVS, "CartPole-v1", Breaks)
    args = [*ARGS["dqn"], "total_steps=60", "num_envs=3", "env.vectorization=compiled", "eval.period=null"]
    sweep = len(seeds) > 1
    where = ["-m", f"seed={seeds}", "hydra.sweep.dir=runs"] if sweep else ["hydra.run.dir=runs/0"]
    assert rltrain_here(tmp_path, *args, *where) == 1
    expected = (
        f"CartPole-v1: environment 1 failed in step 4 of the episode with seed {seed}: its reward or observation is not"
    )
    assert expected in json.loads((tmp_path / "runs/0/run.json").read_text())["reason"]
    if sweep:
        assert json.loads((tmp_path / "runs/1/result.json").read_text())["env_step"] == 60  # the other goes on
    else:
        assert expected in one_line(capsys)


def test_a_loss_that_is_not_finite_is_named_with_its_own_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rltrain.engine.learner import Learner

    fetch = Learner.fetch

    def broken(learner: Learner, calls: int) -> np.ndarray:
        found = fetch(learner, calls).copy()
        if calls > 11:
            found[11, 0] = np.inf
        return found

    monkeypatch.setattr(Learner, "fetch", broken)
    args = ["env.vectorization=compiled", "num_envs=1", "algo.train_period=2", "hydra.run.dir=run"]
    assert rltrain_here(tmp_path, *ARGS["dqn"], *PERIODS, *args) == 1
    # The first block with so many calls is of steps 65 to 100, and they are due every second step.
    assert "train/td_loss is inf at environment step 88" in one_line(capsys)


class Shifted(gymnasium.Env[np.ndarray, int]):
    """Pays the number of the action, which begins at 3."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2, start=3)


class ShiftedTwin:
    def start_state(self, rng: np.random.Generator) -> np.ndarray:
        return np.zeros(2)

    def step(self, xp: Any, state: Any, action: Any) -> Any:
        return state + 0.0 * action, 1.0 * action, state[0] != state[0]

    def observe(self, xp: Any, state: Any) -> Any:
        return state


def test_actions_are_the_environment_s_own_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    gymnasium.register("ShiftedActions-v0", Shifted, max_episode_steps=10)
    monkeypatch.setitem(BATCHED_ENVS, "ShiftedActions-v0", ShiftedTwin)
    env = replace(env_config("ShiftedActions-v0"), vectorization="compiled")
    with build(run_config(dqn_config(), env=env, num_envs=3)) as parts:
        parts.envs.reset()
        episodes: list[Episode] = parts.agent.iterate(parts.envs, 20).episodes  # type: ignore[attr-defined]
    returns = [episode.episode_return for episode in episodes]
    assert len(returns) == 6 and all(30 <= value <= 40 for value in returns) and len(set(returns)) > 1
