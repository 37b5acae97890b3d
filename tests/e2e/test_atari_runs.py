"""An Atari run from the command line: trained, stopped and continued, evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from whole_runs import StopAfter, assert_same_run, newest, resume, train

from rltrain.cli import main
from rltrain.config.application import compose
from rltrain.storage.checkpoint import read_checkpoint

pytest.importorskip("ale_py")
pytest.importorskip("cv2")

ARGS = [
    "algo=dqn", "env=ALE/Pong-v5", "env.wrappers=[{name:atari,terminal_on_life_loss:true},{name:frame_stack,size:4}]",
    "network=cnn", "tuned=none",
    "network.hidden=[16]", "env.max_episode_steps=8", "device=cpu", "device.compile=false", "total_steps=90",
    "log_period=30", "eval.period=45", "eval.episodes=1", "checkpoint.period=30", "algo.learning_starts=30",
    "algo.train_period=10", "algo.batch_size=4", "algo.buffer_size=60",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("num_envs", [1, 2])
def test_a_run_is_continued_bit_for_bit_and_evaluated(
    num_envs: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, _ = compose([*ARGS, f"num_envs={num_envs}"])
    looks = train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", StopAfter(looks // 3))
    assert resume(tmp_path / "parts", stop=StopAfter(looks // 3)) == 143
    assert resume(tmp_path / "parts") == 0
    assert "begins anew" not in capsys.readouterr().out
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    tensors = read_checkpoint(newest(tmp_path / "whole").folder).tensors
    frames, numbers = tensors["frames"]["frames.data"], tensors["replay"]["replay.obs"]
    assert str(frames.dtype) == "torch.uint8" and frames.shape[1:] == (84, 84)
    assert numbers.shape == (60, 4) and int(numbers.max()) < len(frames)
    assert main(["evaluate", str(tmp_path / "whole"), "episodes=2"]) == 0
    found = json.loads((tmp_path / "whole" / "evaluation.json").read_text())
    assert found["episodes"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("way", ["sync", "native"])
def test_films_show_the_screen_of_the_episode_that_is_evaluated(way: str, tmp_path: Path) -> None:
    config, _ = compose([*ARGS, "total_steps=45", "video.period=40", f"env.vectorization={way}"])
    train(config, tmp_path / "run")
    assert main(["evaluate", str(tmp_path / "run"), "episodes=1", "video=true"]) == 0
    films = [*(tmp_path / "run" / "videos").iterdir(), next((tmp_path / "run").glob("evaluation.[gm][ip][f4]"))]
    assert len(films) == 2
    with Image.open(films[0]) as film:
        assert film.size == (160, 210) and film.n_frames > 1  # type: ignore[attr-defined]
        assert film.info["duration"] == 60  # of 4 frames at 60 in a second, in hundredths


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["pqn", "ppo"])
def test_rollouts_of_frames_are_continued_bit_for_bit(
    algo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the settings for all games, but for sizes."""
    small = ["num_envs=2", "algo.rollout_steps=16", "network.hidden=[16]", "env.max_episode_steps=20"]
    periods = ["total_steps=160", "log_period=32", "eval.period=80", "eval.episodes=1", "checkpoint.period=50"]
    config, _ = compose([f"algo={algo}", "env=ALE/Pong-v5", "device=cpu", "device.compile=false", *small, *periods])
    looks = train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", StopAfter(looks // 2))
    assert resume(tmp_path / "parts") == 0
    assert "begins anew" not in capsys.readouterr().out
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_two_seeds_train_as_one_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each has its own frames, which a checkpoint of a single run has too."""
    monkeypatch.chdir(tmp_path)
    assert main(["-m", *ARGS, "seed=0,1", "num_envs=2", "hydra.sweep.dir=sweep"]) == 0
    kept = [read_checkpoint(newest(tmp_path / "sweep" / job).folder).tensors["frames"] for job in ("0", "1")]
    assert all(frames["frames.data"].shape[1:] == (84, 84) for frames in kept)
    assert kept[0]["frames.shown"].tolist() == kept[1]["frames.shown"].tolist(), "numbers are each member's own"
    assert main(["resume", "sweep/1", "total_steps=120"]) == 0
