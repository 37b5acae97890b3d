"""What a run says at its beginning and its end, and what is asked of one that has ended."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_runs import dqn_config, run_config
from whole_runs import COMMON_ARGS, StopAfter, newest, one_line, pasted, record_of, resume, rewrite, rltrain_here, train

from rltrain.cli import main
from rltrain.config.env_families import has_ale
from rltrain.errors import Interrupted
from rltrain.jobs.last_words import final_evaluation, solved, stopped, stopped_before_result

EARLY = [
    *COMMON_ARGS, "total_steps=600", "eval.period=200", "eval.episodes=2", "stop_at_return=5",
    "algo.learning_starts=50", "algo.batch_size=8",
]  # fmt: skip


@pytest.fixture
def early(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A run that its return ended, in a folder with a blank in its name; what it said is in `said`."""
    assert rltrain_here(tmp_path, *EARLY, "hydra.run.dir='my run'") == 0
    (tmp_path / "said").write_text(capsys.readouterr().out)
    return tmp_path / "my run"


def files(run: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.rglob("*") if path.is_file()}


def test_a_run_that_ended_early_says_so_and_what_to_type_next(
    early: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = (early.parent / "said").read_text()
    rows = dict(re.split(r" {2,}", line, maxsplit=1) for line in said.partition("\n\n")[2].splitlines())
    assert rows["trained"].startswith("200 steps, ")
    assert rows["ended early"] == "stop_at_return=5"
    assert rows["run folder"] == "my run" and "folder    my run\n" in said
    assert shlex.split(rows["look"]) == ["tensorboard", "--logdir", "my run"]
    assert pasted(rows["evaluate"]) == ["evaluate", "my run", "video=true"]
    assert pasted(rows["continue"]) == ["resume", "my run", "stop_at_return=null"]
    monkeypatch.chdir(early.parent)
    assert rltrain_here(early.parent, *pasted(rows["continue"])) == 0
    again = capsys.readouterr().out
    assert "ended early" not in again and "trained         600 steps" in again
    assert "folder    my run\n" in again and "run folder      my run\n" in again
    assert "rltrain resume 'my run' total_steps=1200\n" in again


@pytest.mark.slow
def test_what_a_run_says_can_be_pasted_into_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also into one without this one's variables, for an environment of a module of one's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RLTRAIN_PLUGINS")
    module = ["env=probe_envs:FixedLength-v0", "hydra.run.dir='=my [run] of $1'"]
    assert main([*EARLY, *module]) == 0
    rows = dict(re.findall(r"^(evaluate|continue) +(.*)$", capsys.readouterr().out, re.MULTILINE))
    assert rows["evaluate"].startswith(f"PYTHONPATH={shlex.quote(os.environ['PYTHONPATH'])} rltrain evaluate ")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for shell in filter(None, map(shutil.which, ("bash", "zsh"))):
        script = f"{rows['evaluate']} episodes=2  # two of them\n"
        command = [shell, "-f"] if "zsh" in shell else [shell, "--norc"]
        clean = {"PATH": path, "HOME": str(tmp_path)}
        done = subprocess.run(command, input=script, env=clean, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0 and "21.0 +- 0.0" in done.stdout, done.stderr
    assert main(pasted(rows["continue"])) == 0


def test_what_cannot_go_on_says_which_limit_ended_it(early: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(early)
    for change in ("total_steps=100_000", "stop_at_return=4", "log_period=7"):
        assert main(["resume", str(early), change]) == 0
        goal, lifted = ("4", "") if "return=4" in change else ("5", f" {change.replace('_0', '0')}")
        advice = f"stop_at_return=null{lifted} lets it go on"
        ended = f"already ended: stop_at_return={goal} was reached at step 200; {advice}"
        assert capsys.readouterr().out == f"{early}: {ended}\n"
    assert files(early) == before
    assert resume(early, "stop_at_return=null", "total_steps=700") == 0
    assert newest(early).step == 700
    capsys.readouterr()
    assert resume(early, "eval.period=50") == 0
    said = capsys.readouterr().out
    advice = "total_steps=1400 eval.period=50 lets it go on"
    assert said == f"{early}: already ended: total_steps=700 was reached; {advice}\n"
    assert record_of(early)["status"] == "completed"


def test_a_run_that_ended_early_goes_on_a_little(early: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its limit may be any number of steps that it has not yet made; so may that of a run that was stopped. Asked for
    nothing, it says which limit it is."""
    assert resume(early) == 0
    assert capsys.readouterr().out == f"{early}: completed, nothing left to do; stop_at_return=null extends it\n"
    assert resume(early, "stop_at_return=null", "total_steps=199") == 2
    assert f"total_steps=199: {early} has made 200 steps, and none can be taken back" in one_line(capsys)
    assert resume(early, "stop_at_return=null", "total_steps=200") == 0
    assert "already ended: total_steps=200 was reached" in capsys.readouterr().out
    assert resume(early, "stop_at_return=null", "total_steps=250", stop=StopAfter(10)) == 143
    assert record_of(early)["changes"][-1] == {"step": 200, "key": "total_steps", "from": 600, "to": 250}
    assert resume(early, "total_steps=240") == 0
    assert newest(early).step == 240
    done = newest(early).state["episodes"]
    capsys.readouterr()
    assert resume(early, "total_steps=500", f"total_episodes={done - 1}") == 2
    assert f"total_episodes={done - 1}: {early} has made {done} episodes" in one_line(capsys)
    assert resume(early, "total_steps=500", f"total_episodes={done + 1}") == 0
    capsys.readouterr()
    assert resume(early) == 0 and "total_episodes=N extends it" in capsys.readouterr().out
    assert newest(early).state["episodes"] == done + 1


@pytest.mark.parametrize("damage", ["", "{}", None])
def test_a_run_that_lost_its_result_is_evaluated_again(early: Path, damage: str | None) -> None:
    file = early / "result.json"
    whole = file.read_text()
    file.unlink() if damage is None else file.write_text(damage)
    assert resume(early) == 0
    assert file.read_text() == whole


def test_episodes_without_a_time_limit_are_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = (
        "limit episodes have no time limit (env.max_episode_steps=N sets one); evaluations cut episodes at 2,500 steps,"
        " and end after "
    )
    during = f"{line}5,000 steps, the last one after 50,000"
    long = "limit evaluations cut episodes at 2,500 steps, and end after 50,000 steps"
    not_cut = "limit evaluations end after 50,000 steps"
    for expected, *args in (
        (during,),
        (f"{line}50,000 steps", "eval.period=null"),
        (f"{line}50,000 steps", "eval.period=60000"),
        (long, "eval.period=null", "env.max_episode_steps=27000"),
        (not_cut, "eval.period=null", "env.max_episode_steps=2100"),
    ):
        assert rltrain_here(tmp_path, "dry_run=true", "env=CliffWalking-v1", *args) == 0
        assert expected in " ".join(capsys.readouterr().out.split())
    for args in (["env=CliffWalking-v1", "env.max_episode_steps=50"], ["env=CartPole-v1"]):
        assert rltrain_here(tmp_path, "dry_run=true", *args) == 0
        assert "limit" not in capsys.readouterr().out
    config = run_config(dqn_config(), total_steps=70_000)
    bounded = "evaluating 100 greedy episodes, or the first that fill 70,000 steps; Ctrl-C ends it with those played"
    assert final_evaluation(config, 100, 500) == "evaluating 100 greedy episodes"
    assert final_evaluation(config, 100, None) == bounded


def test_images_that_a_network_takes_for_vectors_are_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "images    network=mlp sees 4 x 4 x 3 numbers as one vector; network=cnn sees images\n"
    env = "env=probe_envs:Noise-v0"
    assert rltrain_here(tmp_path, "dry_run=true", env, "network=mlp") == 0
    assert line in capsys.readouterr().out
    for args in ([env, "network=cnn"], ["env=CartPole-v1"]):
        assert rltrain_here(tmp_path, "dry_run=true", *args) == 0
        assert "images" not in capsys.readouterr().out


@pytest.mark.skipif(not has_ale(), reason="needs the extra atari")
def test_the_header_names_the_id_under_which_a_game_has_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = "ALE/Breakout-v5 has settings for this game"
    for env, told in (("Breakout-v4", True), ("Breakout-v0", True), ("BreakoutNoFrameskip-v4", False)):
        assert rltrain_here(tmp_path, "dry_run=true", f"env={env}", "network.hidden=[2]") == 0
        assert (settings in " ".join(capsys.readouterr().out.split())) == told


def test_the_header_fits_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert rltrain_here(tmp_path, "dry_run=true") == 0
    header = capsys.readouterr().out.partition("weights ")[0]
    ((count, path),) = re.findall(r"^tuned     (\d+) settings of\s+(.*\.yaml);", header, re.MULTILINE)
    assert max(len(line) for line in header.splitlines() if "/" not in line) <= 60  # paths are not broken
    assert yaml.safe_load(Path(path).read_text())["exploration"]["steps"] == 4500 and int(count) > 10


def test_a_stopped_run_says_where_it_was_saved_and_how_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RLTRAIN_PLUGINS")
    told = stopped(run_config(dqn_config()), 130, 1234, tmp_path / "my run")
    assert str(told) == "stopped by SIGINT at step 1,234, saved; `rltrain resume 'my run'` continues"
    assert (told.exit_code, told.reason) == (130, "stopped by SIGINT")
    assert Interrupted(143).reason == str(Interrupted(143)) == "stopped by SIGTERM"


def test_a_sweep_is_not_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rltrain_here(tmp_path, "-m", *EARLY, "seed=0,1", "hydra.sweep.dir=sweep", "total_steps=200") == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "sweep")]) == 2
    assert f"such as {tmp_path / 'sweep' / '0'}" in one_line(capsys)
    assert main(["evaluate", str(tmp_path / "sweep" / "0"), "episodes=1"]) == 0


@pytest.mark.parametrize("command", ["evaluate", "resume"])
def test_a_run_in_a_plug_in_s_environment_asks_for_the_plug_in(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(run_config(dqn_config()), run, StopAfter(20))
    plain = newest(run).manifest["config"]
    rewrite(run, {"config": {**plain, "env": {**plain["env"], "id": "NobodyRegistersThis-v0"}}})
    capsys.readouterr()
    assert main([command, str(run)]) == 2
    assert "RLTRAIN_PLUGINS=MODULE" in one_line(capsys, 2 if command == "resume" else 1)  # config.yaml says another


def test_a_threshold_that_was_reached_and_lost_is_no_contradiction() -> None:
    assert solved(480.0, 475.0, 2000) == ("solved", "threshold 475, first reached at step 2,000")
    assert solved(480.0, 475.0, None) == ("solved", "threshold 475")
    assert solved(80.0, 475.0, None) == ("not solved", "threshold 475")
    lost = "threshold 475; an evaluation reached it at step 2,000, the last network does not"
    assert solved(80.0, 475.0, 2000) == ("lost again", lost)


def test_a_limit_on_episodes_is_said_at_the_beginning_and_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rltrain_here(tmp_path, *COMMON_ARGS, "algo=reinforce", "total_steps=5_000", "total_episodes=8") == 0
    said = capsys.readouterr().out
    assert "5,000 steps or 8 episodes, " in said.splitlines()[0]
    assert re.search(r"^ended at +total_episodes=8$", said, re.MULTILINE)


def test_the_newest_run_of_evaluate_is_one_that_has_been_saved(
    early: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = early.parent / "outputs"
    shutil.copytree(early, outputs / "whole")
    (outputs / "crashed").mkdir()
    (outputs / "crashed" / "run.json").write_text('{"status": "failed"}')
    (outputs / "crashed" / "config.yaml").write_text("env: {id: 'my_envs:Walk-v0'}")
    monkeypatch.chdir(early.parent)
    assert main(["evaluate", "episodes=1"]) == 0
    assert "newest run: outputs/whole\n" in capsys.readouterr().out
    assert main(["evaluate", "outputs/crashed"]) == 2
    # Nothing of the folder has been imported, so that no printed command says that its module may be.
    assert "rltrain resume outputs/crashed` begins it anew" in capsys.readouterr().err


def test_less_than_a_run_has_made_is_refused_as_that(
    early: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(early.parent)
    assert main(["resume", "my run", "total_steps=5"]) == 2
    assert "total_steps=5: my run has made 200 steps, and none can be taken back" in capsys.readouterr().err


def test_a_stop_before_the_last_evaluation_has_an_episode_says_so(tmp_path: Path) -> None:
    said = str(stopped_before_result(run_config(dqn_config()), 130, 2000, tmp_path))
    assert said.startswith(
        "stopped by SIGINT, no episode of the last evaluation had ended: trained 2,000 steps, saved; `"
    )


def test_a_short_try_is_told_what_would_let_it_learn(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert rltrain_here(tmp_path, "total_steps=500", "dry_run=true") == 2
    (advice,) = re.findall(r"for a short try: (\S+),", capsys.readouterr().err)
    assert rltrain_here(tmp_path, "total_steps=500", advice, "dry_run=true") == 0
