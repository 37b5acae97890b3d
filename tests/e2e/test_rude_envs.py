"""Environments that print, change directory, take the signals, leave threads: a run and its folder are as ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from whole_runs import COMMON_ARGS

from rltrain.cli import main

SHORT = [
    *COMMON_ARGS, "total_steps=60", "algo.learning_starts=20", "algo.batch_size=4", "eval.period=null",
    "checkpoint.period=20",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLTRAIN_PLUGINS", "rude_envs")


def process(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rltrain", *args]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=120, check=False)


class TestPrints:
    def test_evaluate_json_is_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        for vectorization in ("sync", "async"):
            run = [f"hydra.run.dir={vectorization}", f"env.vectorization={vectorization}", "num_envs=2"]
            assert main([*SHORT, "env=rude_envs:Prints-v0", *run]) == 0
            assert "made" not in capsys.readouterr().out.splitlines()
            assert main(["evaluate", vectorization, "episodes=3", "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["episode_return"]["mean"] == 10

    @pytest.mark.parametrize(
        "args",
        [
            ["--cfg", "job", "env=rude_envs:Prints-v0"],
            ["list", "envs", "Prints"],
            ["-sc", "query=bash"],
            ["--help"],
        ],
    )
    def test_answers_of_a_process(self, args: list[str]) -> None:
        """Also with a package that greets from C, and when the interpreter ends."""
        env = {"COMP_LINE": "rltrain env=Prin", "PYTHONPATH": os.environ["PYTHONPATH"]}
        quiet, rude = process(*args, **env), process(*args, **env, RUDE="1 ")
        assert (rude.returncode, rude.stdout) == (quiet.returncode, quiet.stdout) == (0, quiet.stdout)
        assert quiet.stdout and "C ended" in rude.stderr, rude.stderr
