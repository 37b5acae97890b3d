"""What a run leaves behind, and what `rltrain evaluate` and Python make of it: the contract of a run folder."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import yaml
from small_runs import dqn_config, env_config, q_learning_config, reinforce_config, run_config
from whole_runs import (
    COMMON_ARGS,
    DQN_ARGS,
    StopAfter,
    assert_same_data,
    config_of,
    event_series,
    newest,
    one_line,
    record_of,
    result_of,
    resume,
    rewrite,
    rltrain_here,
    rows,
    train,
)

import rltrain
from rltrain.cli import main
from rltrain.config.plain import to_plain
from rltrain.config.schema import CheckpointConfig, EvalConfig
from rltrain.config.validate import validate
from rltrain.errors import RequestError
from rltrain.storage.checkpoint import read_checkpoint
from rltrain.terminal.text import mean_and_std

TAGS = {
    "dqn": {"td_loss", "q_value", "epsilon", "grad_norm", "learning_rate", "gradient_steps"},
    "reinforce": {"policy_loss", "value_loss", "entropy", "grad_norm", "learning_rate", "gradient_steps"},
}
ALWAYS = {"rollout/episode_return", "rollout/episode_length", "time/steps_per_second"}
EVAL = {"eval/episode_return", "eval/episode_return_std"}
DIAGNOSTICS = {
    "dqn": ("value", "discounted_return", "dormant_units", "target_distance", "replay_age"),
    "reinforce": ("value", "discounted_return", "dormant_units"),
}


@pytest.mark.parametrize("algo", ["dqn", "reinforce"])
class TestFinishedRun:
    def test_its_files(self, place: Path, algo: str) -> None:
        run = place / algo
        assert {path.name for path in run.iterdir() if "tfevents" not in path.name} == {
            ".hydra", ".lock", "checkpoints", "config.yaml", "learning_curve.png", "metrics.jsonl", "result.json",
            "run.json", "run.log",
        }  # fmt: skip
        assert len(list(run.glob("events.out.tfevents.*"))) == 1
        steps = {path.name for path in (run / "checkpoints").iterdir()}
        last = newest(run).step
        assert steps == {"best", "step_00000400", f"step_{last:08d}"} and last >= 450
        assert (run / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
        assert (run / "run.log").read_text() == ""

    def test_its_metrics(self, place: Path, algo: str) -> None:
        table = [json.loads(line) for line in (place / algo / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] // 50 for row in table] == [2, 4, 6, 8, 9]
        assert [row["step"] // 50 for row in table if EVAL & row.keys()] == [4, 8]
        assert all(type(value) is float for row in table for tag, value in row.items() if tag != "step")
        diagnostics = {f"diagnostics/{name}" for name in DIAGNOSTICS[algo]}
        assert all(diagnostics <= row.keys() for row in table if EVAL & row.keys())
        assert set().union(*table) == {"step", *ALWAYS, *EVAL, *diagnostics, *(f"train/{name}" for name in TAGS[algo])}

    def test_tensorboard_shows_the_same(self, place: Path, algo: str) -> None:
        run = place / algo
        expected: dict[str, list[tuple[int, float]]] = {}
        for row in rows(run):
            for tag, value in row.items():
                if tag != "step":
                    expected.setdefault(tag, []).append((row["step"], float(np.float32(value))))
        end, returns = newest(run).step, result_of(run)["episode_return"]
        for tag, number in (("final/episode_return", "mean"), ("final/episode_return_std", "std")):
            expected[tag] = [(end, float(np.float32(returns[number])))]
        assert event_series(run) == expected

    def test_its_result_is_what_evaluate_finds(
        self, place: Path, algo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = Path(shutil.copytree(place / algo, tmp_path / "run"))
        result = result_of(run)
        assert result.keys() == {"env_step", "episodes", "episode_return", "threshold", "solve_step", "ended_by"}
        assert result.pop("ended_by") == "total_steps"
        assert (result["env_step"], result["episodes"]) == (newest(run).step, 100)
        assert result["threshold"] == (475.0 if algo == "dqn" else None)
        returns = result["episode_return"]
        assert returns.keys() == {"mean", "std", "min", "max"}
        assert returns["min"] < returns["mean"] < returns["max"] and returns["std"] > 0
        for _ in range(2):
            capsys.readouterr()
            assert main(["evaluate", str(run), "--json"]) == 0
            told = json.loads(capsys.readouterr().out)
            assert told == result_of(run, "evaluation.json")
            assert told == {**result, "checkpoint": newest(run).folder.name, "seed": 0, "greedy": True}

    def test_a_run_of_a_gpu_is_evaluated_on_the_cpu(
        self, place: Path, algo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """All that its checkpoint says of the device that it was trained on is of a machine that is not at hand."""
        run = Path(shutil.copytree(place / algo, tmp_path / "run"))
        plain = newest(run).manifest["config"]
        on_gpu = {**plain, "device": {**plain["device"], "name": "cuda", "index": 3}}
        rewrite(run, {"config": on_gpu, "device": "cuda:3"})
        (run / "config.yaml").write_text(yaml.safe_dump(on_gpu))
        for option in ([], ["device=cpu"]):
            capsys.readouterr()
            assert main(["evaluate", str(run), "--json", *option]) == 0
            assert json.loads(capsys.readouterr().out)["episode_return"] == result_of(run)["episode_return"]
        assert main(["resume", str(run), "total_steps=100_000"]) == 2
        assert "device=cuda" in one_line(capsys)

    def test_its_record(self, place: Path, algo: str) -> None:
        record = record_of(place / algo)
        assert (record["status"], record["reason"], record["seed"], record["device"]) == ("completed", None, 0, "cpu")
        assert record["versions"].keys() >= {"python", "rltrain", "torch", "numpy", "gymnasium"}
        assert record["seconds"] > 0 and record["started"] > 1.6e9
        assert "git" in record and "argv" in record

    def test_its_config(self, place: Path, algo: str) -> None:
        stored = yaml.safe_load((place / algo / "config.yaml").read_text())
        assert stored["total_steps"] == 450 and stored["algo"]["name"] == algo
        assert to_plain(validate(stored)) == stored == newest(place / algo).manifest["config"]

    def test_its_policy_from_python(self, place: Path, algo: str) -> None:
        policy = rltrain.load(place / algo)
        env = gymnasium.make(policy.config.env.id)
        obs, _ = env.reset(seed=3)
        action = policy.act(obs)
        assert env.action_space.contains(action)
        assert policy.env_step == newest(place / algo).step
        if algo == "dqn":
            assert isinstance(action, int)
        else:
            assert (action.dtype, action.shape) == (np.float32, (1,))
        several = gymnasium.make_vec(policy.config.env.id, 4, vectorization_mode="sync")
        batch, _ = several.reset(seed=3)
        actions = policy.act(batch)
        assert several.action_space.contains(actions)
        assert policy.act(batch[:1]).shape == actions[:1].shape
        assert np.allclose(actions, [policy.act(one) for one in batch], rtol=1e-5)
        with pytest.raises(ValueError, match="its space"):
            policy.act(batch[None])
        best = rltrain.load(place / algo / "checkpoints" / "best")
        assert best.checkpoint.name == "best"

    def test_its_header_and_summary(self, place: Path, algo: str) -> None:
        words = [line.split()[0] for line in (place / f"{algo}.out").read_text().splitlines() if line]
        late = ["epsilon"] if algo == "dqn" else []  # whose run is shorter than its exploration
        first = ["rltrain", "network", "device", "stepping", *late, "resume", "folder", "evaluating", "trained"]
        assert words[: len(first)] == first
        assert words[-6:] == ["run", "learning", "look", "report", "evaluate", "continue"]
        assert all(line.startswith("step ") for line in (place / f"{algo}.err").read_text().splitlines())


def test_a_run_s_name_tells_what_ran(tmp_path: Path) -> None:
    short = [*COMMON_ARGS, "total_steps=60", "algo.learning_starts=50", "algo.batch_size=8"]
    assert rltrain_here(tmp_path, *short, "env=probe_envs:Bandit-v0", "name=mine") == 0
    (run,) = (tmp_path / "outputs").glob("*/*")
    assert run.name.endswith("_dqn_Bandit-v0_mine")
    assert record_of(run)["status"] == "completed"


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rltrain_here(tmp_path, *DQN_ARGS, "dry_run=true") == 0
    told = capsys.readouterr().out
    assert "q_network.layers" in told and "(8, 4)" in told and "MiB" in told and "dry run" in told
    assert rltrain_here(tmp_path, "-m", *DQN_ARGS, "dry_run=true", "seed=1,2") == 0
    told = capsys.readouterr().out
    assert told.count("dry run") == 1 and "alike     job 1: differing in seed only" in told
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


class TestEvaluate:
    def test_what_can_be_chosen(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for args, checkpoint, seed, episodes in (
            (["episodes=7"], "step_00000450", 0, 7),
            (["seed=5"], "step_00000450", 5, 100),
            (["checkpoint=best"], "best", 0, 100),
        ):
            assert main(["evaluate", str(run), *args]) == 0
            told = result_of(run, "evaluation.json")
            assert (told["checkpoint"], told["seed"], told["episodes"]) == (checkpoint, seed, episodes)
            returns = told["episode_return"]
            line = f"greedy return of {episodes} episodes {mean_and_std(returns['mean'], returns['std'])}"
            assert line in capsys.readouterr().out
        assert main(["evaluate", str(run / "checkpoints" / "step_00000400")]) == 0
        told = result_of(run, "evaluation.json")
        assert (told["checkpoint"], told["env_step"]) == ("step_00000400", 400)

    def test_inside_the_run_folder(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(run / "checkpoints")
        assert main(["evaluate", "step_00000400", "episodes=2"]) == 0
        assert result_of(run, "evaluation.json")["checkpoint"] == "step_00000400"
        assert {path.name for path in Path().iterdir()} == {"best", "step_00000400", "step_00000450"}

    def test_the_newest_run_is_taken_and_named(
        self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name, age in (("a", 5), ("b", 100)):
            copy = shutil.copytree(place / "dqn", tmp_path / "outputs" / "day" / name)
            os.utime(copy / "run.json", (1e9 - age, 1e9 - age))
        monkeypatch.chdir(tmp_path)
        assert main(["evaluate", "episodes=2"]) == 0
        assert capsys.readouterr().out.startswith("newest run: outputs/day/a\n")
        assert main(["resume"]) == 0
        assert capsys.readouterr().out.startswith("newest run: outputs/day/a\n")

    def test_video(self, run: Path) -> None:
        pytest.importorskip("pygame")
        assert main(["evaluate", str(run), "episodes=1", "video=true"]) == 0
        assert (run / "evaluation.gif").read_bytes().startswith(b"GIF8")

    def test_video_of_what_draws_nothing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        train(run_config(dqn_config(), env=env_config("probe_envs:Bandit-v0"), total_steps=20), tmp_path / "run")
        capsys.readouterr()
        assert main(["evaluate", str(tmp_path / "run"), "video=true"]) == 2
        assert "video=true" in one_line(capsys)

    @pytest.mark.parametrize(
        "args",
        [["episodes=0"], ["seed=-1"], ["checkpoint=first"], ["video=1"], ["epsiodes=3"], ["--jsn"], ["device=tpu"]],
    )
    def test_wrong_requests(self, run: Path, args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["evaluate", str(run), *args]) == 2
        assert args[0].partition("=")[0].lstrip("-") in one_line(capsys, 3)
        assert not (run / "evaluation.json").exists()


def test_evaluating_and_saving_change_nothing(tmp_path: Path) -> None:
    """Neither the weights nor the replay know how often the run was looked at."""
    for config in (
        run_config(dqn_config(n_step=3), num_envs=2),
        run_config(reinforce_config(), num_envs=2, env=env_config("probe_envs:Walk-v0")),
    ):
        folders = []
        for evaluate, save in ((None, None), (13, None), (7, 17)):
            folders.append(tmp_path / config.algo.name / f"{evaluate} {save}")
            periods = {"eval": EvalConfig(evaluate, 3), "checkpoint": CheckpointConfig(save, 3, True)}
            train(replace(config, total_steps=120, **periods), folders[-1])
        plain, *others = map(newest, folders)
        for other in others:
            assert_same_data(plain.tensors, other.tensors)
            assert_same_data(plain.state["agent"], other.state["agent"])
            assert_same_data(plain.state["envs"], other.state["envs"])
        training = [
            [{t: v for t, v in row.items() if not t.startswith(("eval/", "diagnostics/"))} for row in rows(folder)]
            for folder in folders
        ]
        rows_of_the_period = [
            [row for row in table if (len(row) > 1 and row["step"] % 50 < 2) or row["step"] >= 120]
            for table in training
        ]
        assert all(table == rows_of_the_period[0] for table in rows_of_the_period)


def test_the_best_network_is_that_of_the_best_evaluation(tmp_path: Path) -> None:
    walk = env_config("probe_envs:Walk-v0")
    train(run_config(reinforce_config(), env=walk, total_steps=400, eval=EvalConfig(40, 4)), tmp_path / "run")
    returns = {row["step"]: row["eval/episode_return"] for row in rows(tmp_path / "run") if EVAL & row.keys()}
    best = max(returns, key=lambda step: returns[step])
    assert best not in (min(returns), max(returns))
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "best").step == best


class TestInitFrom:
    def test_the_network_is_the_other_run_s(
        self, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for source in (place / "dqn", place / "dqn" / "checkpoints" / "best"):
            config = validate({**to_plain(config_of(place / "dqn")), "seed": 9, "init_from": str(source)})
            train(config, tmp_path / source.name, StopAfter(0))
            assert f"begins with the network of {source} " in " ".join(capsys.readouterr().out.split())
            checkpoint = source if source.name == "best" else newest(source).folder
            theirs = read_checkpoint(checkpoint, only=["network"]).tensors["network"]
            ours = newest(tmp_path / source.name).tensors["network"]
            for name, tensor in ours.items():
                assert tensor.equal(theirs[name.replace("target_network", "q_network")]), name

    def test_a_table_brings_its_visits(self, tmp_path: Path) -> None:
        """Without them the first update of each entry, with a step size of alpha, replaced what was loaded."""
        env, source = env_config("probe_envs:Chain-v0"), tmp_path / "source"
        falling = run_config(q_learning_config(alpha_decay=0.6), env=env, eval=EvalConfig(100, 3))
        train(falling, source)
        constant, best = q_learning_config(), source / "checkpoints" / "best"
        for algo, begins, visited in ((falling.algo, source, True), (constant, source, False), (constant, best, False)):
            run = tmp_path / f"{algo == constant}-{begins.name}"
            train(replace(falling, algo=algo, init_from=str(begins)), run, StopAfter(0))
            ours, theirs = newest(run).tensors, read_checkpoint(begins if begins == best else newest(source).folder)
            assert ours["network"]["q_table"].equal(theirs.tensors["network"]["q_table"])
            assert ours["optimizer"]["visits"].sum() == (200 if visited else 0)
        with pytest.raises(RequestError, match=r"has no optimizer\.safetensors, with which algo=q_learning begins too"):
            train(replace(falling, init_from=str(best)), tmp_path / "run", StopAfter(0))

    @pytest.mark.parametrize(
        ("args", "what"),
        [
            (["init_from=nowhere"], "nowhere"),
            (
                ["init_from={place}/dqn", "network.hidden=[9]", "network.noisy=false", "network.activation=tanh"],
                "in the file (8, 4); it was trained with 'network.hidden=[8]'\n",
            ),
            (["init_from={place}/dqn", "network=dueling"], "; it was trained with network=mlp\n"),
            (["init_from={place}/dqn", "env=Acrobot-v1"], "in the file (8, 4)\n"),
            (["init_from={place}/reinforce"], "is a network of algo=reinforce, from which dqn cannot start"),
        ],
    )
    def test_what_does_not_fit_is_refused_before_there_is_a_folder(
        self, args: list[str], what: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert rltrain_here(tmp_path, *DQN_ARGS, *(arg.format(place=place) for arg in args)) == 2
        assert what in one_line(capsys, 3)
        assert not list(tmp_path.glob("outputs/*/*"))


class TestEnds:
    def test_stop_at_return(self, tmp_path: Path) -> None:
        config = run_config(
            dqn_config(), total_steps=10_000, stop_at_return=1.0, env=env_config("probe_envs:Bandit-v0"),
            eval=EvalConfig(40, 3), log_period=1000,
        )  # fmt: skip
        train(config, tmp_path / "run")
        result = result_of(tmp_path / "run")
        assert result["env_step"] < 10_000 and result["env_step"] % 40 == 0
        assert result["solve_step"] == result["env_step"]
        last = rows(tmp_path / "run")[-1]
        assert (last["step"], last["eval/episode_return"]) == (result["env_step"], 1.0)
        assert "train/td_loss" in last

    def test_a_run_that_stopped_at_its_return_goes_on_if_asked(self, tmp_path: Path) -> None:
        config = run_config(
            dqn_config(), total_steps=400, stop_at_return=1.0, env=env_config("probe_envs:Bandit-v0"),
            eval=EvalConfig(40, 3), log_period=40,
        )  # fmt: skip
        train(config, tmp_path / "run")
        assert newest(tmp_path / "run").step < 400
        assert resume(tmp_path / "run", "stop_at_return=2") == 0
        assert newest(tmp_path / "run").step == 400
        train(replace(config, stop_at_return=2.0), tmp_path / "whole")
        assert_same_data(newest(tmp_path / "run").tensors, newest(tmp_path / "whole").tensors)
        assert rows(tmp_path / "run") == rows(tmp_path / "whole")

    def test_total_episodes(self, tmp_path: Path) -> None:
        config = run_config(dqn_config(), total_episodes=9, env=env_config("probe_envs:FixedLength-v0"))
        train(config, tmp_path / "run")
        assert result_of(tmp_path / "run")["env_step"] == 63
        assert resume(tmp_path / "run", "total_episodes=12") == 0
        assert result_of(tmp_path / "run")["env_step"] == 84

    def test_interrupted(self, tmp_path: Path) -> None:
        train(run_config(dqn_config()), tmp_path / "run", StopAfter(30))
        record = record_of(tmp_path / "run")
        assert (record["status"], record["reason"]) == ("interrupted", "stopped by SIGTERM")
