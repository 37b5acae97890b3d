"""A sweep's jobs, of which what they have in common is composed once, are what composing each of them whole gives."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from halves import often
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from rltrain.config.application import CONFIG_NAME, create_application
from rltrain.config.sweep_loader import SweepConfigLoader
from rltrain.config.validate import validate
from rltrain.errors import RequestError

# Each list: what an override of a job may be, one of them or none.
CHOICES = [
    ["algo=dqn", "algo=reinforce", "algo=c51"],
    ["env=CartPole-v1", "env=Acrobot-v1", "env=mine"],
    ["target_update=soft", "target_update=hard", "target_update.period=7"],
    ["exploration=exponential", "exploration.end=0.2", "exploration=wrong"],
    ["tuned=none", "tuned=dqn_CartPole-v1", "experiment=lecture_dqn", "experiment=own", "+tuned=none"],
    ["network=dueling", "'network.hidden=[32,32]'", "network.hidden=[8]", "network={hidden: [4]}"],
]
VALUES = [
    ["seed=1", "seed=5e0", "seed=-1", "seed=null", "seed=${num_envs}"],
    ["total_steps=1e5", "total_steps=100_000", "total_steps='${eval.period}'", "total_steps=yes"],
    ["algo.optimizer.lr=1e-4", "algo.optimizer.lr=0", "algo.optimizer.lr=${oc.env:RATE}", "algo.optimizer={lr: 0.1}"],
    ["name=some", "name='a,b'", "name=${algo.name}", "~name", "+name=x", "name=???"],
    ["env.kwargs.gravity=3", "+env.kwargs.gravity=3", "env.kwargs={gravity: 2}", "++env.max_episode_steps=9"],
    ["env.wrappers=[time_aware]", "env.wrappers=[{name: frame_stack, count: 2}]", "env.wrappers=[nothing]"],
    ["algo.nothing=1", "nothing.at.all=2", "eval.period=null", "eval={period: 10}", "algo.gamma=0.5"],
]
OF_HYDRA = [
    [],
    ["+hydra.job.env_set.A=1", "hydra.sweep.subdir=${hydra.job.override_dirname}"],
    ["hydra.job.env_copy=[RATE]", "hydra.job.config.override_dirname.exclude_keys=[seed]"],
]


@pytest.fixture(autouse=True, scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's own environment, recipe and tuned file, the tuned one with a value that is wrong."""
    folder = tmp_path_factory.mktemp("conf")
    for name, text in {
        "env/mine.yaml": "id: CartPole-v1\nkwargs: {}\nmax_episode_steps: 77\nreward_clip: null\nvectorization: auto\n"
        "wrappers: []\nstep_timeout: null\n",
        "experiment/own.yaml": "# @package _global_\ndefaults:\n  - override /algo: dqn\n  - override /network: mlp\n\n"
        "total_steps: 1234\nnetwork:\n  hidden: [3]\n",
        "tuned/c51_CartPole-v1.yaml": "# @package _global_\nalgo:\n  gamma: 7\n",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLTRAIN_CONF", str(folder))
        patch.setenv("RATE", "0.25")
        yield folder
    GlobalHydra.instance().clear()


def master(loader: SweepConfigLoader, of_hydra: list[str]) -> DictConfig:
    return loader.load_configuration(CONFIG_NAME, of_hydra, RunMode.MULTIRUN)


def new_loader() -> SweepConfigLoader:
    loader = create_application().config_loader
    assert isinstance(loader, SweepConfigLoader)
    return loader


def found(compose: Any, config: DictConfig, overrides: list[str]) -> Any:
    """All that can be told of a composed job, or its refusal."""
    try:
        job: DictConfig = compose(config, overrides)
    except RequestError as error:
        return str(error)
    app = OmegaConf.masked_copy(job, [str(key) for key in job if key != "hydra"])
    try:
        name = str(job.hydra.sweep.subdir)
    except Exception as error:  # of a number that only the launcher gives
        name = type(error).__name__
    return OmegaConf.to_yaml(job), OmegaConf.to_yaml(app, resolve=True), name, OmegaConf.is_struct(job)


def as_data(loader: SweepConfigLoader, config: DictConfig, overrides: list[str], compose: Any = None) -> Any:
    """A job as plain data, by `plain_job` or from what `compose` gives, in the order of its keys; or its refusal."""
    try:
        if compose is None:
            record, typed = loader.plain_job(config, overrides)
            return json.dumps(record), typed
        record = OmegaConf.to_container(compose(config, overrides), resolve=False, enum_to_str=True)
    except RequestError as error:
        return str(error)
    return json.dumps(record), validate({key: value for key, value in record.items() if key != "hydra"})


def some_jobs(number: int, rng: random.Random) -> list[list[str]]:
    """Jobs with overrides at random, of each kind the right ones more often."""
    jobs = []
    for _ in range(number):
        lists = [*rng.sample(CHOICES, 2), *rng.sample(VALUES, 3)]
        jobs.append([rng.choice(options[: rng.choice([1, 2, 9])]).strip("'") for options in lists])
    return jobs


@pytest.mark.parametrize(
    ("of_hydra", "seed"), often([(of, seed) for of in OF_HYDRA for seed in range(12)], [(OF_HYDRA[-1], 0)])
)
def test_jobs_at_random(of_hydra: list[str], seed: int) -> None:
    loader, whole = new_loader(), new_loader()
    config = master(loader, of_hydra)
    for overrides in some_jobs(2, random.Random(seed)):
        ours = found(loader.load_sweep_config, config, overrides)
        assert ours == found(whole._compose_whole, config, overrides), overrides
        assert as_data(loader, config, overrides) == as_data(whole, config, overrides, whole._compose_whole), overrides


@pytest.mark.parametrize(
    ("jobs", "frames"),
    [
        pytest.param(
            [["env=CartPole-v1", f"seed={seed}", "algo.optimizer.lr=1e-3"] for seed in range(4)], 1,
            marks=pytest.mark.slow,
        ),
        ([[f"algo={algo}", f"seed={seed}"] for algo in ("dqn", "reinforce") for seed in (0, 1)], 2),
        pytest.param(
            [[f"env={env}", "env.kwargs.gravity=3", "network={hidden: [4]}"] for env in ("CartPole-v1", "mine")] * 2, 2,
            marks=pytest.mark.slow,
        ),
        ([["seed=1"], ["seed=-1"], ["seed=2"]], 1),
    ],
)  # fmt: skip
def test_what_jobs_have_in_common_is_composed_once(
    jobs: list[list[str]], frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, whole = new_loader(), new_loader()
    config = master(loader, [])
    expected = [found(whole._compose_whole, config, overrides) for overrides in jobs]
    composed: list[list[str]] = []
    compose = loader._composed
    monkeypatch.setattr(loader, "_composed", lambda *how: composed.append(how[1]) or compose(*how))  # type: ignore[func-returns-value]
    assert [found(loader.load_sweep_config, config, overrides) for overrides in jobs] == expected
    refused = sum(isinstance(job, str) for job in expected)  # these are composed whole, which says what is wrong
    assert len(composed) == frames + refused


def test_a_job_can_be_changed_without_changing_the_next() -> None:
    loader = new_loader()
    config = master(loader, [])
    first = loader.load_sweep_config(config, ["seed=1"])
    first.hydra.job.num, first.algo.gamma = 5, 0.1
    second = loader.load_sweep_config(config, ["seed=1"])
    assert OmegaConf.is_missing(second.hydra.job, "num") and second.algo.gamma != 0.1


def test_all_jobs_have_the_time_at_which_the_sweep_began() -> None:
    loader = new_loader()
    config = master(loader, ["hydra.run.dir=${now:%f}"])
    began = str(config.hydra.run.dir)
    assert [loader.load_sweep_config(config, [f"seed={seed}"]).hydra.run.dir for seed in (0, 1)] == [began] * 2


def test_a_refusal_names_the_file_of_the_user_s_that_is_wrong(files: Path) -> None:
    loader = new_loader()
    config = master(loader, [])
    loader.load_sweep_config(config, ["algo=dqn", "seed=0"])
    with pytest.raises(RequestError, match=r"c51_CartPole-v1.yaml:3: algo.gamma=7"):
        loader.load_sweep_config(config, ["algo=c51", "seed=0"])
    assert loader.load_sweep_config(config, ["algo=c51", "seed=0", "algo.gamma=0.7"]).algo.gamma == 0.7
