"""Runs with wrappers through the command line: what they report, and what is loaded from them."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from whole_runs import newest, one_line, result_of, rltrain_here, rows

import rltrain
from rltrain.cli import main
from rltrain.storage.checkpoint import read_checkpoint

WRAPPERS = "env.wrappers=[time_aware,normalize_observation,{name: frame_stack, size: 2},normalize_reward]"
ARGS = [
    "hydra.run.dir=run", "tuned=none", "device=cpu", "device.compile=false", "network.hidden=[8]", "total_steps=300",
    "eval.period=100", "eval.episodes=2", "log_period=100", "algo.learning_starts=50", "algo.batch_size=8",
    "env.max_episode_steps=60",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrapped")
    assert rltrain_here(folder, *ARGS, WRAPPERS) == 0
    return folder / "run"


def test_an_evaluation_uses_the_statistics_of_its_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run's own last evaluation is made again from what is on the disk, and the best one has its own."""
    last, best = newest(run), read_checkpoint(run / "checkpoints" / "best")
    name = "statistics.normalize_observation.count"
    assert last.state["envs"][name][0] > 300 >= best.state["envs"][name][0] - 20
    assert last.state["envs"][name][0] < 330, "evaluations add nothing"
    assert main(["evaluate", str(run), "episodes=10", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episode_return"] == result_of(run)["episode_return"]


def test_a_loaded_policy_sees_through_the_wrappers_what_an_evaluation_sees(run: Path) -> None:
    policy = rltrain.load(run)
    assert policy.observation_space == gymnasium.make("CartPole-v1").observation_space
    returns = []
    for seed in range(3):
        env = gymnasium.make("CartPole-v1", max_episode_steps=60)
        policy.reset()
        obs, _ = env.reset(seed=seed)
        total, ended, shown = 0.0, False, []
        mean, m2, count = (
            policy.statistics[f"statistics.normalize_observation.{key}"][0] for key in ("mean", "m2", "count")
        )
        while not ended:
            left = 1 - len(shown) / 60
            shown.append((np.append(obs, left) - mean) / np.sqrt(m2 / count))
            stack = np.stack([shown[max(len(shown) - 2, 0)], shown[-1]]).astype(np.float32)
            action = policy.act(obs)
            assert action == policy.agent_policy.act_greedy(stack[None])[0]
            obs, reward, terminated, truncated, _ = env.step(action)
            total, ended = total + float(reward), terminated or truncated
        returns.append(total)
    assert all(total >= 1 for total in returns)


def test_a_batch_is_seen_through_wrappers_that_do_not_look_back(run: Path, tmp_path: Path) -> None:
    refused = r"one observation of Box\(.* at a time; this has shape \(3, 4\): a wrapper of this run looks back"
    with pytest.raises(ValueError, match=refused):
        rltrain.load(run).act(np.zeros((3, 4)))
    wrappers = "env.wrappers=[normalize_observation,{name: clip_observation, low: -1, high: 1}]"
    assert rltrain_here(tmp_path, *ARGS, "env=CartPole-v1", "total_steps=60", "algo.learning_starts=10", wrappers) == 0
    policy = rltrain.load(tmp_path / "run")
    batch = np.random.default_rng(0).normal(size=(64, 4))
    actions = [policy.act(one) for one in batch]
    assert policy.act(batch).tolist() == actions and len(set(actions)) == 2
    assert policy.act(batch[:0]).shape == (0,)


def test_an_episode_without_an_end_is_noticed(run: Path) -> None:
    policy = rltrain.load(run)
    for _ in range(60):
        policy.act(np.zeros(4))
    with pytest.raises(ValueError, match=r"over after 60 steps: reset\(\) comes before"):
        policy.act(np.zeros(4))


def test_returns_are_not_scaled(tmp_path: Path) -> None:
    assert (
        rltrain_here(tmp_path, *ARGS, "env=probe_envs:FixedLength-v0", "env.wrappers=[normalize_reward,scale_reward]")
        == 0
    )
    assert result_of(tmp_path / "run")["episode_return"] == {"mean": 21.0, "std": 0.0, "min": 21.0, "max": 21.0}
    assert {row["rollout/episode_return"] for row in rows(tmp_path / "run")} == {21.0}


def test_a_run_that_starts_from_a_network_starts_from_its_statistics(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    short = [*ARGS, "total_steps=60", "algo.learning_starts=10", "eval.period=null", f"init_from={run}"]
    assert rltrain_here(tmp_path, *short) == 2
    assert "was trained with env.wrappers=[{name: time_aware}, " in one_line(capsys, 3)
    assert not (tmp_path / "run").exists()
    assert rltrain_here(tmp_path, *short, WRAPPERS) == 0
    now, before = newest(tmp_path / "run").state["envs"], newest(run).state["envs"]
    for name, added in (("normalize_observation", 61), ("normalize_reward", 60)):
        count = f"statistics.{name}.count"
        assert now[count][0] >= before[count][0] + added


def test_a_network_that_learned_from_other_rewards_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = [*ARGS, "total_steps=60", "algo.learning_starts=10", "eval.period=null"]
    assert rltrain_here(tmp_path, *short, "hydra.run.dir=first", "env.wrappers=[scale_reward]") == 0
    capsys.readouterr()
    for number, (more, told) in enumerate((("env.wrappers=[]", True), ("env.wrappers=[scale_reward]", False))):
        assert rltrain_here(tmp_path, *short, f"hydra.run.dir={number}", "init_from=first", more) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "begins with the network of first" in said
        other = (
            "; it learned from rewards with env.wrappers=[{name: scale_reward, factor: 0.1}] env.reward_clip=null, and"
            " this run has env.wrappers=[] env.reward_clip=null"
        )
        assert (other in said) == told


@pytest.mark.slow
def test_a_sweep_of_wrapped_runs_is_one_population(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = [*ARGS[1:], "total_steps=120", "eval.period=null", WRAPPERS]
    assert rltrain_here(tmp_path, "-m", "hydra.sweep.dir=sweep", *short, "seed=0,1") == 0
    assert rltrain_here(tmp_path, "hydra.run.dir=alone", *short, "seed=1") == 0
    together, alone = (newest(tmp_path / place).state["envs"] for place in ("sweep/1", "alone"))
    for name, array in alone.items():
        assert together[name] == pytest.approx(array, rel=1e-3, abs=1e-5), name
    assert "population" in newest(tmp_path / "sweep" / "1").manifest


def test_what_does_not_fit_is_refused_before_a_folder_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rltrain_here(tmp_path, "hydra.run.dir=run", "env=MountainCarContinuous-v0", "env.wrappers=[atari]",
                        "algo=reinforce") == 2  # fmt: skip
    assert "atari is for games of the Arcade Learning Environment" in one_line(capsys)
    assert not list(tmp_path.iterdir())
