"""`rltrain export`: a file that acts as the run's policy does, where there is no rltrain."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from small_runs import dqn_config, env_config, q_learning_config, reinforce_config, run_config
from whole_runs import StopAfter, newest, one_line, train

import rltrain
from rltrain.cli import main
from rltrain.config.schema import ConstantConfig, EnvConfig, IQNConfig, NetworkConfig, QNetworkConfig, RunConfig
from rltrain.config.wrappers import (
    ClipObservationConfig,
    FrameStackConfig,
    NormalizeObservationConfig,
    NormalizeRewardConfig,
    RescaleObservationConfig,
    ScaleRewardConfig,
    TimeAwareConfig,
)
from rltrain.policy.export import export_policy

NORMALIZE = NormalizeObservationConfig("normalize_observation")
CLIP = ClipObservationConfig("clip_observation", -0.5, 0.4)
RESCALE = RescaleObservationConfig("rescale_observation", -1.0, 3.0)
REWARD = NormalizeRewardConfig("normalize_reward")


def wrapped(id: str, *wrappers: object) -> EnvConfig:
    return replace(env_config(id), wrappers=wrappers)


CASES: dict[str, RunConfig] = {
    "dqn": run_config(dqn_config()),
    "dqn, one-hot, numbers from 3 and 5": run_config(dqn_config(), env=env_config("probe_envs:Shifted-v0")),
    "iqn, noisy": run_config(
        IQNConfig(
            **{f.name: getattr(dqn_config(), f.name) for f in fields(QNetworkConfig)} | {"name": "iqn"},
            quantiles=4, target_quantiles=3, acting_quantiles=5, cosines=6,
        ),
        network=NetworkConfig("mlp", (8,), "tanh", 1.0, noisy=True), exploration=ConstantConfig("constant", 0.0),
    ),
    "dqn, images": run_config(dqn_config(), env=env_config("probe_envs:Images-v0")),
    "reinforce, discrete": run_config(reinforce_config()),
    "reinforce, box": run_config(reinforce_config(), env=replace(env_config("Pendulum-v1"), max_episode_steps=9)),
    "reinforce, box of odd bounds": run_config(reinforce_config(), env=env_config("probe_envs:EchoBox-v0")),
    "reinforce, box, normalized": run_config(reinforce_config(), env=wrapped("Pendulum-v1", NORMALIZE, CLIP)),
    "dqn, normalized, clipped": run_config(dqn_config(), env=wrapped("CartPole-v1", CLIP, NORMALIZE, CLIP, REWARD)),
    "dqn, rescaled": run_config(dqn_config(), env=wrapped("MountainCar-v0", RESCALE)),
    "dqn, numbers from 3 and 5, rewards scaled": run_config(
        dqn_config(), env=wrapped("probe_envs:Shifted-v0", ScaleRewardConfig("scale_reward", 0.5))
    ),
    "dqn, images, normalized": run_config(dqn_config(), env=wrapped("probe_envs:Images-v0", NORMALIZE)),
    "dqn, a table": run_config(q_learning_config(), env=env_config("FrozenLake-v1")),
    "dqn, a table, numbers from 3 and 5": run_config(q_learning_config(), env=env_config("probe_envs:Shifted-v0")),
}  # fmt: skip

ELSEWHERE = """
import json, sys
sys.modules["rltrain"] = None  # importing it fails
import numpy as np
import torch
obs = torch.from_numpy(np.load(sys.argv[2]))
policy = torch.export.load(sys.argv[1]).module()
for batch in (obs, obs[:1]):
    actions = policy(batch)
    assert actions.shape[0] == len(batch)
try:
    import rltrain
except ImportError:
    np.save(sys.argv[3], policy(obs).numpy())
"""


def observations(policy: rltrain.policy.load.TrainedPolicy, count: int) -> np.ndarray:
    space = policy.observation_space
    space.seed(3)
    samples = np.array([space.sample() for _ in range(count)])
    return np.clip(samples, -3, 3).astype(np.float32) if samples.dtype.kind == "f" else samples


SLOW = ("dqn", "dqn, images", "reinforce, box of odd bounds")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in CASES])
def test_the_file_acts_as_the_policy_does(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    train(CASES[name], run, StopAfter(20))
    capsys.readouterr()
    assert main(["export", str(run)]) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 1 and "policy.pt2" in said and "[batch" in said and "torch.export.load" in said
    assert "parts" not in said
    policy = rltrain.load(run)
    obs = observations(policy, 33)
    program = torch.export.load(run / "policy.pt2").module()
    for size in (1, 2, 33):
        actions = program(torch.from_numpy(obs[:size])).numpy()
        expected = np.array([policy.act(one) for one in obs[:size]])
        assert actions.shape == expected.shape
        if name.startswith("dqn") or "discrete" in name:
            np.testing.assert_array_equal(actions, expected)
        else:
            assert actions.dtype == expected.dtype
            np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-6)
        assert all(policy.action_space.contains(action) for action in actions)


def test_parts_are_one_vector_and_the_line_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    train(run_config(dqn_config(), env=env_config("probe_envs:Votes-v0")), run, StopAfter(20))
    capsys.readouterr()
    assert main(["export", str(run), "trust=true"]) == 0
    said = capsys.readouterr().out
    assert "float32 [batch, 9] (of its parts as gymnasium.spaces.flatten makes it, images over 255; docs/" in said
    assert len(said.splitlines()) == 1
    policy, program = rltrain.load(run), torch.export.load(run / "policy.pt2").module()
    space = policy.observation_space
    for _ in range(20):
        obs = space.sample()
        flat = gymnasium.spaces.flatten(space, obs).astype(np.float32)
        assert program(torch.from_numpy(flat[None])).item() == policy.act(obs)


def test_float64_reaches_the_wrappers_of_the_file_whole(tmp_path: Path) -> None:
    """Seconds since 1970, of which float32 keeps every 128th."""
    run = tmp_path / "run"
    clip = ClipObservationConfig("clip_observation", 1.6e9, 1.8e9)
    train(run_config(dqn_config(), env=wrapped("probe_envs:Clock-v0", clip, NORMALIZE)), run, StopAfter(20))
    assert main(["export", str(run)]) == 0
    policy, program = rltrain.load(run), torch.export.load(run / "policy.pt2").module()
    obs = 1.7e9 + np.arange(-256.0, 256.0)[:, None]
    expected = policy.act(obs)
    assert 0 < expected.sum() < len(obs) and [policy.act(one) for one in obs] == expected.tolist()
    np.testing.assert_array_equal(program(torch.from_numpy(obs)).numpy(), expected)


@pytest.mark.slow
def test_it_needs_no_rltrain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    train(CASES["dqn"], run, StopAfter(20))
    monkeypatch.chdir(tmp_path)
    assert main(["export", "run", "out=mine.pt2"]) == 0
    assert "mine.pt2" in capsys.readouterr().out and not (run / "policy.pt2").exists()
    policy = rltrain.load(run)
    obs = observations(policy, 20)
    np.save(tmp_path / "obs.npy", obs)
    arguments = ["mine.pt2", "obs.npy", "actions.npy"]
    done = subprocess.run([sys.executable, "-c", ELSEWHERE, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load("actions.npy"), [policy.act(one) for one in obs])


TIME, STACK = TimeAwareConfig("time_aware"), FrameStackConfig("frame_stack", 2)
LIMIT = 9


def with_time(seen: list[np.ndarray]) -> np.ndarray:
    """All observations of an episode so far -> the last one and the share of the time limit that is left."""
    return np.append(seen[-1], 1 - (len(seen) - 1) / LIMIT).astype(np.float32)


def stacked(seen: list[np.ndarray]) -> np.ndarray:
    return np.stack([seen[max(0, len(seen) - 2)], seen[-1]])


def channels_of_two(seen: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(stacked(seen)), axis=-1)


def stacked_with_time(seen: list[np.ndarray]) -> np.ndarray:
    return np.stack([with_time(seen[: max(1, len(seen) - 1)]), with_time(seen)])


TIME_AND_STACK = "as time_aware, frame_stack alone"


@pytest.mark.parametrize(
    ("id", "wrappers", "takes", "shown"),
    [
        pytest.param(*one, marks=[pytest.mark.slow] * (CLIP not in one[1]))
        for one in [
            ("Pendulum-v1", (TIME, NORMALIZE), with_time, "float32 [batch, 4] as time_aware alone makes them"),
            ("Pendulum-v1", (STACK, NORMALIZE), stacked, "float32 [batch, 2, 3] as frame_stack alone makes them"),
            ("Pendulum-v1", (NORMALIZE, STACK), stacked, "float32 [batch, 2, 3] as frame_stack alone makes them"),
            ("Pendulum-v1", (NORMALIZE, CLIP, TIME, NORMALIZE), with_time, "[batch, 4] as time_aware alone"),
            ("Pendulum-v1", (CLIP, TIME, NORMALIZE, STACK, CLIP), stacked_with_time, TIME_AND_STACK),
            ("Pendulum-v1", (STACK,), stacked, "float32 [batch, 2, 3] as frame_stack alone makes them"),
            ("probe_envs:Images-v0", (NORMALIZE, STACK), channels_of_two, "] as frame_stack alone makes them"),
        ]
    ],
)
def test_of_wrappers_that_look_back_it_takes_what_these_alone_return(
    id: str, wrappers: tuple[object, ...], takes: Any, shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = replace(wrapped(id, *wrappers), max_episode_steps=LIMIT if id == "Pendulum-v1" else None)
    run = tmp_path / "run"
    train(run_config(reinforce_config(), env=env, total_steps=60), run, StopAfter(40))
    capsys.readouterr()
    assert main(["export", str(run)]) == 0
    assert shown in capsys.readouterr().out
    policy = rltrain.load(run)
    episode = [*observations(policy, LIMIT)]
    inputs = np.stack([takes(episode[: t + 1]) for t in range(LIMIT)])
    actions = torch.export.load(run / "policy.pt2").module()(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(actions, [policy.act(obs) for obs in episode], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("wrappers", "names"),
    [
        ((NORMALIZE, FrameStackConfig("frame_stack", 2, "zero")), ("normalize_observation", "frame_stack")),
        ((ClipObservationConfig("clip_observation", 0.2, 0.4), FrameStackConfig("frame_stack", 2, "zero")),
         ("clip_observation", "frame_stack")),
    ],
)  # fmt: skip
def test_what_cannot_come_after_a_stack_padded_with_zeros_is_refused_by_name(
    wrappers: tuple[object, ...], names: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(run_config(dqn_config(), env=wrapped("CartPole-v1", *wrappers)), run, StopAfter(20))
    capsys.readouterr()
    assert main(["export", str(run)]) == 2
    said = one_line(capsys)
    assert f"env.wrappers: {names[0]} before {names[1]}" in said
    assert not (run / "policy.pt2").exists()


def test_a_policy_that_cannot_be_exported_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(CASES["dqn"], tmp_path / "run", StopAfter(3))
    monkeypatch.delattr("rltrain.engine.policy.GreedyPolicy.greedy_module")
    capsys.readouterr()
    assert main(["export", str(tmp_path / "run")]) == 2
    assert "algo=dqn: its policy has no greedy_module" in one_line(capsys)


def test_what_the_file_says_of_itself(tmp_path: Path) -> None:
    train(CASES["reinforce, box"], tmp_path / "run", StopAfter(20))
    written = export_policy(rltrain.load(tmp_path / "run"), tmp_path / "policy.pt2")
    assert (written.observation, written.action) == ("float32 [batch, 3]", "float32 [batch, 1]")
    extra = {"rltrain.json": ""}
    torch.export.load(written.path, extra_files=extra)
    about = json.loads(extra["rltrain.json"])
    assert (about["env"], about["algo"], about["env_step"]) == ("Pendulum-v1", "reinforce", 20)
    assert about["action_space"]["low"] == -2.0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["out=policy.zip"], "must end with .pt2"),
        (["out=nowhere/x.pt2"], "nowhere: no such folder"),
        (["out=taken.pt2"], "is a folder"),
        (["checkpoint=newest"], "must be last or best"),
        (["ou=x.pt2"], "did you mean out?"),
        (["trust=maybe"], "trust=maybe: must be true or false"),
        (["checkpoint=best"], "made no evaluation"),
    ],
)
def test_a_wrong_request_is_one_line_and_writes_nothing(
    args: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(CASES["dqn"], tmp_path / "run", StopAfter(3))
    (tmp_path / "taken.pt2").mkdir()
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["export", "run", *args]) == 2
    assert message in one_line(capsys)
    assert not list(tmp_path.glob("run/*.pt2"))
    assert newest(tmp_path / "run").step == 3


def test_a_folder_that_cannot_be_written_has_another_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(CASES["dqn"], tmp_path / "run", StopAfter(3))
    for name in ("policy.pt2", "report"):
        (tmp_path / "run" / name).mkdir()
    monkeypatch.chdir(tmp_path)

    def refuse(contents: object, out: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(out / "index.html"))

    monkeypatch.setattr("rltrain.report.writing.write_report", refuse)
    capsys.readouterr()
    assert main(["export", "run"]) == 1
    assert (
        one_line(capsys)
        == "rltrain: run/policy.pt2: cannot be written: Is a directory; out=FILE.pt2 writes elsewhere\n"
    )
    assert main(["report", "run"]) == 2
    assert "run/report: cannot be written: Read-only file system; out=FOLDER writes elsewhere" in one_line(capsys)


def test_refusing_loads_no_torch(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code = "import sys; from rltrain.cli import main; found = main(sys.argv[1:]); "
    code += "sys.exit(9 if 'torch' in sys.modules else found)"
    for args in (["export", "empty"], ["export", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *args], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == (0 if "--help" in args else 2), (args, done.stderr)
