"""The command `rltrain` in processes of its own: exit codes, messages, run folders, what is imported."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from halves import often
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf
from whole_runs import pasted

from rltrain.cli import main
from rltrain.config.application import CONFIG_NAME, create_application
from rltrain.config.schema import ALGO_CONFIGS

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Ended:
    returncode: int
    stdout: str
    stderr: str


class Shell:
    """Types `rltrain ...` in this process, which is quicker than a new one, with the stub instead of training."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capfd = capfd

    def __call__(self, *args: str, plugins: str = "stub_runner", **env: str) -> Ended:
        for key, value in {"RLTRAIN_PLUGINS": plugins, **env}.items():
            self._monkeypatch.setenv(key, value)
        self._capfd.readouterr()
        returncode = main(list(args))
        return Ended(returncode, *self._capfd.readouterr())


@pytest.fixture
def rltrain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RLTRAIN_CONF", raising=False)
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.syspath_prepend(str(tmp_path))
    before = {name: sys.modules.pop(name, None) for name in ("rltrain.jobs.job", "stub_runner")}
    yield Shell(monkeypatch, capfd)
    for name, module in before.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module


def test_one_run_has_a_folder_of_its_own(rltrain: Shell, tmp_path: Path) -> None:
    done = rltrain()
    assert (done.returncode, done.stdout) == (0, "trained dqn CartPole-v1 0 console=True tuned=dqn_CartPole-v1\n")
    (run,) = (tmp_path / "outputs").glob("*/*")
    assert run.name.endswith("_dqn_CartPole-v1")
    assert {path.name for path in run.iterdir()} == {".hydra", "run.json"}


@pytest.mark.slow
def test_runs_started_together_share_nothing(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(HERE), "RLTRAIN_PLUGINS": "stub_runner"}
    command = [sys.executable, "-m", "rltrain", "hydra.run.dir=out/${env.id}"]
    at_once = [sys.executable, "-m", "rltrain", "env=gymnasium:CartPole-v1", "name=both"]
    fixed = [subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE) for _ in range(2)]
    free = [subprocess.Popen(at_once, cwd=tmp_path, env=env) for _ in range(2)]
    assert sorted(process.wait(60) for process in fixed) == [0, 2]
    assert [process.wait(60) for process in free] == [0, 0]
    runs = list((tmp_path / "outputs").glob("*/*"))
    assert len(runs) == 2
    assert all("_dqn_CartPole-v1_both" in run.name for run in runs)


@pytest.mark.parametrize(
    ("args", "exit_code", "message"),
    [
        (["seed=13"], 1, "rltrain: the environment blew up\n"),
        (["seed=15"], 130, "rltrain: stopped by SIGINT\n"),
        (["seed=17"], 130, "rltrain: stopped by SIGINT\n"),
    ],
)
def test_how_a_run_ends(rltrain: Shell, args: list[str], exit_code: int, message: str) -> None:
    ended = rltrain(*args)
    assert (ended.returncode, ended.stderr) == (exit_code, message)


def test_a_dry_run_trains_nothing_and_leaves_no_folder(rltrain: Shell, tmp_path: Path) -> None:
    assert rltrain("dry_run=true", "seed=3").stdout == "looked at dqn CartPole-v1 3 tuned=dqn_CartPole-v1\n"
    swept = rltrain("-m", "dry_run=true", "target_update=soft,hard", "seed=range(3,6)").stdout.splitlines()
    assert [line for line in swept if line.startswith(("looked", "trained", "alike"))] == [
        "looked at dqn CartPole-v1 3 tuned=dqn_CartPole-v1",
        "alike     jobs 1, 2: differing in seed only",
        "looked at dqn CartPole-v1 3 tuned=dqn_CartPole-v1",
        "alike     jobs 4, 5: differing in seed only",
    ]
    assert swept[-1] == "sweep     6 jobs, nothing was trained or written"
    assert not [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()]


def test_a_swept_switch_is_written_as_it_was_typed(rltrain: Shell) -> None:
    swept = rltrain("-m", "dry_run=true", "algo.anneal_lr=true,false", "seed=0").stdout
    assert "is made for true, and false gets what is left of it" in " ".join(swept.split()) and "False" not in swept


def test_a_stored_run_of_a_plug_in_is_read_with_the_plug_in(rltrain: Shell) -> None:
    for command in ("evaluate", "resume"):
        refused = rltrain(command, plugins="no_such_module")
        assert refused.returncode == 2 and refused.stderr.startswith("rltrain: RLTRAIN_PLUGINS=no_such_module: cannot")


def test_a_bug_is_one_line_and_a_traceback_in_the_log(rltrain: Shell, tmp_path: Path) -> None:
    ended = rltrain("seed=14")
    (log,) = (tmp_path / "outputs").glob("*/*/run.log")
    assert ended.returncode == 1
    assert ended.stderr.startswith("rltrain: ZeroDivisionError: a bug (traceback in ")
    assert "Traceback" not in ended.stderr
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["env=CartPol-v1"], "rltrain: env=CartPol-v1: no such environment\nclosest: CartPole-v1,"),
        (["env=Pendulum-v1"], "rltrain: algo=dqn: needs discrete actions, and Pendulum-v1 has continuous ones"),
        (["env=probe_envs:Lock-v0"], "rltrain: algo=dqn: needs discrete actions, and probe_envs:Lock-v0 takes 3 numbe"),
        (["env=probe_envs:Refused-v0"], "rltrain: env=probe_envs:Refused-v0: observation space"),
        (["env.kwargs.foo=1"], "rltrain: "),
        (["env=nosuchmodule:X-v0"], "rltrain: env=nosuchmodule:X-v0: No module named 'nosuchmodule' in the installed"),
        (["seed=16"], "rltrain: what only a run can tell\n"),
        (["--nonsense"], "rltrain: --nonsense: unknown option; settings are written key=value\n"),
        (["-m", "seed=0,-1"], "rltrain: in the job `seed=-1`: seed=-1: must be >= 0\n"),
        (["-m", "env=CartPole-v1,Pendulum-v1"], "rltrain: in the job `env=Pendulum-v1`: algo=dqn: needs discrete"),
        (["-m", "algo=dqn,reinforce", "target_update=hard"], "rltrain: in the job `algo=reinforce target_update=hard`"),
    ],
)
def test_a_wrong_request_leaves_no_folder(rltrain: Shell, tmp_path: Path, args: list[str], message: str) -> None:
    refused = rltrain(*args)
    assert refused.returncode == 2
    assert refused.stderr.startswith(message)
    assert len(refused.stderr.splitlines()) <= 3
    assert "Traceback" not in refused.stderr
    assert "trained" not in refused.stdout or "seed=16" in args
    assert not list(tmp_path.glob("outputs/2*")) and not list(tmp_path.glob("outputs/multirun/*"))


def test_cuda_that_is_not_there_is_refused(rltrain: Shell, tmp_path: Path) -> None:
    refused = rltrain("device=cuda", CUDA_VISIBLE_DEVICES="")
    assert refused.returncode == 2
    assert refused.stderr.startswith("rltrain: device=cuda")
    assert not (tmp_path / "outputs").exists()


def test_a_run_s_folder_is_not_written_into_again(rltrain: Shell, tmp_path: Path) -> None:
    assert rltrain("hydra.run.dir=here").returncode == 0
    again = rltrain("hydra.run.dir=here", "seed=1")
    assert again.returncode == 2
    assert again.stderr.startswith("rltrain: hydra.run.dir=here: exists and is not empty")
    assert json.loads((tmp_path / "here" / "run.json").read_text())["seed"] == 0


@pytest.mark.slow
def test_a_sweep_says_what_is_no_fair_comparison_and_a_command_that_makes_it_one(
    rltrain: Shell, tmp_path: Path
) -> None:
    """The command works as it is printed, also with keys that a shell reads; where none would, it says why."""
    typed = ["-m", "env=CartPole-v1", "target_update=hard,soft", "seed=range(0,2)", "network.hidden=[8]"]
    started = rltrain(*typed, "hydra/launcher=basic", "tuned=auto")
    lines = started.stdout.splitlines()
    assert lines[0].startswith("sweep     4 jobs in outputs/multirun/")
    assert any(line.startswith("tuned     dqn_CartPole-v1, only for target_update=soft: ") for line in lines)
    place = next(number for number, line in enumerate(lines) if line.startswith("unfair    target_update is no fair"))
    advised = pasted(next(line for line in lines[place:] if line.startswith("          ") and " rltrain -m" in line))
    assert advised == [*typed, "hydra/launcher=basic", "tuned=none"]
    (jobs,) = tmp_path.glob("outputs/multirun/*/*/jobs.json")
    assert json.loads(jobs.read_text())["notes"][0].startswith("unfair    target_update")
    again = rltrain(*advised)
    assert again.returncode == 0 and "unfair" not in again.stdout and again.stdout.count("tuned=None") == 4
    refused = rltrain("-m", "dry_run=true", "env=CartPole-v1", "exploration=linear,constant", "target_update.tau=0.5")
    assert "tuned=none, which does not go with the other keys: " in refused.stdout


def test_a_failing_job_stops_no_other(rltrain: Shell, tmp_path: Path) -> None:
    ended = rltrain("-m", "hydra/launcher=basic", "seed=13,1,14,2", "hydra.sweeper.max_batch_size=2")
    assert ended.returncode == 1
    assert [line for line in ended.stdout.splitlines() if line.startswith("trained")] == [
        f"trained dqn CartPole-v1 {seed} console=False tuned=dqn_CartPole-v1" for seed in (13, 1, 14, 2)
    ]
    first, second, advice = ended.stderr.splitlines()
    assert first == "job 0 failed (seed=13): the environment blew up"
    assert second.startswith("job 2 failed (seed=14): ZeroDivisionError: a bug")
    assert re.search(r"rltrain resume outputs/multirun/[^/]+/[^/]+` goes on from what was saved$", advice)
    assert "sweep     2 of 4 jobs done" in ended.stdout
    assert sorted(path.parent.name for path in tmp_path.glob("outputs/multirun/*/*/*/run.json")) == ["0", "1", "2", "3"]


@pytest.mark.slow
def test_a_sweeper_of_another_package(rltrain: Shell, tmp_path: Path) -> None:
    def sweep(seeds: str, *more: str) -> Ended:
        largest = ("hydra/sweeper=nested", "hydra.sweeper.direction=maximize", "hydra/launcher=basic")
        return rltrain("-m", *largest, f"seed={seeds}", *more, plugins="stub_runner,nested_sweeper")

    done = sweep("1,2")
    assert done.returncode == 0 and "sweep     2 of 2 jobs done" in done.stdout
    (found,) = tmp_path.glob("outputs/multirun/*/*/found.txt")
    assert found.read_text() == "[1.0, 2.0]"
    wrong = sweep("3,-1")
    assert wrong.returncode == 2 and wrong.stderr.startswith("rltrain: in the job `seed=-1`") and not wrong.stdout
    assert "job 1 failed (seed=13): the environment blew up" in sweep("2,13").stderr
    broken = sweep("99")
    assert broken.returncode == 1
    assert broken.stderr.startswith('rltrain: KeyError: "a bug of the sweeper\'s" (traceback in outputs/multirun/')
    log = Path(broken.stderr.rpartition("traceback in ")[2].strip(" )\n"))
    assert "in sweep" in log.read_text()


def test_a_sweeper_that_looks_for_the_smallest_return(rltrain: Shell, tmp_path: Path) -> None:
    refused = rltrain("-m", "hydra/sweeper=nested", "seed=1,2", plugins="stub_runner,nested_sweeper")
    advice = "a job's value is its greedy return; add hydra.sweeper.direction=maximize"
    assert refused.stderr == f"rltrain: hydra.sweeper.direction=minimize: {advice}\n"
    assert not (tmp_path / "outputs").exists()
    asked = ("hydra.sweeper.direction=minimize", "hydra/launcher=basic")
    assert (
        rltrain("-m", "hydra/sweeper=nested", *asked, "seed=1,2", plugins="stub_runner,nested_sweeper").returncode == 0
    )


def test_the_jobs_of_a_sweep_are_named_as_they_are_typed(rltrain: Shell) -> None:
    ended = rltrain("-m", "hydra/launcher=basic", "env=gymnasium:CartPole-v1", "seed=1,13")
    jobs = [line for line in ended.stdout.splitlines() if line.startswith("job ")]
    assert jobs == [f"job {number}     env=gymnasium:CartPole-v1 seed={seed}" for number, seed in ((0, 1), (1, 13))]
    assert ended.stderr.startswith("job 1 failed (env=gymnasium:CartPole-v1 seed=13): the environment blew up\n")
    refused = rltrain("-m", "env=gymnasium:CartPole-v1,gymnasium:Pendulum-v1")
    assert refused.stderr.startswith("rltrain: in the job `env=gymnasium:Pendulum-v1`: algo=dqn: needs discrete")
    composed = rltrain("-m", "env=gymnasium:CartPole-v1", "seed=0,-1")
    assert composed.stderr == "rltrain: in the job `env=gymnasium:CartPole-v1 seed=-1`: seed=-1: must be >= 0\n"


@pytest.mark.parametrize("seed", [15, 17])
def test_sigint_stops_the_whole_sweep(rltrain: Shell, seed: int) -> None:
    ended = rltrain("-m", "hydra/launcher=basic", f"seed=1,{seed},2")
    assert ended.returncode == 130
    assert "trained dqn CartPole-v1 2" not in ended.stdout
    assert len(ended.stderr.splitlines()) == 1


def test_plug_ins_add_environments_and_algorithms(
    rltrain: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ALGO_CONFIGS, "mine", object)  # put back afterwards
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from typing import Annotated, Literal\n"
        "import gymnasium\n"
        "from rltrain.config.schema import ALGO_CONFIGS, Range\n"
        "@dataclass(frozen=True)\n"
        "class Mine:\n"
        "    name: Literal['mine']\n"
        "    knob: Annotated[float, Range(0, 1)]\n"
        "ALGO_CONFIGS['mine'] = Mine\n"
        "gymnasium.register('Mine-v0', 'gymnasium.envs.classic_control:CartPoleEnv')\n"
    )
    (tmp_path / "conf" / "algo").mkdir(parents=True)
    (tmp_path / "conf" / "algo" / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [{/network: mlp}, _self_]\nalgo: {name: mine, knob: 0.5}\n"
    )
    args = ["algo=mine", "env=Mine-v0", "--config-dir", "conf"]
    shown = rltrain(*args, "--cfg", "job", "--package", "algo", plugins="mine")
    assert shown.stdout.splitlines()[1:] == ["name: mine", "knob: 0.5"]
    refused = rltrain(*args, "algo.knob=2", plugins="mine")
    assert refused.stderr == "rltrain: algo.knob=2: must be >= 0 and <= 1\n"
    missing = rltrain(plugins="no_such_module")
    assert missing.returncode == 2 and missing.stderr.startswith("rltrain: RLTRAIN_PLUGINS=no_such_module: cannot be")


def test_answers_without_torch_and_starts_without_gymnasium(tmp_path: Path) -> None:
    """In one process: starting one takes longer than most answers."""
    code = (
        "import sys\nfrom rltrain.cli import main\n"
        "def check(*args, without=('torch', 'tensorboard', 'matplotlib')):\n"
        "    main([*args])\n"
        "    assert not [name for name in without if name in sys.modules], args\n"
        "check('--cfg', 'job', without=('torch', 'tensorboard', 'matplotlib', 'gymnasium'))\n"
        "for line in ('--help', 'list algos', 'list envs', 'seed=x', 'env=CartPol-v1', '-sc query=bash'):\n"
        "    check(*line.split())\n"
    )
    env = {**os.environ, "COMP_LINE": "rltrain "}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "q_learning" in done.stdout and "CartPole-v1  " in done.stdout


def test_runs_and_what_reads_them_do_not_import_the_compiler(tmp_path: Path) -> None:
    # Importing it takes as long as all else that `evaluate` does. No curve is drawn: matplotlib would take a second.
    code = (
        "import sys, types, rltrain.jobs.training\nfrom rltrain.cli import main\n"
        "rltrain.jobs.training.REPORT_EPISODES = 1\n"
        "draw = lambda run: run / 'learning_curve.png'\n"
        "sys.modules['rltrain.report.curve'] = types.SimpleNamespace(plot_learning_curve=draw)\n"
        "def check(*args): assert main([*args]) == 0 and 'torch._dynamo' not in sys.modules, args\n"
        "noisy = ['network=dueling', 'network.noisy=true', 'exploration=none', 'algo.learning_starts=60']\n"
        "short = [*noisy, 'tuned=none', 'total_steps=64', 'eval.period=null']\n"
        "check(*short, 'hydra.run.dir=run')\n"
        "check('-m', *short, 'seed=0,1', 'hydra.sweep.dir=sweep')\n"
        "check('evaluate', 'run', 'episodes=1')\n"
        "check('resume', 'run', 'total_steps=80')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_completion_knows_groups_and_environment_ids(rltrain: Shell) -> None:
    for line, expected in (("rltrain env=Cart", "env=CartPole-v1"), ("rltrain target_update=", "target_update=soft")):
        asked = rltrain("-sc", "query=bash", COMP_LINE=line, plugins="")
        assert expected in asked.stdout.split()
    assert "complete" in rltrain("--shell-completion", "install=bash").stdout


@pytest.mark.parametrize(
    ("line", "expected", "not_expected"),
    [
        ("rltrain ", {"resume", "evaluate", "list", "algo=", "total_steps="}, set()),
        ("rltrain re", {"resume", "report"}, {"evaluate"}),
        ("rltrain report one out", {"outputs"}, {"algo="}),
        pytest.param("rltrain seed=1 ", {"algo="}, {"resume", "evaluate", "list"}, marks=pytest.mark.slow),
        ("rltrain seed=1 re", set(), {"resume"}),
        ("rltrain list ", {"algos", "envs", "experiments"}, {"algo=", "list"}),
        ("rltrain list en", {"envs"}, {"algos"}),
        ("rltrain resume out", {"outputs"}, {"algo="}),
        ("rltrain evaluate out", {"outputs"}, {"algo="}),
        pytest.param(
            "rltrain tune ", {"algo=", "tune.trials=", "search=dqn", "outputs"}, {"resume"}, marks=pytest.mark.slow
        ),
        ("rltrain tune tune.se", {"tune.seeds=", "tune.seed="}, {"tune.trials="}),
        ("rltrain tune algo=d", {"algo=dqn"}, {"tune.trials="}),
        ("rltrain network.hid", {"network.hidden="}, {"network.hidden."}),
        ("rltrain tuned=none network.hidden=", {"network.hidden=[128,128]"}, {"network.hidden=0="}),
        ("rltrain env.wrappers=", {"env.wrappers=[time_aware]"}, {"env.wrappers=[]"}),
        ("rltrain seed.", set(), {"seed.0"}),
        ("rltrain no_such_command ", set(), {"list"}),
        pytest.param("rltrain total_steps=-1 ", set(), {"list"}, marks=pytest.mark.slow),
        ("rltrain --no-such-option ", set(), {"list"}),
    ],
)
def test_completion_knows_commands(
    rltrain: Shell, tmp_path: Path, line: str, expected: set[str], not_expected: set[str]
) -> None:
    (tmp_path / "outputs").mkdir()
    for shell in ("bash", "fish"):
        asked = rltrain("-sc", f"query={shell}", COMP_LINE=line, plugins="")
        offered = {word.rstrip("/") for word in asked.stdout.split()}
        assert (asked.returncode, asked.stderr) == (0, "")
        assert expected <= offered and not offered & not_expected


def lists_in(config: Any, path: str = "") -> Iterator[str]:
    """The dotted keys of a config whose values are lists."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from lists_in(value, f"{path}{key}.")
        elif isinstance(value, list):
            yield f"{path}{key}"


@pytest.mark.parametrize(
    ("choices", "own"),
    often(
        [("network=dueling", "network.stream"), ("algo=ppo", "algo.value.hidden")], [("algo=ppo", "algo.value.hidden")]
    ),
)
def test_completion_offers_the_key_of_a_list_with_its_equals_sign(rltrain: Shell, choices: str, own: str) -> None:
    hydra = create_application()
    try:
        composed = hydra.compose_config(CONFIG_NAME, [choices], run_mode=RunMode.RUN)
    finally:
        GlobalHydra.instance().clear()
    lists = set(lists_in(OmegaConf.to_container(composed, resolve=False)))
    assert {own, "network.hidden", "env.wrappers", "loggers", "hydra.searchpath"} <= lists

    def offered(word: str) -> set[str]:
        return {*rltrain("-sc", "query=bash", COMP_LINE=f"rltrain {choices} {word}", plugins="").stdout.split()}

    # What may follow a section is asked once for all its lists: each answer composes the config.
    words = {f"{key.rpartition('.')[0]}." if "." in key else key for key in lists}
    found = {key for word in words for key in offered(word)}
    assert {f"{key}=" for key in lists} <= found and not {f"{key}." for key in lists} & found
    assert offered(f"{own}.") == set()


def test_completion_for_an_unknown_shell_is_refused(rltrain: Shell) -> None:
    for arguments in (["install=tcsh"], ["bash"], []):
        refused = rltrain("--shell-completion", *arguments)
        assert refused.returncode == 2 and "shells: bash, fish, zsh" in refused.stderr


def test_the_help_fits_a_screen_or_two_and_names_every_choice(rltrain: Shell) -> None:
    text = rltrain("--help").stdout
    assert len(text.splitlines()) <= 60 and max(map(len, text.splitlines())) <= 120
    for word in (
        "dqn",
        "q_learning",
        "reinforce",
        "soft",
        "per_episode",
        "lecture_dqn",
        "rltrain resume",
        "rltrain evaluate",
        "-m",
    ):
        assert word in text


def test_lists(rltrain: Shell) -> None:
    listed = [line.split("  ")[0] for line in rltrain("list", "algos").stdout.splitlines()]
    assert listed == ["a2c", "c51", "dqn", "iqn", "ppo", "pqn", "q_learning", "qr_dqn", "reinforce"]
    envs = rltrain("list", "envs", "cartpole").stdout
    assert "CartPole-v1         500 steps, solved at 475\n" in envs
    wrong = rltrain("list", "algo_s")
    assert wrong.returncode == 2 and "did you mean algos?" in wrong.stderr


@pytest.mark.slow
def test_callbacks_of_the_user_s_are_told_of_each_job(rltrain: Shell, tmp_path: Path) -> None:
    """Hydra's own: jobs that would train as one program train one by one then, so that there is something to tell."""
    (tmp_path / "told.py").write_text(
        "import pathlib\nfrom hydra.experimental.callback import Callback\nclass Told(Callback):\n"
        + "".join(
            f"    def {what}(self, config, **_):\n        print({what!r}, file=pathlib.Path('told.txt').open('a'))\n"
            for what in ("on_multirun_start", "on_job_start", "on_job_end", "on_multirun_end")
        )
    )
    assert rltrain("-m", "+hydra.callbacks.mine={_target_: told.Told}", "seed=1,2").returncode == 0
    told = (tmp_path / "told.txt").read_text().split()
    assert told == ["on_multirun_start", *["on_job_start", "on_job_end"] * 2, "on_multirun_end"]


def test_a_long_check_is_announced(rltrain: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rltrain.commands.sweep._MANY", 2)
    asked = ("-m", "hydra/launcher=basic", "tuned=none")
    assert rltrain(*asked, "seed=1,2").stdout.startswith("checking  2 jobs\nsweep     2 jobs in ")
    assert rltrain(*asked, "seed=1").stdout.startswith("sweep     1 job in ")


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_torch_s_threads_leave_their_cores_soon_unless_told_otherwise(
    given: dict[str, str], expected: str, tmp_path: Path
) -> None:
    (tmp_path / "spy.py").write_text(
        "import os, sys\nprint(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)\n"
    )
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    env = {**kept, **given, "PYTHONPATH": str(tmp_path), "RLTRAIN_PLUGINS": "spy"}
    command = [str(Path(sys.executable).with_name("rltrain")), "list", "replays"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr.splitlines()[0] == f"{expected} False", "set before torch is loaded"
