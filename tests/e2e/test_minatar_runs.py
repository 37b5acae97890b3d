"""A MinAtar run from the command line: trained, stopped and continued, evaluated, used from Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from whole_runs import StopAfter, assert_same_run, newest, resume, train

import rltrain
from rltrain.cli import main
from rltrain.config.application import compose
from rltrain.storage.checkpoint import read_checkpoint

pytest.importorskip("minatar")

ARGS = [
    "algo=dqn", "env=MinAtar/Breakout-v1", "device=cpu", "device.compile=false", "total_steps=160", "log_period=40",
    "eval.period=80", "eval.episodes=2", "checkpoint.period=40", "algo.learning_starts=40", "algo.buffer_size=100",
]  # fmt: skip


def test_a_run_is_continued_bit_for_bit_evaluated_and_loaded(tmp_path: Path) -> None:
    config, _ = compose(ARGS)
    looks = train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", StopAfter(looks // 3))
    assert resume(tmp_path / "parts", stop=StopAfter(looks // 3)) == 143
    assert resume(tmp_path / "parts") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    replay = read_checkpoint(newest(tmp_path / "whole").folder).tensors["replay"]
    assert str(replay["replay.obs"].dtype) == "torch.bool"
    assert main(["evaluate", str(tmp_path / "whole"), "episodes=3"]) == 0
    found = json.loads((tmp_path / "whole" / "evaluation.json").read_text())
    assert found["episodes"] == 3
    policy = rltrain.load(tmp_path / "whole")
    assert policy.act(np.zeros((10, 10, 4), np.bool_)) in range(3)


def test_reinforce_takes_the_same_images(tmp_path: Path) -> None:
    run = [
        "algo=reinforce",
        "env=MinAtar/Breakout-v1",
        "network=cnn",
        "device=cpu",
        "total_steps=60",
        "eval.period=null",
    ]
    train(compose(run)[0], tmp_path / "run")
    assert (tmp_path / "run" / "result.json").exists()
