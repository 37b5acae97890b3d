"""What `env.vectorization=auto` chooses for a run: the rule, its exceptions, and what a checkpoint has chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import dqn_config, env_config, q_learning_config, reinforce_config, run_config

from rltrain.config.schema import RunConfig
from rltrain.config.wrappers import FrameStackConfig, TimeAwareConfig
from rltrain.envs.batched import BATCHED_ENVS
from rltrain.envs.batched.cartpole import CartPole
from rltrain.errors import RequestError
from rltrain.jobs.build import _auto_chose
from rltrain.jobs.vectorizing import choose_vectorization
from rltrain.storage.checkpoint import Checkpoint

CPU, GPU = torch.device("cpu"), torch.device("cuda")
AUTO = run_config(dqn_config(), env=replace(env_config("CartPole-v1"), vectorization="auto"), num_envs=10)


def way(config: RunConfig, members: int = 1, device: torch.device = CPU, compiled: bool = False) -> str:
    return choose_vectorization(config, members, device, compiled).way


def env(**changes: Any) -> RunConfig:
    return replace(AUTO, env=replace(AUTO.env, **changes))


@pytest.mark.parametrize(
    ("num_envs", "members", "device", "compiled", "expected"),
    [
        (1, 1, CPU, False, "sync"),
        (7, 1, CPU, False, "sync"),
        (8, 1, CPU, False, "batched"),  # bit for bit the numbers of sync
        (64, 1, CPU, False, "batched"),
        (1, 1, CPU, True, "compiled"),  # a compiled update rounds in its own way, and so does a population
        (1, 3, CPU, False, "sync"),
        (1, 4, CPU, False, "compiled"),
        (10, 32, CPU, False, "compiled"),
        (10, 32, CPU, True, "compiled"),
        (1, 1, GPU, False, "compiled"),
    ],
)
def test_the_fastest_that_keeps_the_numbers(
    num_envs: int, members: int, device: torch.device, compiled: bool, expected: str
) -> None:
    assert way(replace(AUTO, num_envs=num_envs), members, device, compiled) == expected


@pytest.mark.parametrize("id", ["CartPole-v1", "Pendulum-v1"])
def test_whole_episodes_too(id: str) -> None:
    config = run_config(reinforce_config(episodes_per_update=10), env=replace(AUTO.env, id=id), num_envs=10)
    assert way(config, members=8, compiled=True) == way(config, device=GPU) == "compiled"
    assert way(config, members=8) == way(config) == "batched"


def test_the_choice_says_why() -> None:
    found = choose_vectorization(AUTO, 32, CPU, compiled=True)
    assert found.why == "on the cpu; equal to sync up to rounding, as a population is"
    assert choose_vectorization(env(vectorization="batched"), 32, CPU, compiled=True).why is None


@pytest.mark.parametrize("asked", ["sync", "async", "batched", "compiled"])
def test_a_way_that_is_asked_for_is_taken_whatever_the_manifest_says(asked: Any) -> None:
    assert choose_vectorization(env(vectorization=asked), 32, CPU, True, before="sync").way == asked


class WithAnotherTorch(CartPole):
    """Computes something else where `xp` is torch."""

    def step(self, xp: Any, state: Any, action: Any) -> Any:
        after, reward, terminated = super().step(xp, state, action)
        return (after * 1.001 if xp is torch else after), reward, terminated


class NumPyOnly(CartPole):
    def step(self, xp: Any, state: Any, action: Any) -> Any:
        if xp is torch:
            raise TypeError
        return super().step(xp, state, action)


@pytest.mark.parametrize("twin", [WithAnotherTorch, NumPyOnly])
def test_a_twin_that_computes_something_else_on_the_device_stays_on_the_host(
    twin: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert way(AUTO, members=8) == "compiled"
    monkeypatch.setitem(BATCHED_ENVS, "CartPole-v1", twin)
    assert way(AUTO, members=8) == "batched"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (env(id="FrozenLake-v1"), "sync"),
        (env(id="probe_envs:Walk-v0"), "sync"),
        (env(wrappers=(FrameStackConfig("frame_stack", 2),)), "batched"),
        (replace(AUTO, algo=dqn_config(n_step=3, buffer_size=12)), "batched"),  # less than a step may complete
        (run_config(q_learning_config(), env=AUTO.env, num_envs=10), "batched"),
        (env(kwargs={"render_mode": "rgb_array"}), "sync"),
    ],
)
def test_what_the_device_cannot_do_is_done_on_the_host(config: RunConfig, expected: str) -> None:
    assert way(config, members=8) == expected


def test_wrappers_that_are_formulas_and_clipped_rewards_are_computed_on_the_device() -> None:
    assert way(env(wrappers=(TimeAwareConfig("time_aware"),), reward_clip=1.0), members=8) == "compiled"


@pytest.mark.parametrize("before", ["sync", "batched", "compiled"])
def test_what_was_chosen_before_is_chosen_again(before: str) -> None:
    """Another machine, or the next version's break-even numbers, do not change a run that has begun."""
    for members, compiled in ((1, False), (32, True)):
        found = choose_vectorization(AUTO, members, CPU, compiled, before)
        assert (found.way, found.why) == (before, "as before")


@pytest.mark.parametrize("before", [None, 3, "auto", "vmap", ["sync"]])
def test_a_manifest_that_says_nothing_of_use(before: object) -> None:
    assert choose_vectorization(AUTO, 1, CPU, False, before).way == "batched"


def test_a_foreign_manifest_s_way_that_is_none_for_its_config_is_refused() -> None:
    config = run_config(q_learning_config(), env=AUTO.env)
    with pytest.raises(RequestError, match="algo=q_learning has none"):
        choose_vectorization(config, 1, CPU, False, "compiled")


@pytest.mark.parametrize(
    ("key", "entry", "chosen"),
    [
        ("env.vectorization", "vectorization", "batched"),
        ("device.threads", "threads", 2),
        ("device.compile", "compile", True),
    ],
)
def test_what_was_asked_for_before_is_not_what_auto_chose(key: str, entry: str, chosen: Any) -> None:
    section, name = key.split(".")

    def source(asked: Any) -> Checkpoint:
        return Checkpoint({"config": {section: {name: asked}}, entry: chosen}, {}, {}, Path())

    assert _auto_chose(source("auto"), key, entry) == chosen
    assert _auto_chose(source(chosen), key, entry) is None
    assert _auto_chose(None, key, entry) is None
