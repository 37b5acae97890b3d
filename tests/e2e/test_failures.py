"""Runs that fail: exit code 1, a line that says why and one where to go on, the traceback in the log, and checkpoints
that can be trusted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from halves import often
from small_runs import dqn_config, run_config
from whole_runs import (
    COMMON_ARGS,
    DQN_ARGS,
    StopAfter,
    assert_same_run,
    newest,
    one_line,
    record_of,
    resume,
    rltrain_here,
    train,
)

from rltrain.config.schema import CheckpointConfig
from rltrain.errors import RunFailed
from rltrain.storage.checkpoint import read_checkpoint

BAD = ["env.kwargs.at=41", "total_steps=500", "algo.learning_starts=20", "algo.batch_size=8", "checkpoint.period=30"]


class TestFailures:
    @pytest.mark.parametrize(
        ("args", "message", "last"),
        [
            (["env=probe_envs:Raises-v0"], "probe_envs:Raises-v0: environment 0 failed in step 41", 30),
            pytest.param(
                ["env=probe_envs:Raises-v0", "env.kwargs.what=exit"], "environment 0 failed in step 41", 30,
                marks=pytest.mark.slow,
            ),
            (["env=probe_envs:Nan-v0", "env.kwargs.what=reward"], "reward nan is not a finite float32", 30),
            pytest.param(
                ["env=probe_envs:Nan-v0", "env.kwargs.what=obs"], "observation is not finite", 30,
                marks=pytest.mark.slow,
            ),
            (["env=probe_envs:Dies-v0", "env.vectorization=async"], "died (exit code 11)", 30),
            (["env=CartPole-v1", "~env.kwargs.at", "algo.optimizer.lr=1e38"], " at environment step ", 0),
        ],
    )  # fmt: skip
    def test_one_line_a_traceback_in_the_log_and_the_checkpoints_intact(
        self, args: list[str], message: str, last: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        bad = [arg for arg in BAD if f"~{arg.partition('=')[0]}" not in args]
        args = [arg for arg in args if not arg.startswith("~")]
        assert rltrain_here(tmp_path, *COMMON_ARGS, *bad, *args, "hydra.run.dir=run") == 1
        error, *more = capsys.readouterr().err.splitlines()
        assert error.startswith("rltrain: ") and message in error
        assert error.endswith("(traceback in run/run.log)") is ("Raises" in args[0])
        goes_on = rf"saved at step {last}; `.*rltrain resume run( trust=true)?` continues from there" if last else ""
        assert re.fullmatch(goes_on, "\n".join(more))
        record = record_of(tmp_path / "run")
        assert record["status"] == "failed"
        assert message in record["reason"]
        assert "Traceback" in (tmp_path / "run" / "run.log").read_text()
        assert not (tmp_path / "run" / "result.json").exists()
        if last:
            assert newest(tmp_path / "run").step == last
        for checkpoint in (tmp_path / "run").glob("checkpoints/*"):
            weights = read_checkpoint(checkpoint).tensors["network"].values()
            assert all(tensor.isfinite().all() for tensor in weights)

    def test_a_failed_run_can_be_resumed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        config = run_config(dqn_config(), checkpoint=CheckpointConfig(30, 3, True))
        train(config, tmp_path / "whole")
        with monkeypatch.context() as patch:
            patch.setattr("rltrain.engine.off_policy.OffPolicyAgent.update", _failing_at(100))
            with pytest.raises(RunFailed, match="a bug"):
                train(config, tmp_path / "run")
        assert record_of(tmp_path / "run")["status"] == "failed"
        assert resume(tmp_path / "run") == 0
        assert_same_run(tmp_path / "whole", tmp_path / "run")

    @pytest.mark.parametrize("command", ["train", "resume"])
    def test_a_bug_is_one_line_and_a_traceback_in_the_log(
        self, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = tmp_path / "run"
        if command == "resume":
            train(run_config(dqn_config()), run, StopAfter(60))
        monkeypatch.setattr("rltrain.engine.off_policy.OffPolicyAgent.update", _failing_at(100))
        capsys.readouterr()
        args = ["resume", str(run)] if command == "resume" else [*DQN_ARGS, "hydra.run.dir=run"]
        assert rltrain_here(tmp_path, *args) == 1
        said = one_line(capsys, 2)
        assert "RuntimeError: a bug" in said and ("continues from there" in said) == (command == "resume")
        assert (run / "run.log").read_text().count("Traceback") == 1
        assert record_of(run)["status"] == "failed"

    @pytest.mark.parametrize("dry", often([False, True], [False]))
    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 TiB."),
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            RuntimeError("Storage size calculation overflowed with sizes=[4611686018427387904, 4]"),
        ],
    )
    def test_out_of_memory_names_the_keys_that_help(
        self, dry: bool, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        def allocate(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("rltrain.experience.uniform.UniformReplay.__init__", allocate)
        assert rltrain_here(tmp_path, *DQN_ARGS, "hydra.run.dir=run", f"dry_run={dry}") == 1
        said = one_line(capsys)
        assert "out of memory" in said and "algo.buffer_size" in said
        assert ("run.log" in said) != dry and (tmp_path / "run").exists() != dry


def _failing_at(step: int) -> Callable[[Any], dict[str, Any]]:
    def update(agent: Any) -> dict[str, Any]:
        if agent.env_steps == step:
            raise RuntimeError("a bug\nof two lines")
        return dict(original(agent))

    from rltrain.engine.off_policy import OffPolicyAgent

    original = OffPolicyAgent.update
    return update


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "outputs").write_text("a file, not a folder")
    assert rltrain_here(tmp_path, *DQN_ARGS) == 2
    assert "outputs" in one_line(capsys)
