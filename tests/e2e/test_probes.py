"""Environments with known answers, through the command line: what is learned there is known in closed form."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from halves import often
from probe_envs import Aim, Lock, Votes
from whole_runs import newest, rltrain_here, rows

import rltrain

GAMMA = 0.9
COMMON = ["hydra.run.dir=run", "tuned=none", "device.compile=false", "eval.period=null", "log_period=100"]
# With a linear function of one-hot observations Q-learning is tabular: what it finds is exact.
DQN = [
    "network.hidden=[]", f"algo.gamma={GAMMA}", "algo.loss=mse", "algo.batch_size=32", "algo.optimizer.lr=0.05",
    "algo.max_grad_norm=null", "algo.learning_starts=200", "algo.gradient_steps=4", "total_steps=350",
    "exploration=constant", "exploration.end=1", "target_update=hard", "target_update.unit=gradient_steps",
    "target_update.period=20",
]  # fmt: skip
PQN = [
    "algo=pqn", "network.hidden=[]", f"algo.gamma={GAMMA}", "algo.optimizer.lr=0.05", "algo.max_grad_norm=null",
    "num_envs=4", "algo.rollout_steps=5", "total_steps=3200", "exploration=constant", "exploration.end=1",
]  # fmt: skip
REINFORCE = [
    "algo=reinforce", "network.hidden=[]", "algo.gamma=1", "algo.baseline=mean", "algo.normalize_returns=none",
    "algo.optimizer.lr=0.05", "algo.max_grad_norm=null",
]  # fmt: skip


@dataclass
class Run:
    folder: Path

    @property
    def result(self) -> dict[str, float]:
        result: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return dict(result["episode_return"])

    @property
    def rows(self) -> list[dict[str, Any]]:
        return rows(self.folder)

    def head(self, network: str, obs: Any) -> np.ndarray:
        """What a linear network of the newest checkpoint says of obs [N, D]: [N, outputs]."""
        weights = {name: tensor for name, tensor in newest(self.folder).tensors["network"].items() if network in name}
        (weight,) = (tensor for name, tensor in weights.items() if name.endswith("weight"))
        (bias,) = (tensor for name, tensor in weights.items() if name.endswith("bias"))
        return (torch.as_tensor(obs, dtype=torch.float32) @ weight.T + bias).numpy()


Trained = Callable[..., Run]


@pytest.fixture
def trained(tmp_path: Path, device: torch.device) -> Trained:
    def train(*args: str) -> Run:
        assert rltrain_here(tmp_path, *COMMON, f"device={device.type}", *args) == 0
        return Run(tmp_path / "run")

    return train


@pytest.mark.parametrize(("num_envs", "n_step"), often([(1, 1), (1, 3), (3, 3)], [(3, 3)]))
def test_a_cut_episode_is_worth_what_would_have_followed(trained: Trained, n_step: int, num_envs: int) -> None:
    run = trained(*DQN, "env=probe_envs:ConstantTruncated-v0", f"algo.n_step={n_step}", f"num_envs={num_envs}")
    assert run.head("q_network", [[1.0]]) == pytest.approx(1 / (1 - GAMMA), rel=0.03)


@pytest.mark.parametrize("n_step", often([1, 3], [3]))
def test_nothing_follows_a_terminated_episode(trained: Trained, n_step: int) -> None:
    run = trained(*DQN, "env=probe_envs:Countdown-v0", f"algo.n_step={n_step}")
    values = [(1 - GAMMA ** (5 - t)) / (1 - GAMMA) for t in range(5)]
    q_values = run.head("q_network", np.eye(5))
    assert q_values[:, 0] == pytest.approx(values, abs=0.02)
    assert q_values[:, 1] == pytest.approx(values, abs=0.02)
    # Nothing is random here, so the error goes to 0: it would stay large if shapes were broadcast in the loss.
    assert run.rows[-1]["train/td_loss"] < 1e-3


@pytest.mark.parametrize("q_lambda", often([0.0, 0.65, 1.0], [0.65]))
def test_lambda_returns_of_a_cut_episode_and_of_a_terminated_one(trained: Trained, q_lambda: float) -> None:
    run = trained(*PQN, "env=probe_envs:Flip-v0", f"algo.q_lambda={q_lambda}")
    (stay, go), _ = run.head("q_network", np.eye(2))
    assert stay == pytest.approx(1 / (1 - GAMMA), rel=0.03)
    assert go == pytest.approx(0.5 + 0.75 * GAMMA, rel=0.05)
    assert run.result["mean"] == 1.0  # staying is cut at once; going would return 1.25


def test_an_end_that_comes_by_chance(trained: Trained) -> None:
    run = trained(*DQN, "env=probe_envs:ConstantTerminated-v0", "total_steps=1200", "algo.learning_starts=1000")
    assert run.head("q_network", [[1.0]]) == pytest.approx(1 / (1 - 0.9 * GAMMA), rel=0.15)


@pytest.mark.parametrize("n_step", often([1, 3], [3]))
def test_a_delayed_reward_is_discounted_once_per_step(trained: Trained, n_step: int) -> None:
    run = trained(*DQN, "env=probe_envs:DelayedReward-v0", f"algo.n_step={n_step}")
    assert run.head("q_network", np.eye(4))[:, 0] == pytest.approx([GAMMA**3, GAMMA**2, GAMMA, 1.0], abs=0.01)


@pytest.mark.parametrize("n_step", often([1, 3], [3]))
def test_the_best_action_before_a_cut(trained: Trained, n_step: int) -> None:
    run = trained(*DQN, "env=probe_envs:Flip-v0", f"algo.n_step={n_step}")
    (stay, go), _ = run.head("q_network", np.eye(2))
    assert stay == pytest.approx(1 / (1 - GAMMA), rel=0.03)
    assert go == pytest.approx(0.5 + 0.75 * GAMMA, rel=0.05)
    assert run.result["mean"] == 1.0  # staying is cut at once; going would return 1.25


@pytest.mark.slow
def test_ten_right_actions_and_an_evaluation_that_does_not_explore(trained: Trained) -> None:
    """Training acts at random to its end (and succeeds in one episode of 1024); greedy episodes all succeed."""
    run = trained(
        *DQN, "env=probe_envs:Chain-v0", "algo.optimizer.name=rmsprop", "algo.optimizer.lr=0.01", "log_period=1000",
        "algo.batch_size=512", "algo.learning_starts=6000", "total_steps=6400", "algo.gradient_steps=2",
    )  # fmt: skip
    assert run.result == {"mean": 1.0, "std": 0.0, "min": 1.0, "max": 1.0}
    assert max(row["rollout/episode_return"] for row in run.rows) < 0.05


@pytest.mark.slow
def test_bandit_by_dqn(trained: Trained) -> None:
    run = trained(*DQN, "env=probe_envs:Bandit-v0")
    assert run.head("q_network", [[1.0]])[0] == pytest.approx([0.25, 1.0], abs=1e-3)
    assert run.result["mean"] == 1.0


@pytest.mark.parametrize("baseline", often(["none", "mean", "value"], ["mean"]))
def test_bandit_by_reinforce(trained: Trained, baseline: str) -> None:
    run = trained(*REINFORCE, "env=probe_envs:Bandit-v0", "total_steps=800", f"algo.baseline={baseline}")
    assert run.result["mean"] == 1.0
    assert np.diff(run.head("policy", [[1.0]])) > 2  # the better arm is drawn more than 7 times as often


@pytest.mark.parametrize("num_envs", often([1, 4], [4]))
def test_a_gaussian_policy_finds_its_target(trained: Trained, num_envs: int) -> None:
    run = trained(
        *REINFORCE, "env=probe_envs:Target-v0", f"num_envs={num_envs}", "algo.episodes_per_update=32",
        "algo.optimizer.lr=0.03", "total_steps=3000",
    )  # fmt: skip
    mean, log_std = np.split(run.head("policy", [[1.0]])[0], 2)
    assert mean == pytest.approx([0.3, 0.3], abs=0.05)
    assert (log_std < -1).all()
    assert run.result["mean"] > -0.0025
    assert rltrain.load(run.folder).act(np.ones(1, np.float32)) == pytest.approx(mean)


@pytest.mark.parametrize(
    ("num_envs", "env", "obs", "values"),
    [
        pytest.param(1, "ConstantTruncated", [[1.0]], [1 / (1 - GAMMA)], marks=pytest.mark.slow),
        (2, "Countdown", np.eye(5), [(1 - GAMMA ** (5 - t)) / (1 - GAMMA) for t in range(5)]),
        pytest.param(1, "DelayedReward", np.eye(4), [GAMMA**3, GAMMA**2, GAMMA, 1.0], marks=pytest.mark.slow),
    ],
)
def test_the_value_baseline_is_the_value(
    trained: Trained, num_envs: int, env: str, obs: Any, values: list[float]
) -> None:
    run = trained(
        *REINFORCE, f"env=probe_envs:{env}-v0", f"algo.gamma={GAMMA}", "algo.baseline=value", "algo.value.hidden=[]",
        "algo.value.lr=0.1", "algo.value.steps=5", "algo.episodes_per_update=2", f"num_envs={num_envs}",
        "total_steps=1200",
    )  # fmt: skip
    assert run.head("value", obs)[:, 0] == pytest.approx(values, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("num_envs", [1, 4])
def test_short_episodes_are_not_favoured(trained: Trained, num_envs: int) -> None:
    """The long episode pays twice as much. Who updates with the episodes that end first sees mostly short ones, and
    without a baseline reinforces what it sees."""
    run = trained(
        *REINFORCE, "env=probe_envs:LongShort-v0", "env.kwargs.long_return=2", f"num_envs={num_envs}",
        "algo.baseline=none", "algo.loss_reduction=sum", "algo.episodes_per_update=16", "total_steps=5000",
    )  # fmt: skip
    assert run.result["mean"] == 2.0
    assert run.rows[-1]["rollout/episode_return"] > 1.8


def test_actions_and_observations_that_do_not_start_at_zero(trained: Trained) -> None:
    run = trained(*DQN, "env=probe_envs:Shifted-v0", "algo.gamma=0")
    assert run.head("q_network", np.eye(4)[1:]) == pytest.approx(np.tile([5.0, 6.0, 7.0], (3, 1)), abs=0.01)
    assert run.result["mean"] == 35.0
    action = rltrain.load(run.folder).act(-1)
    assert action == 7 and isinstance(action, int)


@pytest.mark.parametrize("kind", often(Votes.spaces_by_kind, ["dict"]))
def test_every_part_of_an_observation_is_read(trained: Trained, kind: str) -> None:
    """Every vote counts as much, so who misses or misplaces one is wrong for a quarter of the observations."""
    run = trained(*DQN, "env=probe_envs:Votes-v0", f"env.kwargs.kind={kind}", "algo.gamma=0", "log_period=1000")
    assert run.result["min"] >= 1.0
    policy, env = rltrain.load(run.folder), Votes(kind)
    for seed in range(20):
        obs, _ = env.reset(seed=seed)  # as the environment shows it
        assert policy.act(obs) == (env.votes.sum() > 0)


@pytest.mark.parametrize("kind", often(Aim.spaces_by_kind, ["scalar"]))
def test_actions_of_every_shape_and_bound(trained: Trained, kind: str) -> None:
    run = trained(
        *REINFORCE, "env=probe_envs:Aim-v0", f"env.kwargs.kind={kind}", "algo.episodes_per_update=32", "num_envs=2",
        "algo.optimizer.lr=0.05", "total_steps=3000", "log_period=1000",
    )  # fmt: skip
    assert run.result["mean"] > -0.06
    action = rltrain.load(run.folder).act(np.ones(1, np.float32))
    space, best = Aim.spaces_by_kind[kind]
    assert type(action) is np.ndarray and space.contains(action)
    assert action == pytest.approx(np.array(best), abs=0.5)


@pytest.mark.parametrize("kind", often(Lock.spaces_by_kind, ["unlike"]))
@pytest.mark.parametrize("algo", often(["ppo", "reinforce"], ["ppo"]))
def test_every_number_of_an_action_is_learned(trained: Trained, algo: str, kind: str) -> None:
    keys = {
        "ppo": ["algo.rollout_steps=40", "algo.epochs=8", "algo.gae_lambda=0"],
        "reinforce": ["algo.episodes_per_update=8", "algo.baseline=mean", "algo.normalize_returns=batch"],
    }
    run = trained(
        f"algo={algo}", *keys[algo], "env=probe_envs:Lock-v0", f"env.kwargs.kind={kind}", "algo.gamma=0", "num_envs=8",
        "network.hidden=[]", "algo.optimizer.lr=0.1", "algo.entropy_coef=0", "total_steps=6000", "log_period=1000",
    )  # fmt: skip
    assert run.result["min"] == 10.0
    policy, env = rltrain.load(run.folder), Lock(kind)
    for seed in range(5):
        obs, _ = env.reset(seed=seed)
        action = policy.act(obs)
        assert type(action) is np.ndarray and env.action_space.contains(action) and np.array_equal(action, obs)


def test_clipped_rewards_train_and_unclipped_ones_are_reported(trained: Trained) -> None:
    run = trained(*DQN, "env=probe_envs:FixedLength-v0", "env.reward_clip=1", "algo.gamma=0")
    assert run.head("q_network", [[1.0]]) == pytest.approx(1.0, abs=0.01)
    assert run.result == {"mean": 21.0, "std": 0.0, "min": 21.0, "max": 21.0}
    assert {row["rollout/episode_return"] for row in run.rows} == {21.0}
    assert {row["rollout/episode_length"] for row in run.rows} == {7.0}


@pytest.mark.parametrize("num_envs", often([1, 4], [4]))
def test_everything_is_counted_in_environment_steps(trained: Trained, num_envs: int) -> None:
    run = trained(
        "env=probe_envs:Bandit-v0", f"num_envs={num_envs}", "total_steps=200", "log_period=20", "network.hidden=[]",
        "algo.batch_size=8", "algo.learning_starts=40", "algo.train_period=8", "algo.gradient_steps=3",
        "exploration=linear", "exploration.start=1", "exploration.end=0.5", "exploration.steps=100",
    )  # fmt: skip
    seen = {row["step"]: (row["train/gradient_steps"], row["train/epsilon"]) for row in run.rows}
    assert seen == {
        step: (max(0, step - 40) // 8 * 3, pytest.approx(1 - 0.5 * min(step / 100, 1))) for step in range(20, 201, 20)
    }
