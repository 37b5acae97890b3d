"""Tabular Q-learning against dynamic programming: the limit of the table, and what its greedy policy is worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dynamic_programming import Model
from halves import often
from whole_runs import newest, rltrain_here

import rltrain

COMMON = ["algo=q_learning", "device=cpu", "eval.period=null", "hydra.run.dir=run", "log_period=5000"]
EXACT = ["tuned=none", "algo.alpha=1", "algo.gamma=0.9", "exploration=constant", "exploration.end=1"]


def learned(folder: Path, *args: str) -> tuple[np.ndarray, np.ndarray]:
    """The table of a run [S, A], and how often each entry was updated."""
    assert rltrain_here(folder, *COMMON, *args) == 0
    tensors = newest(folder / "run").tensors
    return tensors["network"]["q_table"].numpy(), tensors["optimizer"]["visits"].numpy()


@pytest.mark.slow
def test_without_chance_and_with_whole_steps_the_table_becomes_the_optimal_one(tmp_path: Path) -> None:
    """What was tried a dozen times has seen its successor's value settle."""
    q, visits = learned(tmp_path, *EXACT, "env=FrozenLake-v1", "env.kwargs.is_slippery=false", "total_steps=12000")
    optimal, tried = Model("FrozenLake-v1", is_slippery=False).optimal_q(0.9), visits >= 12
    assert tried.sum() > 35
    np.testing.assert_allclose(q[tried], optimal[tried], atol=1e-12)
    assert visits.sum() == 12000


@pytest.mark.parametrize("num_envs", often([1, 3], [3]))
def test_the_greedy_walk_along_the_cliff_is_the_shortest(num_envs: int, tmp_path: Path) -> None:
    q, _ = learned(tmp_path, "env=CliffWalking-v1", "total_steps=6000", f"num_envs={num_envs}")
    model = Model("CliffWalking-v1")
    assert model.mean_return(q.argmax(-1)) == -13.0 == model.mean_return(model.optimal_q(0.99).argmax(-1))


@pytest.mark.slow
def test_chance_is_averaged_out(tmp_path: Path) -> None:
    """A step on slippery ice has three outcomes; with gamma = 0 and a mean of targets Q is their mean reward."""
    args = ["tuned=none", "algo.alpha=1", "algo.alpha_decay=1", "algo.gamma=0", "exploration=constant"]
    q, visits = learned(tmp_path, *args, "exploration.end=1", "env=FrozenLake-v1", "total_steps=20000")
    rewards = Model("FrozenLake-v1").rewards
    error = np.sqrt(2 / 9 / np.maximum(visits[14], 1))
    assert rewards[14].max() == pytest.approx(1 / 3)
    assert (np.abs(q[14] - rewards[14]) < 4 * error).all()
    assert (q[:14] == 0).all()


def test_observations_and_actions_that_do_not_start_at_zero(tmp_path: Path) -> None:
    """Discrete(4, start=-2) and Discrete(3, start=5): the reward is the action, and the observation the action - 7."""
    q, visits = learned(tmp_path, *EXACT, "algo.gamma=0", "env=probe_envs:Shifted-v0", "total_steps=400")
    assert q.tolist() == [[5.0, 6.0, 7.0]] * 4 and (visits > 0).all()
    assert rltrain.load(tmp_path / "run").act(-1) == 7


def test_a_cut_is_learnt_from_the_state_that_it_left_and_not_from_the_reset(tmp_path: Path) -> None:
    """Cut after one step up from the start, 36, the walker is in 24, where nothing was ever learnt: 0 follows."""
    q, visits = learned(tmp_path, *EXACT, "env=CliffWalking-v1", "env.max_episode_steps=1", "total_steps=100")
    assert q[36] == pytest.approx([-1.0, -100.9, -1.9, -1.9])  # up; the other three end in 36 again
    assert visits.sum() == visits[36].sum() == 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "goal", "optimum"),
    [
        ("FrozenLake-v1", 0.72, 0.740),
        ("FrozenLake8x8-v1", 0.833, 0.863),
        ("Taxi-v4", 7.8, 7.93),
        ("CliffWalking-v1", -13.0, -13.0),
    ],
)
@pytest.mark.parametrize("seed", [1000, 1001])
def test_tuned_settings_come_close_to_the_optimum(
    env: str, goal: float, optimum: float, seed: int, tmp_path: Path
) -> None:
    q, _ = learned(tmp_path, f"env={env}", f"seed={seed}")
    model = Model(env)
    assert model.mean_return(model.optimal_q(0.99).argmax(-1)) == pytest.approx(optimum, abs=1e-3)
    assert model.mean_return(q.argmax(-1)) >= goal


@pytest.mark.slow
@pytest.mark.parametrize("env", ["FrozenLake-v1", "FrozenLake8x8-v1"])
def test_ice_that_is_not_slippery(env: str, tmp_path: Path) -> None:
    args = ["tuned=none", "algo.alpha=1", "exploration=constant", "exploration.end=0.2", "algo.initial_value=1"]
    q, _ = learned(tmp_path, *args, f"env={env}", "env.kwargs.is_slippery=false", "total_steps=60000")
    assert Model(env, is_slippery=False).mean_return(q.argmax(-1)) == 1.0
