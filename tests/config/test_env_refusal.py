"""What is said of an environment that cannot be made: the key, and what to install."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from rltrain.commands.preflight import preflight
from rltrain.config.application import compose
from rltrain.config.env_families import register_families
from rltrain.errors import EXTRAS, RequestError, missing_extra


class Grandparent(gymnasium.Env[Any, Any]):
    observation_space = gymnasium.spaces.Discrete(2)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, depth: int = 1, *, render_mode: str | None = None) -> None: ...


class Parent(Grandparent):
    """Has no __init__ of its own."""


class Child(Parent):
    def __init__(self, length: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class Needy(gymnasium.Env[Any, Any]):
    def __init__(self, width: int, height: int, depth: int) -> None: ...


class Inner(gymnasium.Env[Any, Any]):
    def __init__(self, size: int = 1) -> None:
        dict.fromkeys(size=size)  # type: ignore[call-overload]


def function(*, rows: int = 3) -> gymnasium.Env[Any, Any]:
    return Grandparent(rows)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    register_families()  # into the registry that stays, not into the copy: a package registers its games once
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    monkeypatch.setattr(gymnasium, "registry", gymnasium.envs.registration.registry)
    creators = {"Child": Child, "Needy": Needy, "Inner": Inner, "Made": function, "Inherits": Parent}
    for name, creator in creators.items():
        gymnasium.register(f"{name}-v0", creator)


def refusal(env: str, *overrides: str) -> str:
    config, _ = compose([f"env={env}", *overrides])
    with pytest.raises(RequestError) as caught:
        preflight(config)
    assert len(str(caught.value).splitlines()) <= 3
    return str(caught.value)


@pytest.mark.parametrize(
    ("env", "key", "expected"),
    [
        (
            "CartPole-v1",
            "gravity=9",
            "env.kwargs.gravity=9: CartPole-v1 does not take it; it takes sutton_barto_reward, render_mode",
        ),
        (
            "FrozenLake-v1",
            "is_slipery=false",
            "env.kwargs.is_slipery=false: FrozenLake-v1 does not take it; it takes render_mode, desc, map_name, "
            "is_slippery, success_rate, reward_schedule; did you mean is_slippery?",
        ),
        ("Inherits-v0", "x=1", "env.kwargs.x=1: Inherits-v0 does not take it; it takes depth, render_mode"),
        ("Child-v0", "x=1", "env.kwargs.x=1: Child-v0 does not take it; it takes length, depth, render_mode"),
        ("Made-v0", "x=1", "env.kwargs.x=1: Made-v0 does not take it; it takes rows"),
    ],
)
def test_an_argument_that_is_not_taken_is_named_with_those_that_are(env: str, key: str, expected: str) -> None:
    assert refusal(env, f"env.kwargs.{key}") == expected


def test_arguments_that_are_missing_are_named() -> None:
    assert refusal("Needy-v0", "env.kwargs.depth=1") == "env.kwargs.width, env.kwargs.height: Needy-v0 needs a value"
    one = refusal("Needy-v0", "env.kwargs.depth=1", "env.kwargs.width=2")
    assert one == "env.kwargs.height: Needy-v0 needs a value"


def test_an_environment_s_own_type_error_is_left_as_it_is() -> None:
    assert refusal("Inner-v0", "env.kwargs.size=2").startswith("environment Inner-v0 cannot be made: TypeError")


@pytest.mark.parametrize(
    ("env", "package", "extra"), [("LunarLander-v3", "Box2D", "box2d"), ("Ant-v5", "MuJoCo", "mujoco")]
)
def test_a_package_that_is_missing_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, env: str, package: str, extra: str
) -> None:
    for name in [name for name in sys.modules if name.startswith(("gymnasium.envs.box2d", "gymnasium.envs.mujoco"))]:
        monkeypatch.delitem(sys.modules, name)
    for module in ("Box2D", "mujoco"):
        monkeypatch.setitem(sys.modules, module, None)
    assert refusal(env) == f"env={env}: {package} is not installed; pip install 'rltrain[{extra}]' brings it"


@pytest.mark.parametrize(
    ("complaint", "extra"),
    [
        ('pygame is not installed, run `pip install "gymnasium[classic_control]"`', "render"),
        ('pygame is not installed, run `pip install "gymnasium[toy-text]"`', "render"),
        ('pygame is not installed, run `pip install "gymnasium[box2d]"`', "box2d"),
        ('Jax is not installed, run `pip install "gymnasium[jax]"`', None),
    ],
)
def test_only_extras_that_there_are_are_named(complaint: str, extra: str | None) -> None:
    text = missing_extra(gymnasium.error.DependencyNotInstalled(complaint))
    assert text == (f"pygame is not installed; pip install 'rltrain[{extra}]' brings it" if extra else "")


def test_the_extras_are_those_of_the_package() -> None:
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    extras = pyproject["project"]["optional-dependencies"]
    assert set(EXTRAS.values()) <= set(extras)
    for extra, requirements in extras.items():
        for requirement in requirements:
            if requirement.startswith("gymnasium["):
                assert EXTRAS[requirement.removeprefix("gymnasium[").partition("]")[0]] == extra
