"""Environments that print, change directory, take the signals, leave threads: a run and its folder are as ever."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from halves import often
from whole_runs import COMMON_ARGS, assert_same_data, newest, record_of

from rltrain import load
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
            pytest.param(["list", "envs", "Prints"], marks=pytest.mark.slow),
            pytest.param(["-sc", "query=bash"], marks=pytest.mark.slow),
            pytest.param(["--help"], marks=pytest.mark.slow),
        ],
    )
    def test_answers_of_a_process(self, args: list[str]) -> None:
        """Also with a package that greets from C, and when the interpreter ends."""
        env = {"COMP_LINE": "rltrain env=Prin", "PYTHONPATH": os.environ["PYTHONPATH"]}
        quiet, rude = process(*args, **env), process(*args, **env, RUDE="1 ")
        assert (rude.returncode, rude.stdout) == (quiet.returncode, quiet.stdout) == (0, quiet.stdout)
        assert quiet.stdout and "C ended" in rude.stderr, rude.stderr


def files(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for name in ("result.json", "step_*") for path in place.rglob(name))


class TestWanders:
    @pytest.fixture(autouse=True)
    def _where_environments_go(self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("elsewhere")))

    @pytest.mark.parametrize("where", often(["init", "reset", "gone"], ["gone"]))
    def test_a_run_stays_where_the_command_was_given(
        self, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        steps = [f"run/checkpoints/step_{step:08}" for step in (20, 40, 60, 80)]
        args = [*SHORT, "env=rude_envs:Wanders-v0", f"env.kwargs.where={where}", "hydra.run.dir=run"]
        assert main(args) == 0
        assert "run folder      run\n" in capsys.readouterr().out
        assert files(tmp_path) == [*steps[:3], "run/result.json"]
        assert main(["evaluate", "run", "episodes=2"]) == 0
        assert (tmp_path / "run" / "evaluation.json").exists()
        assert main(["resume", "run", "total_steps=80"]) == 0
        assert files(tmp_path) == [*steps[1:], "run/result.json"]
        assert Path.cwd() == tmp_path
        for path in (tmp_path, Path(tempfile.gettempdir())):
            assert not list(path.rglob("outputs"))

    @pytest.mark.parametrize("launcher", often(["population", "basic"], ["population"]))
    def test_the_jobs_of_a_sweep_are_in_one_folder(
        self, launcher: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sweep = ["-m", f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep", "seed=0,1", "init_from=start"]
        wanders = [*SHORT, "env=rude_envs:Wanders-v0", "env.kwargs.where=gone"]
        assert main([*wanders, "hydra.run.dir=start"]) == 0
        assert main([*wanders, *sweep]) == 0
        assert "sweep     2 of 2 jobs done, in sweep\n" in capsys.readouterr().out
        assert {"sweep/0/result.json", "sweep/1/result.json"} <= set(files(tmp_path))
        assert main(["resume", "sweep", "total_steps=80"]) == 0
        assert {f"sweep/{job}/checkpoints/step_00000080" for job in "01"} <= set(files(tmp_path))

    def test_a_removed_working_directory_is_one_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "gone").mkdir()
        os.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        for args in ([], ["-m", "seed=0,1"], ["evaluate"], ["resume"], ["list", "algos"]):
            assert main(args) == 2
            assert capsys.readouterr().err.endswith(": has been removed; cd to a folder that is there\n")


class TestSteals:
    @pytest.fixture(autouse=True)
    def _not_in_the_background(self) -> Iterator[None]:
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
        yield
        signal.signal(signal.SIGHUP, before)

    @pytest.mark.parametrize("when", ["init", "reset", "step"])
    @pytest.mark.parametrize("vectorization", ["sync", "async"])
    def test_a_signal_saves_and_ends_the_run(self, when: str, vectorization: str, tmp_path: Path) -> None:
        number = {"init": signal.SIGTERM, "reset": signal.SIGINT, "step": signal.SIGHUP}[when]
        handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        env = ["env=rude_envs:Steals-v0", f"env.kwargs.when={when}", f"env.kwargs.signal={int(number)}"]
        assert main([*SHORT, *env, f"env.vectorization={vectorization}", "hydra.run.dir=run"]) == 128 + number
        assert record_of(tmp_path / "run")["status"] == "interrupted"
        assert newest(tmp_path / "run").step == 4
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


@pytest.mark.parametrize("how", ["close", "replace"])
def test_a_run_whose_environment_closes_its_streams(how: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "env=rude_envs:Closes-v0", f"env.kwargs.how={how}", "hydra.run.dir=run"]) == 0
    assert capsys.readouterr().out.endswith(" total_steps=120\n")


def test_float64_as_the_default_of_others(tmp_path: Path) -> None:
    """By an environment that trains, and by a program that loads the policy: the numbers are as ever."""
    try:
        run = [*SHORT, "env=rude_envs:Doubles-v0"]
        assert main([*run, "hydra.run.dir=run"]) == 0
        policy = load(tmp_path / "run")
        assert policy.act(np.zeros(2)) in (0, 1) and policy.act(np.zeros((3, 2))).shape == (3,)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert main([*SHORT, "env=rude_envs:Needs-v0", "+hydra.job.env_set.SIM_REWARD=1", "hydra.run.dir=plain"]) == 0
    assert_same_data(newest(tmp_path / "run").tensors, newest(tmp_path / "plain").tensors)


class TestLeaves:
    @pytest.mark.slow
    def test_the_process_ends_and_names_what_is_left(self, tmp_path: Path) -> None:
        ended = process(*SHORT, "env=rude_envs:Leaves-v0", "hydra.run.dir=run")
        assert ended.returncode == 0 and record_of(tmp_path / "run")["status"] == "completed"
        assert ended.stdout.endswith(" total_steps=120\n")
        assert "thread ticker and " in ended.stderr and ended.stderr.endswith(
            "left running by an environment, and ended now\n"
        )

    @pytest.mark.slow
    def test_populations_in_processes_of_their_own(self, tmp_path: Path) -> None:
        ended = process(
            "-m",
            *SHORT,
            "env=rude_envs:Leaves-v0",
            "hydra.sweep.dir=sweep",
            "seed=0,1",
            "num_envs=1,2",
            RLTRAIN_PLUGINS="rude_envs,two_cores",
        )
        assert ended.returncode == 0 and "4 of 4 jobs done" in ended.stdout


class TestNeeds:
    """`hydra.job.env_set` holds before an environment is first made, and for one job only."""

    NEEDS = (*SHORT, "env=rude_envs:Needs-v0")

    @pytest.mark.parametrize(
        "args", [[], pytest.param(["env.vectorization=async"], marks=pytest.mark.slow), ["dry_run=true"]]
    )
    def test_a_run(self, args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([*self.NEEDS, *args, "+hydra.job.env_set.SIM_REWARD=3", "hydra.run.dir=run"]) == 0
        said = capsys.readouterr().out
        assert "SIM_REWARD" not in os.environ
        if "dry_run=true" not in args:
            assert json.loads((tmp_path / "run" / "result.json").read_text())["episode_return"]["mean"] == 30
            assert re.search(r"^evaluate .* SIM_REWARD=3 rltrain evaluate run$", said, re.MULTILINE)
            assert main([*self.NEEDS, *args]) == 2
            assert "KeyError: 'SIM_REWARD'" in capsys.readouterr().err

    def test_env_copy(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        copies = [*self.NEEDS, "dry_run=true", "+hydra.job.env_copy=[SIM_REWARD]"]
        assert main(copies) == 2
        refused = "rltrain: hydra.job.env_copy: the environment variable 'SIM_REWARD' is not set\n"
        assert capsys.readouterr().err == refused
        monkeypatch.setenv("SIM_REWARD", "1")
        assert main(copies) == 0

    @pytest.mark.slow
    @pytest.mark.parametrize("launcher", ["population", "basic"])
    def test_a_sweep(self, launcher: str, tmp_path: Path) -> None:
        args = ["-m", f"hydra/launcher={launcher}", "hydra.sweep.dir=sweep", "seed=0,1", "algo.gamma=0.9"]
        assert main([*self.NEEDS, *args, "+hydra.job.env_set.SIM_REWARD='3${hydra:job.num}'"]) == 0
        assert self.returns(tmp_path / "sweep") == [300, 310]
        assert main([*self.NEEDS, *args, "+hydra.job.env_set.SIM_REWARD=2", "hydra.sweep.dir=alike"]) == 0
        assert self.returns(tmp_path / "alike") == [20, 20]

    @pytest.mark.slow
    def test_populations_in_processes_of_their_own(self, tmp_path: Path) -> None:
        args = ["-m", "hydra.sweep.dir=sweep", "seed=0,1", "num_envs=1,2"]
        assert main([*self.NEEDS, *args, "+hydra.job.env_set.SIM_REWARD=3"]) == 0
        assert self.returns(tmp_path / "sweep") == [30, 30, 30, 30]

    @staticmethod
    def returns(sweep: Path) -> list[float]:
        results = sorted(sweep.glob("*/result.json"))
        return [json.loads(path.read_text())["episode_return"]["mean"] for path in results]
