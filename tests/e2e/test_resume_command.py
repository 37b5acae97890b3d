"""`rltrain resume`: what it continues, and what it refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from small_runs import dqn_config, env_config, q_learning_config, run_config
from whole_runs import (
    KillAfter,
    StopAfter,
    assert_same_run,
    config_of,
    flip_a_byte,
    newest,
    one_line,
    record_of,
    resume,
    rewrite,
    rltrain_here,
    train,
)

from rltrain.cli import main
from rltrain.config.plain import to_plain
from rltrain.config.schema import CheckpointConfig
from rltrain.errors import RunFailed
from rltrain.storage.run_folder import RunFolder


def config_yaml(run: Path) -> dict[str, Any]:
    plain: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text())
    return plain


class TestTrust:
    @pytest.fixture
    def stored(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        config = run_config(dqn_config(), env=env_config("probe_envs:Bandit-v0"), total_steps=60)
        train(config, tmp_path / "run", StopAfter(30))
        monkeypatch.delenv("RLTRAIN_PLUGINS")
        return tmp_path / "run"

    @pytest.mark.parametrize("status", ["failed", "interrupted"])
    def test_a_run_without_a_checkpoint_begins_anew_only_where_it_may(
        self, status: str, stored: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It had said that it begins anew, and then that it does not. `interrupted` is said of a sweep's job by the
        process that has seen the job's die."""
        shutil.rmtree(stored / "checkpoints")
        RunFolder(stored).write_record(status=status)
        capsys.readouterr()
        assert main(["resume", str(stored)]) == 2
        assert "begins anew" not in capsys.readouterr().out
        assert main(["resume", str(stored), "trust=true"]) == 0
        assert "has no checkpoint: begins anew" in capsys.readouterr().out

    @pytest.mark.parametrize("kept", ["mine", "step_00000030"])
    def test_a_run_whose_checkpoint_may_have_another_name_does_not_begin_anew(
        self, kept: str, stored: Path, tmp_path: Path
    ) -> None:
        """Its rows would go."""
        (saved,) = (stored / "checkpoints").glob("step_*")
        place = saved.rename(tmp_path / "elsewhere" if kept == saved.name else saved.with_name(kept))
        if kept == saved.name:
            saved.symlink_to(place)
        assert main(["resume", str(stored), "trust=true"]) == 2

    @pytest.mark.parametrize("command", ["evaluate", "resume"])
    def test_a_stored_module_is_imported_only_by_consent(
        self, command: str, stored: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        capsys.readouterr()
        assert main([command, str(stored)]) == 2
        error = one_line(capsys, 3)
        assert "probe_envs" in error and "trust=true" in error
        assert main([command, str(stored), "trust=false"]) == 2
        assert main([command, str(stored), "trust=true"]) == 0
        monkeypatch.setenv("RLTRAIN_PLUGINS", "probe_envs")
        assert main([command, str(stored)]) == 0

    @pytest.mark.parametrize("command", ["evaluate", "resume"])
    def test_refusing_imports_nothing(self, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        train(run_config(dqn_config(), total_steps=60), tmp_path / "run", StopAfter(30))
        (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
        plain = to_plain(config_of(tmp_path / "run"))
        rewrite(tmp_path / "run", {"config": {**plain, "env": {**plain["env"], "id": "evil:CartPole-v1"}}})
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(tmp_path)
            assert main([command, str(tmp_path / "run")]) == 2
            assert main([command, str(tmp_path / "run"), "trust=true"]) == 2  # and then it is only said
        assert "imported" in one_line(capsys, 10)


class TestResume:
    def test_a_finished_run(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        assert main(["resume", str(run)]) == 0
        assert "nothing left to do" in capsys.readouterr().out
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before

    @pytest.mark.parametrize(
        ("args", "named"),
        [
            (["algo.gamma=0.5", "seed=3"], ["algo.gamma=0.99 (asked: 0.5)", "seed=0 (asked: 3)"]),
            (["algo=reinforce"], ["algo", "dqn", "reinforce"]),
            (["env=Acrobot-v1"], ["CartPole-v1", "Acrobot-v1"]),
            (["env.id=Acrobot-v1"], ["CartPole-v1", "Acrobot-v1"]),
            (["network.hidden=[9]"], ["network.hidden"]),
            (["target_update=soft"], ["target_update"]),
            (["total_steps=400"], ["total_steps=400"]),
            (["total_setps=900"], ["total_setps", "total_steps"]),
            (["total_steps=many"], ["total_steps"]),
            (["--fast"], ["--fast"]),
        ],
    )
    def test_another_experiment_is_refused(
        self, args: list[str], named: list[str], run: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
        assert main(["resume", str(run), *args]) == 2
        error = one_line(capsys, 3)
        assert all(name in error for name in named), error
        assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before

    def test_a_learning_rate_that_falls_jumps_and_that_is_said(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        train(run_config(dqn_config(anneal_lr=True), total_steps=60), tmp_path / "run")
        assert main(["resume", str(tmp_path / "run"), "total_steps=80"]) == 0
        assert "they jump from 0% to 25% of what they began with" in capsys.readouterr().out

    def test_what_the_manifest_tells_waits_for_no_torch(self, run: Path) -> None:
        code = (
            "import sys\nfrom rltrain.cli import main\n"
            "changes = 'seed=3', 'total_steps=400', 'log_period=7'\n"
            "codes = [main(['resume', sys.argv[1], change]) for change in changes]\n"
            "sys.exit(codes != [2, 2, 0] or 'torch' in sys.modules)"
        )
        ended = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr

    def test_a_running_run_is_refused_by_its_holder_s_name(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with RunFolder(run) as held:
            held.write_record(status="running")
            assert main(["resume", str(run)]) == 2
            assert f"process {os.getpid()}" in one_line(capsys)
            shutil.rmtree(run / "checkpoints")
            assert main(["resume", str(run)]) == 2
            said = capsys.readouterr()
            assert f"process {os.getpid()}" in said.err
            assert "begins anew" not in said.out
            assert record_of(run)["status"] == "running"

    def test_other_software_or_another_device_is_said(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run = tmp_path / "run"
        train(run_config(dqn_config()), run, StopAfter(30))
        old = newest(run).manifest
        rewrite(run, {"versions": {**old["versions"], "torch": "0.9"}, "device": "cuda:0", "threads": 7})
        capsys.readouterr()
        assert resume(run, stop=StopAfter(10)) == 143
        assert "but not bit for bit: it was saved with device cuda:0, 7 threads, torch 0.9" in capsys.readouterr().out
        assert resume(run) == 0
        assert ", exactly" in capsys.readouterr().out

    def test_a_damaged_checkpoint_is_skipped_and_said(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        config = run_config(dqn_config(), checkpoint=CheckpointConfig(40, 3, True))
        train(config, tmp_path / "whole")
        train(config, tmp_path / "run", StopAfter(100))
        flip_a_byte(tmp_path / "run" / "checkpoints" / "step_00000100" / "replay.safetensors")
        capsys.readouterr()
        assert resume(tmp_path / "run") == 0
        said = capsys.readouterr()
        file = tmp_path / "run" / "checkpoints" / "step_00000100" / "replay.safetensors"
        fault = f"skipped a checkpoint: {file}: damaged: its SHA-256 is not the manifest's"
        assert said.err.splitlines()[0] == f"warning   {fault}; step_00000080 is taken"
        assert "skipped" not in said.out
        assert_same_run(tmp_path / "whole", tmp_path / "run")

    @pytest.mark.parametrize("command", ["evaluate", "resume"])
    @pytest.mark.parametrize("damage", ["all damaged", "none", "no config", "no spaces", "another config"])
    def test_nothing_usable_is_one_line(
        self, command: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = tmp_path / "run"
        train(run_config(dqn_config(), total_steps=60), run, StopAfter(30))
        if damage == "all damaged":
            for file in run.glob("checkpoints/*/network.safetensors"):
                flip_a_byte(file)
        elif damage == "none":
            shutil.rmtree(run / "checkpoints")
        elif damage == "no config":
            rewrite(run, {"config": None})
        elif damage == "no spaces":
            rewrite(run, {"observation_space": None})
        else:
            plain = to_plain(config_of(run))
            rewrite(run, {"config": {**plain, "network": {**plain["network"], "hidden": [9]}}})
        capsys.readouterr()
        expected = 0 if command == "resume" and damage in ("no spaces", "none") else 2
        assert main([command, str(run)]) == expected
        if expected:
            said = one_line(capsys, 2 if damage == "another config" else 1)  # which is not that of config.yaml
            assert "step_00000030" in said or damage == "none"

    @pytest.mark.parametrize(
        "state", [{"recorder": None}, {"step": "x"}, {"step": -5}, {"step": 10**30}, {"duties_from": None}]
    )
    def test_a_state_that_does_not_fit_is_one_line(
        self, state: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        train(run_config(dqn_config(), total_steps=60), tmp_path / "run", StopAfter(30))
        rewrite(tmp_path / "run", state=state)
        capsys.readouterr()
        assert main(["resume", str(tmp_path / "run")]) == 2
        assert "step_00000030" in one_line(capsys)

    def test_without_its_experience_a_run_cannot_go_on(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        train(run_config(dqn_config(), checkpoint=CheckpointConfig(None, 3, False)), tmp_path / "run", StopAfter(30))
        assert "checkpoint.replay=false" in capsys.readouterr().out
        assert resume(tmp_path / "run") == 2
        assert "checkpoint.replay=false" in one_line(capsys)
        assert main(["evaluate", str(tmp_path / "run"), "episodes=1"]) == 0

    def test_what_it_changed_is_in_the_record(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        train(run_config(dqn_config(), checkpoint=CheckpointConfig(None, 3, True)), run, StopAfter(30))
        assert "changes" not in record_of(run)
        asked = ["eval.period=40", "checkpoint.keep=1", "checkpoint.keep=2", "log_period=50"]
        assert resume(run, *asked, stop=StopAfter(20)) == 143
        first = [
            {"step": 30, "key": "eval.period", "from": None, "to": 40},
            {"step": 30, "key": "checkpoint.keep", "from": 3, "to": 2},
        ]
        assert record_of(run)["changes"] == first
        at = newest(run).step
        assert resume(run, "eval.period=null", "total_steps=240") == 0
        second = [
            {"step": at, "key": "eval.period", "from": 40, "to": None},
            {"step": at, "key": "total_steps", "from": 200, "to": 240},
        ]
        assert record_of(run)["changes"] == [*first, *second]
        assert resume(run, "total_steps=240") == resume(run) == 0
        assert record_of(run)["changes"] == [*first, *second]

    def test_what_it_changed_holds_after_a_kill(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The newest checkpoint is from before the change, and does not know of it."""
        run, config = tmp_path / "run", run_config(dqn_config(), checkpoint=CheckpointConfig(None, 3, True))
        train(config, run, StopAfter(30))
        assert resume(run, "total_steps=240", "log_period=20", stop=KillAfter(10, run)) == -1
        assert newest(run).step == 30 and config_of(run).total_steps == 200
        capsys.readouterr()
        assert resume(run, "total_steps=29") == 2
        refused = f"total_steps=29: {run} has made 30 steps, and none can be taken back"
        assert refused in one_line(capsys)
        assert resume(run, "log_period=30", stop=StopAfter(3)) == 143
        assert record_of(run)["changes"][-1] == {"step": 30, "key": "log_period", "from": 20, "to": 30}
        assert resume(run) == 0
        assert (newest(run).step, config_of(run).log_period) == (240, 30)

    def test_a_limit_that_was_lifted_before_a_kill_is_no_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The change was recorded and the config not yet written."""
        run = tmp_path / "run"
        train(run_config(dqn_config(), total_steps=40), run)
        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, "write_config", Mock(side_effect=RunFailed("killed")))
            assert resume(run, "total_steps=80") == 1
        assert config_yaml(run)["total_steps"] == 40
        assert resume(run) == 0
        assert newest(run).step == config_yaml(run)["total_steps"] == 80
        assert record_of(run)["changes"] == [{"step": 40, "key": "total_steps", "from": 40, "to": 80}]

    @pytest.mark.parametrize("completed", [False, True])
    def test_what_was_written_into_its_config_is_not_gone_by_and_said(
        self, completed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = tmp_path / "run"
        train(run_config(dqn_config(), total_steps=60), run, None if completed else StopAfter(30))
        stored = config_yaml(run)
        edited = {**stored, "total_steps": 90, "log_period": 7, "algo": {**stored["algo"], "gamma": 0.5}}
        edited["eval"] = {"period": "often", "colour": "\x1b[2J"} if completed else stored["eval"]
        RunFolder(run).write_config(edited)
        keys = (
            "total_steps, log_period, eval.period, eval.colour, algo.gamma"
            if completed
            else "total_steps, log_period, algo.gamma"
        )
        capsys.readouterr()
        assert main(["resume", str(run)]) == 0
        error = capsys.readouterr().err
        assert f"warning   {run}/config.yaml: differs from what the run goes on with: {keys}; `" in error
        assert f"rltrain resume {run} key=value` changes a setting\n" in error
        assert newest(run).step == 60
        assert config_yaml(run) == (edited if completed else stored)

    def test_of_a_config_that_is_as_the_run_left_it_nothing_is_said(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Nor of changes that were recorded, of those that are asked for, of keys that came later or of no config."""
        run = tmp_path / "run"
        train(run_config(dqn_config(), checkpoint=CheckpointConfig(None, 3, True)), run, StopAfter(30))
        capsys.readouterr()
        assert resume(run, "log_period=20", stop=KillAfter(10, run)) == -1
        RunFolder(run).write_config({**config_yaml(run), "total_steps": 240})
        assert resume(run, "total_steps=240", stop=KillAfter(10, run)) == -1
        RunFolder(run).write_config({key: value for key, value in config_yaml(run).items() if key != "video"})
        assert resume(run, stop=StopAfter(10)) == 143
        RunFolder(run).config.write_text("- 1")
        assert resume(run, "eval.period=null") == resume(run) == 0
        RunFolder(run).config.unlink()
        assert resume(run) == 0
        assert newest(run).step == 240
        assert "differs from" not in capsys.readouterr().err

    def test_what_changed_before_a_checkpoint_is_in_it(self, tmp_path: Path) -> None:
        """And is not asked for again: here the older change would be taken back."""
        run = tmp_path / "run"
        train(run_config(dqn_config(), checkpoint=CheckpointConfig(None, 3, True)), run, StopAfter(30))
        assert resume(run, "log_period=20", stop=StopAfter(20)) == 143
        rewrite(run, {"config": {**newest(run).manifest["config"], "log_period": 10}})
        assert resume(run) == 0
        assert config_of(run).log_period == 10

    @pytest.mark.parametrize(
        "changes",
        [
            "x", [1], [{}], [{"step": "0", "key": "seed", "from": 0, "to": 1}],
            [{"step": 99, "key": ["seed"], "from": 0, "to": 1}], [{"step": 99, "key": "seed", "from": 0, "to": 1}],
            [{"step": 99, "key": "env.id", "from": 0, "to": "evil:CartPole-v1"}],
            [{"step": 99, "key": "eval.period", "from": 0, "to": {"a": 1}}],
            [{"step": 99, "key": "log_period", "from": 0, "to": "${oc.env:HOME}"}],
        ],
    )  # fmt: skip
    def test_changes_that_a_stranger_recorded(
        self, changes: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = tmp_path / "run"
        train(run_config(dqn_config(), total_steps=60), run, StopAfter(30))
        RunFolder(run).write_record(changes=changes)
        capsys.readouterr()
        assert main(["resume", str(run)]) == 2
        assert f"{run / 'run.json'}: " in one_line(capsys, 3)
        assert newest(run).step == 30

    def test_a_table_needs_no_experience(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        limits = {"env": env_config("FrozenLake-v1"), "checkpoint": CheckpointConfig(None, 3, False)}
        config = run_config(q_learning_config(), **limits)
        train(config, tmp_path / "whole")
        capsys.readouterr()
        train(config, tmp_path / "run", StopAfter(30))
        assert "resume    exactly" in capsys.readouterr().out
        assert resume(tmp_path / "run") == 0
        assert_same_run(tmp_path / "whole", tmp_path / "run")

    def test_what_is_no_run(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for command in ("resume", "evaluate"):
            assert main([command, str(tmp_path / "nowhere")]) == 2
            assert "nowhere" in one_line(capsys)
            assert main([command, str(tmp_path)]) == 2
            assert str(tmp_path) in one_line(capsys)
            assert rltrain_here(tmp_path, command) == 2
            assert "outputs" in one_line(capsys)
