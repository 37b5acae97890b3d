"""Whether episodes replay is found out at the start of a run, in copies that training never sees."""

from __future__ import annotations

import itertools
import random
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from mistaken_envs import RESETS, STEPS
from small_runs import env_config
from whole_runs import DQN_ARGS, one_line, rltrain_here

from rltrain.config.schema import EnvConfig
from rltrain.envs.make_vector import make_vector_env
from rltrain.envs.replays import Replays, look
from rltrain.envs.trial import try_random_steps
from rltrain.errors import RunFailed

MADE: list[gymnasium.Env[Any, Any]] = []


class Drawing(gymnasium.Env[Any, Any]):
    """Where its random numbers come from is `kind`."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, kind: str = "own") -> None:
        MADE.append(self)
        self.kind, self.episodes, self.t = kind, 0, 0
        self.rng = np.random.default_rng()
        self.map = float(self.rng.random()) if kind == "constructor" else 0.0
        if kind == "slow to make":
            time.sleep(0.11)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=None if self.kind == "unseeded" else seed)
        self.t, self.episodes = 0, self.episodes + 1
        if self.kind == "seeds global":
            np.random.seed(seed)
        if self.kind == "slow reset":
            time.sleep(0.11)
        if self.kind == "fails":
            raise KeyError("wheel")
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        if self.kind == "slow steps":
            time.sleep(0.03)
        return self.observe(), 1.0, self.t == 9, False, {}

    def observe(self) -> np.ndarray:
        return np.array([self.map + self.number()])

    def number(self) -> float:
        if self.kind in ("numpy", "seeds global"):
            return np.random.random()
        if self.kind == "python":
            return random.random()
        if self.kind == "torch":
            return float(torch.rand(1))
        if self.kind == "steps of its own" and self.t > 4:
            return float(self.rng.random())
        if self.kind == "curriculum":
            return self.episodes / 10
        return float(self.np_random.random())


gymnasium.register("Drawing-v0", entry_point=Drawing)


def config_of(kind: str = "own", vectorization: Any = "sync") -> EnvConfig:
    return replace(env_config("Drawing-v0", kind=kind), vectorization=vectorization)


RESETS_DIFFER, GLOBAL = "two resets with one seed differ", "random generators of the whole process"


@pytest.mark.parametrize(
    ("kind", "same", "why"),
    [
        ("own", True, ""),
        ("slow steps", True, ""),
        ("unseeded", False, RESETS_DIFFER),
        ("numpy", False, RESETS_DIFFER),
        ("python", False, RESETS_DIFFER),
        ("torch", False, RESETS_DIFFER),
        ("curriculum", False, RESETS_DIFFER),
        ("seeds global", False, GLOBAL),
        ("steps of its own", False, "step 5 differs"),
        ("constructor", False, "two copies differ"),
        ("slow reset", None, "it is slow"),
        ("slow to make", None, "it is slow"),
        ("fails", None, "it fails"),
    ],
)
def test_who_replays(kind: str, same: bool | None, why: str) -> None:
    started = time.monotonic()
    found = look(config_of(kind))
    assert found.same is same and why in found.why and bool(found.why) is (same is not True)
    assert time.monotonic() - started < 5  # one on a quiet machine


def test_what_is_known_or_runs_elsewhere_is_not_made() -> None:
    MADE.clear()
    assert look(config_of("unseeded", "async")).same is None and not MADE
    assert look(env_config("CartPole-v1")) == Replays()
    assert look(env_config("probe_envs:Walk-v0")) == Replays()


@pytest.mark.parametrize("kind", ["numpy", "python", "torch", "seeds global"])
def test_generators_of_the_process_are_left_as_they_were(kind: str) -> None:
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = random.random(), np.random.random(), torch.rand(1)
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    look(config_of(kind))
    assert (random.random(), np.random.random(), torch.rand(1)) == expected


@pytest.mark.parametrize("args", [[], ["dry_run=true"]], ids=["training", "dry run"])
def test_the_header_promises_what_can_be_kept(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = [*DQN_ARGS, "env=Drawing-v0", "total_steps=60", "hydra.run.dir=run", *args]
    assert rltrain_here(tmp_path, *short, "env.kwargs.kind=unseeded") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "resume not exactly, running episodes begin anew (Drawing-v0 does not replay: two resets" in told
    assert rltrain_here(tmp_path, *short[:-1], "hydra.run.dir=other", *args[:1]) == 0
    assert "resume exactly (on this kind of machine);" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_a_population_is_told_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = [arg for arg in DQN_ARGS if not arg.startswith("hydra.run")]
    sweep = ["-m", *short, "env=Drawing-v0", "total_steps=60", "hydra.sweep.dir=sweep", "seed=0,1"]
    assert rltrain_here(tmp_path, *sweep, "env.kwargs.kind=unseeded") == 0
    assert "does not replay: two resets" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("what", [*RESETS, *STEPS])
def test_random_steps_find_every_mistake(what: str) -> None:
    config = env_config("mistaken_envs:Returns-v0", what=what)
    envs = make_vector_env(config, 2, lambda env, number: 10 * env + number)
    try:
        with pytest.raises(RunFailed, match="mistaken_envs:Returns-v0: environment 0 failed in "):
            try_random_steps(envs)
    finally:
        envs.close()


def test_a_slow_reset_takes_no_step_away(monkeypatch: pytest.MonkeyPatch) -> None:
    envs = make_vector_env(env_config("CartPole-v1"), 2, lambda env, number: 10 * env + number)
    clock = itertools.count(step=5.0)  # seconds from one look to the next
    monkeypatch.setattr("rltrain.envs.trial.time.monotonic", lambda: next(clock))
    with closing(envs):
        assert try_random_steps(envs) == 1


def test_a_dry_run_tries_the_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rltrain_here(tmp_path, *DQN_ARGS, "env=Drawing-v0", "dry_run=true") == 0
    assert "tried     a reset and 64 random steps of each environment" in capsys.readouterr().out
    four = [*DQN_ARGS, "env=mistaken_envs:Returns-v0", "env.kwargs.what=four", "dry_run=true"]
    assert rltrain_here(tmp_path, *four) == 1
    assert "in step 3 of the episode" in one_line(capsys)
