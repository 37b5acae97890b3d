"""What a request is answered with before anything trains: help, lists, refusals, and the signal that comes then."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from halves import often
from written_runs import result

import rltrain
from rltrain.cli import main
from rltrain.commands.evaluate import DEFAULTS
from rltrain.commands.list import LISTS
from rltrain.commands.resume_changes import _HARMLESS
from rltrain.config.command_names import COMMANDS
from rltrain.config.folders import conf_folder
from rltrain.config.stored import parse_arguments
from rltrain.errors import RequestError
from rltrain.storage.run_folder import RunFolder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RLTRAIN_CONF", raising=False)
    monkeypatch.delenv("RLTRAIN_PLUGINS", raising=False)


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    capsys.readouterr()
    assert main([*args]) == 2
    error = capsys.readouterr().err.removeprefix("rltrain: ")
    assert 1 <= len(error.splitlines()) <= 3
    return error


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("aglo=dqn", "aglo=dqn: unknown key; did you mean algo?"),
        ("experment=lecture_dqn", "experment=lecture_dqn: unknown key; did you mean experiment?"),
        ("gama=0.9", "gama=0.9: unknown key; did you mean algo.gamma?"),
        ("los=mse", "los=mse: unknown key; did you mean algo.loss?"),
        ("batchsize=3", "batchsize=3: unknown key; did you mean algo.batch_size?"),
        ("algo.name=reinforce", "algo.name=reinforce: use algo=reinforce"),
        ("network.name=mlp", "network.name=mlp: use network=mlp"),
        ("target_update.name=soft", "target_update.name=soft: use target_update=soft"),
        ("exploration.name=constant", "exploration.name=constant: use exploration=constant"),
        ("device.name=cpu", "device.name=cpu: use device=cpu"),
        ("env.name=Acrobot-v1", "env.name=Acrobot-v1: use env=Acrobot-v1"),
        ("conf=foo.yaml", "conf=foo.yaml: unknown key; did you mean --config-dir?"),
        (
            "hydra.run.dir=my runs, v2",
            """hydra.run.dir=my runs, v2: is several values, and one is needed; quote what holds a \
comma: 'hydra.run.dir="my runs, v2"'\n""",
        ),
        ("hydra/launcher=basic,ray", "hydra/launcher=basic,ray: is several values, and one is needed\n"),
        ("env.id=Acrobot-v1", "env.id=Acrobot-v1: use env=Acrobot-v1"),
        ("env=:CartPole-v1", "env=:CartPole-v1: no such environment\nclosest: CartPole-v1"),
        ("env=gymnasium:", "env=gymnasium:: "),
        ("env=CartPole-v1 ", "env='CartPole-v1 ': blanks before or after the name"),
        ("env= CartPole-v1", "env=' CartPole-v1': blanks before or after the name"),
        ("env=' CartPole-v1'", "env=' CartPole-v1': blanks before or after the name"),
    ],
)
def test_refused_lines(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, line, "--cfg", "job").startswith(message)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            "CartPole-v1",
            "algo=q_learning: needs Discrete observations, and those of CartPole-v1 are arrays of [4]\n"
            "algorithms that can: a2c, c51, dqn, ",
        ),
        (
            "Blackjack-v1",
            "algo=q_learning: needs Discrete observations, and those of Blackjack-v1 are Tuple(Discrete(32), ",
        ),
    ],
)
def test_a_table_needs_discrete_observations(env: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(capsys, "algo=q_learning", f"env={env}")
    assert error.startswith(message) and len(error.splitlines()) == 2
    assert not Path("outputs").exists()


@pytest.mark.parametrize("wrappers", ["[time_aware]", "[scale_reward,time_aware]", "[{name: frame_stack, size: 2}]"])
def test_the_wrapper_that_makes_arrays_is_named(wrappers: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(capsys, "algo=q_learning", "env=FrozenLake-v1", f"env.wrappers={wrappers}")
    name, place = ("frame_stack", 0) if "frame" in wrappers else ("time_aware", wrappers.count(","))
    assert f"env.wrappers[{place}]={name} makes those of FrozenLake-v1 arrays of [" in error
    assert len(error.splitlines()) == 2


def test_a_stop_that_can_never_come(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["stop_at_return=90", "total_steps=1500", "eval.period=2000"]
    assert refused(capsys, *line).startswith("stop_at_return=90: no evaluation")
    assert refused(capsys, "-m", *line, "seed=0,1").startswith("in the job `")
    assert not [path for path in Path("outputs").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("word", "guess"),
    [
        ("repor", "; did you mean report?"), ("tnue", "; did you mean tune?"),
        ("eval", "; did you mean evaluate?"), ("resmue", "; did you mean resume?"),
        ("trian", "; to train, leave it out"),
    ],
)  # fmt: skip
def test_a_word_that_is_no_command(word: str, guess: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, word).splitlines()[0].endswith(f"list){guess}")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["--algo", "dqn"], "rltrain algo=dqn"),
        (["dqn", "CartPole-v1"], "rltrain algo=dqn env=CartPole-v1"),
        (["-a", "dqn", "-s", "3"], "rltrain algo=dqn seed=3"),
        (["train", "--env", "Acrobot-v1"], "rltrain env=Acrobot-v1"),
        (["network.hidden=[64,", "64]"], "rltrain 'network.hidden=[64,64]'"),
        (["-m", "seed=0,", "1"], "rltrain -m seed=0,1"),
    ],
)
def test_another_form_is_answered_with_the_whole_command(
    typed: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, *typed) == f"settings are written key=value, in one word\ndid you mean: {meant}\n"
    assert main([*shlex.split(meant)[1:], "dry_run=true", "seed=-1"]) == 2
    assert capsys.readouterr().err.rstrip().endswith("seed=-1: must be >= 0")  # the line before has been understood


def test_a_launcher_of_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    said = "hydra/launcher=slurm: a launcher hands out the jobs of a sweep, and this is one run: add -m\n"
    assert refused(capsys, "hydra/launcher=slurm", "seed=0") == said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hydra/launcher=slrm", "no such launcher; did you mean slurm?\nchoices: basic, population, ray, slurm"),
        ("hydra/sweeper=optna", "no such sweeper; did you mean optuna?\nchoices: basic"),
        ("hydra/launcher=strangers", "no such launcher\nchoices: basic, population, ray, slurm"),
        ("hydra/sweeper=optuna", "is not installed; its package is hydra-optuna-sweeper"),
    ],
)
def test_a_misspelt_plugin_leads_to_no_stranger_s_package(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # Plug-ins of other tests may stand behind the choices.
    assert refused(capsys, "-m", line, "seed=0,1").rstrip("\n").startswith(f"{line}: {said}")


def test_several_values_where_one_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "seed=0,1") == "seed=0,1: several values are a sweep: add -m\n"
    for line in ("seed=range(0,999),-1", "algo.gamma=interval(0,1),0.9"):
        key, rule = line.partition("=")[0], "a range stands alone; with values beside it, give each"
        assert refused(capsys, "-m", line) == f"{line}: {rule}: {key}=A,B,C\n"
    for line in ("algo.gamma=interval(0,1)", "algo.gamma=tag(log,interval(0.1,1))"):
        for sweep in (["-m"], []):
            assert refused(capsys, *sweep, line) == (
                f"{line}: intervals are for a search, rltrain tune; a sweep takes values, algo.gamma=A,B,C, or "
                "algo.gamma=range(start,stop,step)\n"
            )
    other = refused(capsys, "-m", "hydra/sweeper=optuna", "algo.gamma=interval(0,1)", "bogus=1")
    assert other.startswith("bogus=1: unknown key")  # that sweeper takes intervals
    assert refused(capsys, "-m", "algo=interval(0,1)").endswith("algo takes names, not a range of numbers\n")
    for line in ("algo=glob(*)", "seed=glob(*)"):
        key = line.partition("=")[0]
        assert refused(capsys, "-m", line) == f"{line}: a sweep takes values, {key}=A,B,C, and no glob\n"
    assert refused(capsys, "network.hidden=64,64").endswith("add -m (a list is written 'network.hidden=[64,64]')\n")
    assert refused(capsys, "network.hidden=[32],[32,32]").endswith(": several values are a sweep: add -m\n")
    for line in ("seed=range(0,0)", "seed=range(3,0)"):
        assert refused(capsys, "-m", line) == f"{line}: the range is empty, and so is the sweep\n"
    one = "--cfg shows the config of one job: give one value\n"
    assert refused(capsys, "-m", "seed=0,1", "--cfg", "job") == f"seed=0,1: {one}"
    assert refused(capsys, "algo=dqn,reinforce", "--cfg", "job") == f"algo=dqn,reinforce: {one}"


def test_more_jobs_than_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "-m", "seed=range(0,100000000)") == "-m: 100,000,000 jobs; a sweep has at most 50,000\n"
    line = ["seed=range(1,30004,3)", "algo.gamma=0.9,0.99,0.95", "num_envs=1,2"]
    assert refused(capsys, "-m", *line) == "-m: 60,006 jobs; a sweep has at most 50,000\n"


def shown_config(capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    capsys.readouterr()
    assert main([*args, "--cfg", "job"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_values_under_another_name_or_as_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown_config(capsys, "device=gpu")["device"]["name"] == "cuda"
    assert shown_config(capsys, "env.kwargs={a: 1, b: {c: x}}")["env"]["kwargs"] == {"a": 1, "b": {"c": "x"}}
    for name, value in {"SEED": "3", "LR": "1e-4", "HIDDEN": "[8, 8]", "DOUBLE": "true", "LIMIT": "null"}.items():
        monkeypatch.setenv(name, value)
    keys = ("seed", "algo.optimizer.lr", "network.hidden", "algo.double", "total_episodes")
    words = ("SEED", "LR", "HIDDEN", "DOUBLE", "LIMIT")
    config = shown_config(capsys, *(f"{key}=${{oc.env:{word}}}" for key, word in zip(keys, words, strict=True)))
    assert (config["seed"], config["algo"]["optimizer"]["lr"], config["network"]["hidden"]) == (3, 1e-4, [8, 8])
    assert (config["algo"]["double"], config["total_episodes"]) == (True, None)
    monkeypatch.setenv("SEED", "three")
    assert refused(capsys, "seed=${oc.env:SEED}") == "seed=three: must be an integer >= 0\n"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--seed 3", "seed=3"), ("--seed=3", "seed=3"),
        ("evaluate run --sede=3 --json", "evaluate run seed=3 --json"), ("evaluate -seed 3", "evaluate seed=3"),
        ("resume --lr 0.1 --trust", "resume algo.optimizer.lr=0.1 --trust"),
        ("report --metrics train/td_loss a b", "report metric=train/td_loss a b"),
        ("tune --algo dqn --trials=4", "tune algo=dqn tune.trials=4"),
        ("tune --config-dir mine --lr 1", "tune --config-dir mine algo.optimizer.lr=1"),
    ],
)  # fmt: skip
def test_settings_in_another_form_are_answered_alike(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = f"settings are written key=value, in one word\ndid you mean: rltrain {meant}\n"
    assert refused(capsys, *typed.split()) == said


@pytest.mark.parametrize(
    ("line", "wrong", "guess"),
    [
        ("--algo ppo --total-timesteps 9 --nonsense x --seed -1", "--nonsense", ""),
        ("--seed=3 --torch-deterministic", "--torch-deterministic", "; did you mean device.deterministic?"),
        ("--config foo.yaml", "--config", "; did you mean --config-dir?"),
        ("--track --env CartPole-v1", "--track", "; did you mean loggers=[wandb]?"),
        ("env=CartPole-v1 --tensorboard-log /tmp/x", "--tensorboard-log", "; did you mean hydra.run.dir?"),
    ],
)
def test_the_option_that_is_not_understood_is_named(
    line: str, wrong: str, guess: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = f"{wrong}: unknown option; settings are written key=value{guess}\nsee rltrain --help\n"
    assert refused(capsys, *line.split()) == said


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed=[0,1,2]", "seed=[0, 1, 2]: must be an integer >= 0; for a sweep write -m seed=0,1,2\n"),
        ("seed=1..5", "seed=1..5: must be an integer >= 0; for a sweep write -m 'seed=range(1,6)'\n"),
        ("seed=0-4", "seed=0-4: must be an integer >= 0; for a sweep write -m 'seed=range(0,5)'\n"),
        ("seed=4-0", "seed=4-0: must be an integer >= 0\n"),
        ("algo.double=[true,false]", "algo.double=[True, False]: must be true or false; for a sweep write -m algo.do"),
        ("network.hidden=[[8],[9]]", "network.hidden[0]=[8]: must be an integer >= 1\n"),
    ],
)
def test_several_values_in_another_form(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, line).startswith(message)


def test_a_package_that_an_environment_needs_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.setattr("rltrain.config.env_source.lacking", lambda _: "jax")
    assert refused(capsys, "env=phys2d/CartPole-v1") == "env=phys2d/CartPole-v1: needs jax, which is not installed\n"


def test_a_folder_on_the_path_of_modules_is_not_advised(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    advice = " (PYTHONPATH=. adds this folder)"
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert advice in refused(capsys, "loggers=[no_such_module:Logger]")
    monkeypatch.setenv("PYTHONPATH", f"{os.pathsep}/elsewhere{os.pathsep}.")
    assert advice not in refused(capsys, "loggers=[no_such_module:Logger]")


def test_a_word_too_many_for_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    said = "list algos extra more: more is too many; a list takes one part of what is looked for\n"
    assert refused(capsys, "list", "algos", "extra", "more") == said


def test_options_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    (Path("run")).mkdir()
    assert parse_arguments("evaluate", ["episodes=20", "run", "--json", "device=gpu"], DEFAULTS) == (
        "run",
        {**DEFAULTS, "episodes": 20, "json": True, "device": "cuda"},
    )
    assert parse_arguments("evaluate", ["--episodes", "20", "--seed=3"], DEFAULTS)[1] == {
        **DEFAULTS, "episodes": 20, "seed": 3,
    }  # fmt: skip
    assert parse_arguments("evaluate", ["--video", "false"], DEFAULTS)[1] == DEFAULTS
    assert refused(capsys, "list", "algos", "--json").startswith("--json: unknown option")
    assert refused(capsys, "tune", "trials=4") == "trials: unknown key; did you mean tune.trials?\n"
    assert refused(capsys, "evaluate", "run", "-n", "3").startswith("n: unknown key; known: episodes, seed")
    assert refused(capsys, "evaluate", "--episodes").startswith("--episodes: unknown option; known: episodes, seed")
    RunFolder(Path("run")).write_record(status="completed")
    assert refused(capsys, "resume", "run", "--total-steps").startswith("run --total-steps: resume takes one folder")


def test_names_that_share_only_the_version_are_not_close(capsys: pytest.CaptureFixture[str]) -> None:
    (names,) = re.findall("closest: (.*); `", refused(capsys, "env=Taxi-v2"))
    assert {name.partition("-")[0] for name in names.split(", ")} == {"Taxi"}


def test_help_is_a_word_too(capsys: pytest.CaptureFixture[str]) -> None:
    for args, flags in ((["help"], ["--help"]), (["help", "evaluate"], ["evaluate", "--help"])):
        assert main(args) == main(flags) == 0
        said = capsys.readouterr().out
        assert said[: len(said) // 2] == said[len(said) // 2 :]


@pytest.mark.parametrize("group", ["replay", "target_update", "exploration"])
def test_the_help_of_lists_names_the_algorithms_that_have_a_group(
    group: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = next(line for line in lines if line.startswith(f"  {group}s "))
    files = {path.stem: path.read_text() for path in (conf_folder() / "algo").glob("*.yaml")}
    having = {
        name
        for name, text in files.items()
        if f"- /{group}: " in text or (group == "replay" and "\n  prioritized:" in text)
    }
    assert {word.lower().replace("-", "_") for word in re.findall(r"\b[A-Z][\w-]+", said)} == having


def test_each_command_has_a_help_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    for command, words in (("evaluate", DEFAULTS), ("resume", (*_HARMLESS, "trust")), ("list", LISTS)):
        for args in ([command, "--help"], [command, "RUN", "-h"]):
            assert main(args) == 0
            text = capsys.readouterr().out
            assert text.startswith(f"rltrain {command} ") and len(text.splitlines()) < 20
            assert all(word in text for word in words)


@pytest.mark.parametrize("columns", [20, 40, 72, 300])
def test_help_fits_the_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for args in (["--help"], *([command, "--help"] for command in COMMANDS)):
        assert main(args) == 0
        text = capsys.readouterr().out
        too_long = [line for line in text.splitlines() if len(line) > min(max(columns, 40), 120)]
        assert all(len(line.split()) == 1 for line in too_long)


@pytest.mark.parametrize(
    "args",
    [
        ["evaluate", "none"], ["resume", "none"], ["report", "none"], ["export", "none"], ["tune", "none"],
        ["init_from=none"], ["--config-dir", "none"], ["report", "here", "out=none/x"], ["export", "out=none/x.pt2"],
    ],
)  # fmt: skip
def test_a_folder_that_is_not_there_is_named_in_one_way(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("here").mkdir()
    (Path("here") / "run.json").write_text("{}")
    Path("file").touch()
    error = refused(capsys, *args)
    assert args[-1] in error and error.endswith("none: no such folder\n")
    assert refused(capsys, *(arg.replace("none", "file") for arg in args)).endswith("file: is a file, not a folder\n")


@pytest.mark.parametrize("command", ["evaluate", "resume", "report", "export"])
def test_a_folder_that_may_not_be_read_is_named(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("run").mkdir()
    monkeypatch.setattr("os.access", lambda *_: False)  # to root every folder is readable
    assert refused(capsys, command, "run") == "run: cannot be read: Permission denied\n"


def test_words_close_to_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert "; it is device=cuda device.index=1" in refused(capsys, "device=cuda:1")
    assert "; did you mean algos?" in refused(capsys, "list", "algorithms")
    assert "; did you mean envs?" in refused(capsys, "list", "enviroment")
    assert "; did you mean networks?" in refused(capsys, "list", "netwroks")
    (Path("run") / "checkpoints").mkdir(parents=True)
    RunFolder(Path("run")).write_record(status="completed")
    assert refused(capsys, "evaluate", "run/checkpoints") == "run/checkpoints: is no checkpoint; its run is run\n"


def test_a_list_that_finds_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "envs", "zzz"]) == 0
    assert capsys.readouterr() == ("", "no environment matches zzz\n")
    assert main(["list", "experiments", "atari"]) == 0 and "Mnih et al. (2015)" in capsys.readouterr().out
    assert main(["list", "experiments", "zzz"]) == 0
    assert capsys.readouterr().err == "no experiment matches zzz\n"


def test_ctrl_c_while_a_sweep_is_checked_leaves_nothing_and_later_what_can_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    sweep = ["-m", "seed=0,1", "hydra.sweep.dir=sweep"]
    with monkeypatch.context() as patch:
        patch.setattr("rltrain.commands.sweep.CheckedLauncher._check", interrupted)
        assert main(sweep) == 130
    assert capsys.readouterr().err == "rltrain: stopped by SIGINT\n"
    assert not Path("sweep").exists()
    monkeypatch.setattr("rltrain.commands.launcher.PopulationLauncher.launch", interrupted)
    assert main(sweep) == 130
    assert capsys.readouterr().err == "rltrain: sweep stopped; `rltrain resume sweep` finishes it\n"
    assert len(json.loads(Path("sweep", "jobs.json").read_text())["jobs"]) == 2
    Path("sweep", "jobs.json").unlink()  # as a kill before it was written
    assert "sweep: lists no jobs: it was stopped while they were checked" in refused(capsys, "resume", "sweep")


def test_what_is_no_run_and_no_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        (tmp_path / "sweep" / str(number)).mkdir(parents=True)
        run = RunFolder(tmp_path / "sweep" / str(number))
        run.write_record(status="completed")
        run.write_result(result(1.0))
    for command in ("resume", "evaluate"):
        assert refused(capsys, command, "") == "'': names no folder\n"
    neither = "sweep: is neither a run (run.json) nor a sweep (jobs.json); the newest run below it: sweep/1\n"
    assert refused(capsys, "resume", "sweep") == neither
    (tmp_path / "begun" / ".hydra").mkdir(parents=True)
    assert "yet: a start that was stopped before its run began" in refused(capsys, "resume", "begun")
    assert main(["resume", "sweep/0"]) == 0
    (tmp_path / "sweep" / "multirun.yaml").touch()
    assert main(["resume", "sweep"]) == 0
    (tmp_path / "sweep" / "jobs.json").write_text(json.dumps({"jobs": []}))
    assert main(["resume", "sweep"]) == 0
    assert refused(capsys, "evaluate", "sweep") == "sweep: is a sweep; name one of its runs, such as sweep/0\n"
    (trial := tmp_path / "study" / "batch_000" / "trial_0_seed_1000").mkdir(parents=True)
    RunFolder(trial).write_record(status="completed")
    (tmp_path / "study" / "study.yaml").touch()
    for command in ("evaluate", "export"):
        refusal = "study: is a study; name one of its runs, such as study/batch_000/trial_0_seed_1000\n"
        assert refused(capsys, command, "study") == refusal


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_a_checkpoint_has_none_to_choose_from(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = tmp_path / "run" / "checkpoints" / "best"
    best.mkdir(parents=True)
    (best / "manifest.json").touch()
    assert refused(capsys, command, "run/checkpoints/best", "checkpoint=last") == (
        "checkpoint=last: is one of a run's, and run/checkpoints/best is a checkpoint itself\n"
    )


def test_an_evaluation_has_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    for episodes in ("0", "99999999999", "99999999999999999999"):
        assert refused(capsys, "evaluate", f"episodes={episodes}") == (
            f"episodes={episodes}: must be a whole number from 1 to 1,000,000\n"
        )


def test_a_best_checkpoint_that_was_never_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    run = RunFolder(tmp_path / "run")
    run.write_record(status="completed")
    run.write_config({"eval": {"period": None}})
    message = refused(capsys, "evaluate", "run", "checkpoint=best")
    assert message == "run: has no best checkpoint: the run made no evaluation (eval.period=null)\n"
    run.metrics.write_text('{"step": 100, "eval/episode_return": 9.5}\n')
    message = refused(capsys, "evaluate", "run", "checkpoint=best")
    assert message == "run: has no best checkpoint any more: it was removed after the evaluation\n"


def test_of_a_folder_above_runs_the_newest_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    none = "outputs: is no run folder: it has no config.yaml"
    (tmp_path / "outputs").mkdir()
    assert refused(capsys, "evaluate", "outputs") == f"{none}\n"
    for time, name in enumerate(("2026-11-30/old", "multirun/2026-11-30/new/0", "2026-11-30/running")):
        run = RunFolder(tmp_path / "outputs" / name)
        run.path.mkdir(parents=True)
        run.write_record(status="completed")
        os.utime(run.record, (time, time))
        if not name.endswith("running"):
            (run.checkpoints / "step_00000010").mkdir(parents=True)
            (run.checkpoints / "step_00000010" / "manifest.json").touch()
    below = "; the newest run below it: outputs/multirun/2026-11-30/new/0\n"
    for command in ("evaluate", "export"):
        assert refused(capsys, command, "outputs") == none + below
    assert refused(capsys, "evaluate", "outputs", "checkpoint=best") == none + below
    assert refused(capsys, "evaluate", "outputs/2026-11-30").endswith("below it: outputs/2026-11-30/old\n")
    assert (
        refused(capsys, "resume", "outputs") == f"outputs: is neither a run (run.json) nor a sweep (jobs.json){below}"
    )
    step = "outputs/2026-11-30/old/checkpoints/step_00000010"
    assert refused(capsys, "resume", step).endswith("; `rltrain resume outputs/2026-11-30/old` resumes its run\n")
    for opened in (rltrain.load, rltrain.Run):
        with pytest.raises(RequestError, match=rf"^{none}{below[:-1]}$"):
            opened("outputs")


def test_a_folder_whose_name_holds_an_equals_sign_is_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "seed=1").mkdir()
    assert refused(capsys, "resume", "seed=1").startswith("seed=1: is neither a run")
    assert refused(capsys, "evaluate", "seed=1").startswith("seed=1: is no run folder")
    assert refused(capsys, "evaluate", "seed=one").startswith("seed=one: must be a whole number")


SIGINT_WHILE = """
import importlib, os, signal, sys
import rltrain.cli
{hook}
sys.exit(rltrain.cli.main(sys.argv[1:]))
"""
INTERRUPTED_IMPORT = """
real = importlib.import_module
def interrupted(name, *more):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        return real(name, *more)
    except KeyboardInterrupt:
        raise ImportError("as an extension module does")
importlib.import_module = interrupted
"""
IN_THE_RUN = """
import rltrain.storage.run_folder
def interrupted(*_):
    os.kill(os.getpid(), signal.SIGINT)
import rltrain.jobs.job
rltrain.jobs.job.train = lambda *_, **__: interrupted()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hook", "args"),
    [(INTERRUPTED_IMPORT, ["resume", "nowhere"]), (IN_THE_RUN, ["total_steps=2000"])],
    ids=["an import that turns it into an error", "between the folder and the run"],
)
def test_ctrl_c_before_a_run_is_one_line_and_leaves_no_folder(hook: str, args: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", SIGINT_WHILE.format(hook=hook), *args]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, "rltrain: stopped by SIGINT\n")
    assert not list(tmp_path.glob("outputs/*"))


def test_main_leaves_the_handler_of_sigint_as_it_was() -> None:
    before = signal.getsignal(signal.SIGINT)
    main(["--version"])
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("stream", often(["closed", "full", "none"], ["closed"]))
def test_a_run_outlives_its_output(stream: str, tmp_path: Path) -> None:
    """As `rltrain ... | head -1` and `rltrain ... > /dev/full` leave it, and `>&-`."""
    code = (
        "import sys, types\n"
        "job = types.ModuleType('rltrain.jobs.job')\n"
        "def train(config, folder, **_):\n"
        "    for i in range(3000):\n"
        "        print('a line of output', flush=True)\n"
        "        print('a line of errors', file=sys.stderr, flush=True)\n"
        "    (folder / 'run.json').write_text('{}')\n"
        "    return 1.0\n"
        "job.train = train\n"
        "sys.modules['rltrain.jobs.job'] = job\n"
        "from rltrain.cli import main\n"
        "sys.exit(main())"
    )
    read, write = os.pipe()
    os.close(read)
    target = open("/dev/full", "wb") if stream == "full" else os.fdopen(write, "wb")  # noqa: SIM115
    close = (lambda: (os.close(1), os.close(2))) if stream == "none" else None
    with target:
        command = [sys.executable, "-c", code, "seed=1"]
        buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
        ended = subprocess.run(
            command, cwd=tmp_path, env=buffered, stdout=target, stderr=target, preexec_fn=close, check=False
        )
    assert ended.returncode == 0
    assert len(list(tmp_path.glob("outputs/*/*/run.json"))) == 1


CONFIG = {"seed": 0, "checkpoint": {"period": 5000}}


class TestAFolderThatCannotBeUsedYet:
    @pytest.mark.parametrize("command", ["evaluate", "export"])
    def test_a_run_that_has_not_saved(self, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "run").mkdir()
        run = RunFolder(tmp_path / "run")
        with run:
            run.write_record(status="running")
            run.write_config(CONFIG)
            (run.checkpoints / ".writing_step_00005000").mkdir(parents=True)
            said = refused(capsys, command, "run")
            assert said.startswith(
                "run: has not saved yet: it is running, and saves first at step 5,000 (checkpoint.period)"
            )
            assert f"SIGUSR1 to process {os.getpid()} " in said and "saves now" in said
            run.write_config({**CONFIG, "checkpoint": {"period": None}})
            assert "saves when it ends (checkpoint.period=null)" in refused(capsys, command, "run")
        assert "`rltrain resume run` begins it anew" in refused(capsys, command, "run")
        run.write_record(status="completed")
        assert refused(capsys, command, "run") == "run: holds no whole checkpoint\n"

    @pytest.mark.parametrize("command", ["evaluate", "export", "resume"])
    def test_a_trial_that_has_ended(self, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "study.yaml").write_text("{}")
        run = RunFolder(tmp_path / "batch_000" / "trial_0_seed_1000")
        run.path.mkdir(parents=True)
        run.write_record(status="completed")
        run.write_config(CONFIG)
        said = refused(capsys, command, str(run.path))
        assert said.endswith("trial_0_seed_1000: is of a trial that has ended, of which a study keeps no checkpoint\n")

    @pytest.mark.parametrize("status", ["failed", "interrupted"])
    def test_of_a_failed_run_the_best_network_is_named(
        self, status: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = RunFolder(tmp_path / "run")
        (run.checkpoints / "best").mkdir(parents=True)
        (run.checkpoints / ".removed_step_00000020").mkdir()
        run.write_record(status=status)
        run.write_config(CONFIG)
        assert "begins it anew; checkpoint=best is there" in refused(capsys, "evaluate", "run")

    @pytest.mark.parametrize("command", ["evaluate", "export", "report", "resume"])
    @pytest.mark.parametrize("made", [False, True])
    def test_a_job_that_has_not_begun(
        self, command: str, made: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sweep = tmp_path / "sweep"
        (sweep / "3" if made else sweep).mkdir(parents=True)
        (sweep / "jobs.json").write_text(json.dumps({"jobs": [{"folder": "3", "config": {}}]}))
        expected = "sweep/3: is a job that has not begun; `rltrain resume sweep` begins it\n"
        assert refused(capsys, command, "sweep/3") == expected
        assert refused(capsys, command, "sweep/4") == "sweep/4: no such folder\n"

    @pytest.mark.parametrize("command", ["evaluate", "export", "report", "resume"])
    def test_a_name_that_no_file_can_have(self, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        name = "x" * 300
        assert refused(capsys, command, name) == f"{name}: cannot be used: File name too long\n"

    @pytest.mark.parametrize("command", ["evaluate", "export", "report", "resume"])
    def test_a_file(self, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "run").mkdir()
        RunFolder(tmp_path / "run").write_record(status="running")
        RunFolder(tmp_path / "run").write_config(CONFIG)
        (tmp_path / "other").touch()
        for name in ("run/run.json", "run/config.yaml"):
            assert refused(capsys, command, name) == f"{name}: is a file; its folder is run\n"
        assert refused(capsys, command, "other") == "other: is a file, not a folder\n"


def test_a_run_folder_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "afile").touch()
    assert refused(capsys, "hydra.run.dir=afile") == "hydra.run.dir=afile: is a file; a run needs a folder\n"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").touch()
    assert "resume" not in refused(capsys, "hydra.run.dir=folder")
    RunFolder(tmp_path / "folder").write_record(status="running")
    assert "(`rltrain resume folder` continues it)" in refused(capsys, "hydra.run.dir=folder")
    with RunFolder(tmp_path / "folder"):
        assert refused(capsys, "hydra.run.dir=folder").startswith(
            f"hydra.run.dir=folder: in use by process {os.getpid()} on"
        )


def test_a_comment_that_zsh_passes_on_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cfg", "job", "seed=3", "#", "what", "rltrain", "alone", "does"]) == 0
    assert "\nseed: 3\n" in capsys.readouterr().out
