"""Every algorithm and option, alone and as a population, one by one and batched, eager and compiled: stopped, killed
and continued, it equals the run that nothing stopped."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from halves import often
from hypothesis import given, settings
from hypothesis import strategies as st
from resume_cases import CASES
from small_runs import dqn_config, env_config, optimizer, q_learning_config, reinforce_config, run_config
from whole_runs import KillAfter, StopAfter, assert_same_run, newest, resume, stopping, train

from rltrain.compute.compiling import has_compiler
from rltrain.config.plain import to_plain
from rltrain.config.schema import (
    CheckpointConfig,
    ConstantConfig,
    EvalConfig,
    ExponentialConfig,
    HardUpdateConfig,
    LinearConfig,
    PerEpisodeConfig,
    RunConfig,
    SoftUpdateConfig,
)
from rltrain.envs.batched import BATCHED_ENVS
from rltrain.errors import Interrupted
from rltrain.jobs.job import train_population
from rltrain.jobs.training import Job
from rltrain.storage.sweep_folder import ListedJob, SweepFolder

TWINS = [name for name, config in CASES.items() if config.env.id in BATCHED_ENVS]
BATCHED_OFTEN = [
    "dqn n-step, 3 envs",
    "dqn soft by episodes",
    "reinforce cut episodes",
]
TOGETHER_OFTEN = [
    "dqn stepped in the program, 3 envs", "ppo limited, values clipped, rmsprop",
]  # fmt: skip
COMPILED = [
    "dqn n-step, 3 envs", "dqn hard by gradient steps, adamw", "dqn not double, mse, clipped by value",
    "dqn several gradient steps", "reinforce cut episodes", "reinforce mean baseline, 2 envs",
    "dqn stepped in the program, 3 envs", "ppo, 3 envs", "pqn, 3 envs",
]  # fmt: skip


def batched(config: RunConfig) -> RunConfig:
    return replace(config, env=replace(config.env, vectorization="batched"))


def compiled(config: RunConfig) -> RunConfig:
    return replace(config, device=replace(config.device, compile=True))


def train_members(config: RunConfig, sweep: Path, stop: StopAfter | None = None) -> int:
    """Three runs that differ in seed and gamma as one program, in a sweep's folder; how often they looked at `stop`."""
    stop = stop or StopAfter()
    configs = [
        replace(config, seed=seed, algo=replace(config.algo, gamma=gamma))
        for seed, gamma in enumerate((0.9, 0.8, 0.95))
    ]
    jobs = [Job(member, sweep / str(n)) for n, member in enumerate(configs)]
    for job in jobs:
        job.folder.mkdir(parents=True)
    SweepFolder(sweep).add_jobs([ListedJob(job.folder, to_plain(job.config), None) for job in jobs])
    with stopping(stop):
        try:
            assert all(isinstance(outcome, float) for outcome in train_population(jobs))
        except Interrupted:
            assert stop.requested
    return stop.looks


def check_alone(config: RunConfig, folder: Path, parts: tuple[float, float] = (0.3, 0.4)) -> None:
    """Stopped after the first share of its looks, killed after the second, and continued."""
    looks = train(config, folder / "whole")
    train(config, folder / "run", StopAfter(round(parts[0] * looks)))
    assert resume(folder / "run", stop=KillAfter(round(parts[1] * looks), folder / "run")) == -1
    assert resume(folder / "run") == 0
    assert_same_run(folder / "whole", folder / "run")


def check_together(config: RunConfig, folder: Path, said: pytest.CaptureFixture[str]) -> None:
    looks = train_members(config, folder / "whole")
    train_members(config, folder / "sweep", StopAfter(looks // 3))
    said.readouterr()
    assert resume(folder / "sweep", stop=KillAfter(looks // 2, folder / "sweep")) == -1
    assert resume(folder / "sweep") == 0
    assert said.readouterr().out.count("3 jobs as one program") == 2
    for name in "012":
        assert_same_run(folder / "whole" / name, folder / "sweep" / name)


@pytest.mark.parametrize("name", often(TWINS, BATCHED_OFTEN))
def test_batched(name: str, tmp_path: Path) -> None:
    check_alone(batched(CASES[name]), tmp_path)


@pytest.mark.parametrize("name", often(CASES, TOGETHER_OFTEN))
def test_a_population(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_together(CASES[name], tmp_path, capsys)


@pytest.mark.parametrize("name", often(TWINS, ["dqn n-step, 3 envs"]))
def test_a_batched_population(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_together(batched(CASES[name]), tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
class TestCompiled:
    @pytest.mark.parametrize("name", COMPILED)
    def test_alone(self, name: str, tmp_path: Path) -> None:
        check_alone(compiled(CASES[name]), tmp_path)
        assert newest(tmp_path / "run").manifest["compile"] is True
        assert not (tmp_path / "run" / "run.log").read_text()

    @pytest.mark.parametrize("name", COMPILED)
    def test_a_population(self, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        check_together(compiled(CASES[name]), tmp_path, capsys)

    @pytest.mark.parametrize("name", ["dqn n-step, 3 envs", "reinforce cut episodes"])
    def test_batched(self, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for how in (check_alone, check_together):
            (tmp_path / how.__name__).mkdir()
        check_alone(compiled(batched(CASES[name])), tmp_path / "check_alone")
        check_together(compiled(batched(CASES[name])), tmp_path / "check_together", capsys)


explorations = st.sampled_from(
    [
        LinearConfig("linear", 1.0, 0.1, 40), ExponentialConfig("exponential", 0.9, 0.1, 30.0),
        PerEpisodeConfig("per_episode", 1.0, 0.05, 0.7), ConstantConfig("constant", 0.3),
    ]
)  # fmt: skip
units = st.sampled_from(["env_steps", "gradient_steps", "episodes"])
optimizers = st.sampled_from(
    [
        optimizer("adam"),
        optimizer("adam", amsgrad=True),
        optimizer("adamw", weight_decay=0.1),
        optimizer("rmsprop"),
        optimizer("rmsprop_tf"),
    ]
)
dqns = st.builds(
    dqn_config,
    n_step=st.integers(1, 4), double=st.booleans(), loss=st.sampled_from(["mse", "huber"]),
    max_grad_norm=st.sampled_from([None, 0.5]), max_grad_value=st.sampled_from([None, 0.1]), optimizer=optimizers,
    train_period=st.integers(1, 4), gradient_steps=st.integers(1, 2), buffer_size=st.sampled_from([20, 500]),
    learning_starts=st.sampled_from([12, 30]),
)  # fmt: skip
targets = st.one_of(
    st.builds(HardUpdateConfig, st.just("hard"), st.integers(1, 9), units),
    st.builds(SoftUpdateConfig, st.just("soft"), st.sampled_from([0.05, 1.0]), st.integers(1, 3), units),
)
reinforces = st.builds(
    reinforce_config,
    episodes_per_update=st.sampled_from([4, 8]), baseline=st.sampled_from(["none", "mean", "value"]),
    normalize_returns=st.sampled_from(["none", "episode", "batch"]), loss_reduction=st.sampled_from(["mean", "sum"]),
    entropy_coef=st.sampled_from([0.0, 0.1]), max_grad_norm=st.sampled_from([None, 0.5]), optimizer=optimizers,
)  # fmt: skip
tables = st.builds(
    q_learning_config, alpha_decay=st.sampled_from([0.0, 0.6]), initial_value=st.sampled_from([0.0, 1.0])
)


@st.composite
def runs(draw: st.DrawFn) -> RunConfig:
    """Any combination of options of an algorithm, short."""
    algo = draw(st.one_of(dqns, reinforces, tables))
    envs = {"dqn": ["CartPole-v1"], "reinforce": ["CartPole-v1", "Pendulum-v1"], "q_learning": ["FrozenLake-v1"]}
    env = replace(env_config(draw(st.sampled_from(envs[algo.name]))), max_episode_steps=draw(st.sampled_from([9, 60])))
    if env.id in BATCHED_ENVS:
        env = replace(env, vectorization=draw(st.sampled_from(["sync", "batched"])))
    groups: dict[str, Any] = {}
    if algo.name != "reinforce":
        groups["exploration"] = draw(explorations)
    if algo.name == "dqn":
        groups["target_update"] = draw(targets)
    return run_config(
        algo, env=env, num_envs=draw(st.sampled_from([1, 2, 4])), total_steps=draw(st.integers(70, 110)),
        log_period=draw(st.sampled_from([7, 50])), eval=EvalConfig(draw(st.sampled_from([None, 25])), 2),
        checkpoint=CheckpointConfig(draw(st.sampled_from([10, 40])), 2, draw(st.just(True))),
        stop_at_return=None, seed=draw(st.integers(0, 99)), **groups,
    )  # fmt: skip


shares = st.tuples(st.floats(0.1, 0.5), st.floats(0.05, 0.45))


@settings(max_examples=3, deadline=None, derandomize=True)
@given(config=runs(), parts=shares)
def test_any_combination(config: RunConfig, parts: tuple[float, float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_alone(config, Path(folder), parts)


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(config=runs(), parts=shares)
def test_any_combination_of_many(config: RunConfig, parts: tuple[float, float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_alone(config, Path(folder), parts)
