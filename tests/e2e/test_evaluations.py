"""Evaluations of whole runs: how many environments they take, where they end, what a stop leaves of them, videos."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Generator, Iterator
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from probe_envs import Scarce
from small_runs import dqn_config, env_config, reinforce_config, run_config
from whole_runs import (
    StopAfter,
    assert_same_run,
    newest,
    one_line,
    record_of,
    result_of,
    resume,
    rewrite,
    rltrain_here,
    train,
)

import rltrain.training.evaluator
import rltrain.training.stopping
from rltrain.cli import main
from rltrain.config.schema import EvalConfig
from rltrain.training.stopping import WHILE_EVALUATING

SMALL = ["tuned=none", "device=cpu", "device.compile=false", "network.hidden=[8]", "total_steps=300"]
DQN = [*SMALL, "algo.learning_starts=50", "algo.batch_size=8", "hydra.run.dir=run"]


class TestAMachineThatHoldsFewEnvironments:
    @pytest.fixture(autouse=True)
    def none_made(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(Scarce, "made", 0)
        yield
        assert Scarce.alive == 0

    def test_one_is_enough(self, tmp_path: Path) -> None:
        assert rltrain_here(tmp_path, *DQN, "env=probe_envs:Scarce-v0", "eval.period=null") == 0
        assert result_of(tmp_path / "run")["episode_return"]["mean"] == 10.0
        assert Scarce.made == 5  # to look at, twice to see whether it replays, to train in, to evaluate in
        assert rltrain_here(tmp_path, "evaluate", "run", "episodes=30") == 0

    def test_one_is_not_enough_to_evaluate_meanwhile(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for extra in ([], ["dry_run=true"], ["eval.num_envs=1"]):
            assert rltrain_here(tmp_path, *DQN, "env=probe_envs:Scarce-v0", "eval.period=100", *extra) == 2
            error = one_line(capsys, 2)
            assert "eval.period=100" in error and "the port is in use" in error and "eval.period=null" in error
        assert not (tmp_path / "run").exists()

    def test_a_period_that_never_comes_needs_none(self, tmp_path: Path) -> None:
        assert rltrain_here(tmp_path, *DQN, "env=probe_envs:Scarce-v0", "eval.period=301") == 0

    def test_two_are(self, tmp_path: Path) -> None:
        few = [*DQN, "env=probe_envs:Scarce-v0", "env.kwargs.most=2", "eval.period=100"]
        assert rltrain_here(tmp_path, *few) == 0
        assert Scarce.made == 5
        log = (tmp_path / "run" / "run.log").read_text()
        assert "eval.num_envs=1, as no more environments can be made: environment probe_envs:Scarce-v0" in log

    def test_a_population(self, tmp_path: Path) -> None:
        few = ["env=probe_envs:Scarce-v0", "env.kwargs.most=2", "eval.period=null", "hydra.sweep.dir=sweep"]
        assert rltrain_here(tmp_path, "-m", *DQN[:-1], *few, "seed=0,1") == 0
        assert [result_of(tmp_path / "sweep" / job)["episodes"] for job in "01"] == [10, 10]

    @pytest.mark.slow
    def test_jobs_of_a_sweep_have_it_one_after_the_other(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sweep = ["-m", *DQN[:-1], "env=probe_envs:Scarce-v0", "eval.period=null", "hydra.sweep.dir=sweep", "seed=0,1"]
        assert rltrain_here(tmp_path, *sweep) == 2
        error = one_line(capsys, 2)
        assert "1 of 2 environments for 2 jobs that train as one program can be made: " in error
        assert error.endswith("hydra/launcher=basic trains one job after the other\n")
        assert not (tmp_path / "sweep").exists() and Scarce.alive == 0
        assert rltrain_here(tmp_path, *sweep, "hydra/launcher=basic") == 0
        assert [result_of(tmp_path / "sweep" / job)["episodes"] for job in "01"] == [10, 10]

    def test_a_run_says_how_many_evaluated_it_and_goes_on_with_as_many(self, tmp_path: Path) -> None:
        few = [*DQN, "env=probe_envs:Scarce-v0", "env.kwargs.most=5", "eval.period=100"]
        assert rltrain_here(tmp_path, *few, stop=StopAfter(200)) == 143
        run = tmp_path / "run"
        (manifest,) = (run / "checkpoints").glob("step_*/manifest.json")
        assert json.loads(manifest.read_text())["eval_num_envs"] == 4
        made = Scarce.made
        assert resume(run) == 0
        assert Scarce.made == made + 1 + 4


class TestWithoutATimeLimit:
    CONFIG = run_config(
        dqn_config(), env=env_config("probe_envs:Straggler-v0"), total_steps=300, eval=EvalConfig(100, 3)
    )

    def test_its_result_says_what_was_cut_and_is_what_evaluate_finds(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        train(self.CONFIG, tmp_path / "run")
        said = " ".join(capsys.readouterr().out.split())
        assert "evaluations cut episodes at 500 steps, and end after 300 steps, the last one after 10,000" in said
        assert (
            "evaluating 10 greedy episodes, or the first that fill 1,000 steps; Ctrl-C ends it with those played "
            in said
        )
        result = result_of(tmp_path / "run")
        assert result["episodes"] == 8 and result["episodes_asked"] == 10
        assert result["episodes_cut"] == 2 and result["cut_at_step"] == 500
        assert "over 8 of 10 episodes, 2 of them cut at step 500" in said
        assert main(["evaluate", str(tmp_path / "run"), "episodes=10"]) == 0
        assert "8 of 10 episodes, 2 of them cut" in capsys.readouterr().out
        again = result_of(tmp_path / "run", "evaluation.json")
        assert result.pop("ended_by") == "total_steps"
        assert {key: again[key] for key in result} == result

    def test_a_time_limit_lifts_it(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        limited = [*DQN, "env=probe_envs:Straggler-v0", "env.max_episode_steps=40", "eval.period=null"]
        assert rltrain_here(tmp_path, *limited) == 0
        assert result_of(tmp_path / "run")["episodes"] == 10
        assert "evaluating 10 greedy episodes\n" in capsys.readouterr().out


@pytest.mark.parametrize("algo", [dqn_config(), reinforce_config()], ids=["dqn", "reinforce"])
def test_a_stop_in_the_last_evaluation_leaves_what_there_is(
    algo: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_config(algo, env=env_config("probe_envs:ConstantTerminated-v0"), total_steps=60)  # type: ignore[arg-type]
    looks = train(config, tmp_path / "whole")
    capsys.readouterr()
    stopped: Any = StopAfter(looks - 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        train(config, tmp_path / "run", stopped)
    said = capsys.readouterr().out
    part, whole = result_of(tmp_path / "run"), result_of(tmp_path / "whole")
    assert part["partial"] is True and part["episodes_asked"] == 10 and 0 < part["episodes"] < 10
    assert (stopped.answer, stopped.saves) == (WHILE_EVALUATING, False)
    assert f"over {part['episodes']} of 10 episodes, then interrupted" in said
    assert "partial" not in whole and whole["episodes"] == 10
    record = record_of(tmp_path / "run")
    assert record["status"] == "interrupted"
    assert resume(tmp_path / "run") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_the_checkpoint_of_a_step_is_named_by_its_folder(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(run_config(dqn_config()), tmp_path / "run", StopAfter(3))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RLTRAIN_PLUGINS", raising=False)  # which a command that is told would repeat
    capsys.readouterr()
    rule = "must be last or best; that of a step"
    for asked, line in (
        ("step_00000003", f"{rule}: `rltrain {command} run/checkpoints/step_00000003`"),
        ("3", f"{rule}: `rltrain {command} run/checkpoints/step_00000003`"),
        (
            "step_00000004",
            f"{rule} is a folder: `rltrain {command} RUN/checkpoints/step_...`; the newest: step_00000003",
        ),
        ("newest", "must be last or best"),
    ):
        assert main([command, "run", f"checkpoint={asked}"]) == 2
        assert capsys.readouterr().err == f"rltrain: checkpoint={asked}: {line}\n"
    if command == "evaluate":
        assert main(["evaluate", "run/checkpoints/step_00000003", "episodes=1"]) == 0


@pytest.mark.slow
def test_a_population_too(tmp_path: Path) -> None:
    jobs = ["-m", *DQN[:-1], "env=probe_envs:ConstantTerminated-v0", "eval.period=null", "seed=0,1"]
    whole = StopAfter()
    assert rltrain_here(tmp_path, *jobs, "hydra.sweep.dir=whole", stop=whole) == 0
    assert rltrain_here(tmp_path, *jobs, "hydra.sweep.dir=sweep", stop=StopAfter(whole.looks - 4)) == 143
    parts = [result_of(tmp_path / "sweep" / job) for job in "01"]
    assert any(part.get("partial") for part in parts)
    assert {record_of(tmp_path / "sweep" / job)["status"] for job in "01"} == {"interrupted"}
    assert resume(tmp_path / "sweep") == 0
    for job in "01":
        assert_same_run(tmp_path / "whole" / job, tmp_path / "sweep" / job)


def test_a_stop_of_evaluate_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import rltrain.training.stopping

    train(run_config(dqn_config(), env=env_config("probe_envs:ConstantTerminated-v0")), tmp_path / "run")
    capsys.readouterr()
    monkeypatch.setattr(rltrain.training.stopping, "StopSignal", lambda *_, **__: StopAfter(5))
    assert main(["evaluate", str(tmp_path / "run"), "episodes=50", "--json", "video=true"]) == 2  # draws nothing
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "episodes=50", "--json"]) == 143
    found = json.loads(capsys.readouterr().out)
    assert found["partial"] is True and found["episodes_asked"] == 50 and 0 < found["episodes"] < 50
    assert found == result_of(tmp_path / "run", "evaluation.json")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of environments that draw themselves, or not."""
    place = tmp_path_factory.mktemp("films")
    for how in ("rgb", "late", "none", "text", "never"):
        train(run_config(dqn_config(), env=env_config("probe_envs:Film-v0", how=how), total_steps=20), place / how)
    return place


class TestVideo:
    @pytest.mark.parametrize("how", ["none", "text", "never"])
    def test_what_cannot_be_drawn_is_refused_before_the_episodes(
        self, films: Path, how: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rltrain.training.evaluator.Evaluator, "evaluate", lambda *_, **__: pytest.fail("evaluated"))
        capsys.readouterr()
        assert main(["evaluate", str(films / how), "video=true"]) == 2
        assert "video=true: probe_envs:Film-v0 draws no pictures: render() gives" in one_line(capsys)

    @pytest.mark.parametrize("how", ["rgb", "late"])
    def test_what_can_be_drawn(self, films: Path, how: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["evaluate", str(films / how), "video=true", "episodes=1"]) == 0
        assert (films / how / "evaluation.gif").read_bytes()[:6] == b"GIF89a"

    def test_of_a_checkpoint_outside_a_run_it_is_written_here(
        self, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        copied = shutil.copytree(newest(films / "rgb").folder, tmp_path / "mine" / "models" / "best")
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        assert main(["evaluate", str(copied), "video=true", "episodes=1"]) == 0
        assert {path.name for path in tmp_path.rglob("evaluation.*")} == {"evaluation.gif"}
        assert (tmp_path / "here" / "evaluation.gif").exists()

    def test_it_is_an_mp4_where_the_extra_is_installed(self, films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        written: list[tuple[str, tuple[int, int], list[np.ndarray]]] = []

        def write_frames(path: str, size: tuple[int, int], **how: object) -> Generator[None, np.ndarray, None]:
            written.append((path, size, []))
            with suppress(GeneratorExit):
                while True:
                    written[-1][2].append((yield))

        fake = ModuleType("imageio_ffmpeg")
        fake.__spec__, fake.__dict__["write_frames"] = ModuleSpec("imageio_ffmpeg", None), write_frames
        monkeypatch.setitem(sys.modules, "imageio_ffmpeg", fake)
        assert main(["evaluate", str(films / "rgb"), "video=true", "episodes=1"]) == 0
        ((path, (width, height), frames),) = written
        assert path == str(films / "rgb" / "evaluation.mp4") and width % 2 == height % 2 == 0
        assert len(frames) >= 2 and {frame.shape for frame in frames} == {(height, width, 3)}

    def test_it_is_offered_where_there_is_one(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for env, drawn in (("probe_envs:Film-v0", True), ("probe_envs:Bandit-v0", False)):
            train(run_config(dqn_config(), env=env_config(env), total_steps=20), tmp_path / env[11:])
            assert ("video=true" in capsys.readouterr().out) == drawn


class TestAsInTraining:
    """`greedy=false`."""

    LINE = (*DQN, "eval.period=100", "eval.episodes=3")

    def evaluated(self, folder: Path, capsys: pytest.CaptureFixture[str], *args: str) -> tuple[str, dict[str, Any]]:
        capsys.readouterr()
        assert rltrain_here(folder, "evaluate", "run", "episodes=10", *args) == 0
        return capsys.readouterr().out, result_of(folder / "run", "evaluation.json")

    @pytest.mark.parametrize("checkpoint", ["last", "best"])
    def test_without_exploration_it_is_the_greedy_result(
        self, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert rltrain_here(tmp_path, *self.LINE, "exploration.end=0", "exploration.steps=50") == 0
        said, best = self.evaluated(tmp_path, capsys, f"checkpoint={checkpoint}")
        assert best["greedy"] and "greedy return of 10 episodes" in said
        said, found = self.evaluated(tmp_path, capsys, f"checkpoint={checkpoint}", "greedy=false")
        assert found == {**best, "greedy": False} and "return as in training of 10 episodes" in said

    def test_with_it_it_repeats_by_its_seed(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert rltrain_here(tmp_path, *self.LINE, "exploration=constant", "exploration.end=0.5") == 0
        best, first, again, other = (
            self.evaluated(tmp_path, capsys, *args)[1]["episode_return"]
            for args in ([], ["greedy=false"], ["greedy=false"], ["greedy=false", "seed=7"])
        )
        assert first == again and first != best and first != other

    def test_the_moment_of_the_best_network_is_told(self, tmp_path: Path) -> None:
        assert rltrain_here(tmp_path, *self.LINE) == 0
        state = json.loads((tmp_path / "run/checkpoints/best/state.json").read_text())
        assert state["episodes"] > 0

    @pytest.mark.parametrize("episodes", ["many", None, 0.5, [1], -(10**9), 10**400])
    def test_a_foreign_count_of_episodes_is_none(self, episodes: Any, tmp_path: Path) -> None:
        assert rltrain_here(tmp_path, *self.LINE, "exploration=per_episode") == 0
        rewrite(tmp_path / "run", state={"episodes": episodes})
        assert rltrain_here(tmp_path, "evaluate", "run", "episodes=2", "greedy=false") == 0

    def test_a_film_is_greedy(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert rltrain_here(tmp_path, *self.LINE) == 0
        capsys.readouterr()
        assert rltrain_here(tmp_path, "evaluate", "run", "greedy=false", "video=true") == 2
        assert one_line(capsys) == "rltrain: video=true: films the greedy policy; leave greedy=false out\n"
