"""What `reset` and `step` return, and what an environment raises: each mistake is named for what it is."""

from __future__ import annotations

import inspect
from typing import Any

import mistaken_envs
import numpy as np
import pytest
from mistaken_envs import RESETS, STEPS, Bugs

from rltrain.config.schema import EnvConfig
from rltrain.envs.make_vector import make_vector_env
from rltrain.envs.probe import probe
from rltrain.envs.returned import Mistake, flag, reward_number
from rltrain.envs.vector import VectorEnv
from rltrain.errors import RequestError, RunFailed


def config_of(id: str, vectorization: Any = "sync", steps: int | None = None, **kwargs: Any) -> EnvConfig:
    return EnvConfig(
        f"mistaken_envs:{id}", kwargs, steps, None, vectorization, 30.0 if vectorization == "async" else None
    )


def make(id: str, **kwargs: Any) -> VectorEnv:
    return make_vector_env(config_of(id, **kwargs), 2, lambda env, number: 10 * env + number)


def failure_of(envs: VectorEnv, steps: int = 9) -> RunFailed:
    def play() -> None:
        envs.reset()
        for _ in range(steps):
            envs.step(np.zeros(2, np.int64))

    with pytest.raises(RunFailed) as caught:
        play()
    envs.close()
    assert "\n" not in str(caught.value)
    return caught.value


RESET = "reset must return a tuple (observation, info) with a dict `info`, and it returned "
STEP = "step must return a tuple (observation, reward, terminated, truncated, info), and it returned "
NAMED = {
    "observation_alone": RESET + "an array of shape (2,): [0. 0.]",
    "list": RESET + "a list of 2: [array([0., 0.], dtype=float32), {}]",
    "three": RESET + "a tuple of 3: (array([0., 0.], dtype=float32), {}, 0.0)",
    "info_is_no_dict": RESET + "a tuple of 2: (array([0., 0.], dtype=float32), 1.0)",
    "pair_of_numbers": RESET + "a tuple of 2: (0.0, 0.0)",
    "nothing": RESET + "None",
    "nan_at_reset": "observation is not finite: [nan nan]",
    "shape_at_reset": "observation has shape (3,), its space (2,)",
    "reward_array": "the reward must be a number, and it is an array of shape (1,): [1.]",
    "reward_array_of_two": "the reward must be a number, and it is an array of shape (2,): [1. 1.]",
    "reward_list": "the reward must be a number, and it is a list of 1: [1.0]",
    "reward_text": "the reward must be a number, and it is the str '1.0'",
    "reward_text_of_numpy": "the reward must be a number, and it is an array of shape (): 1.0",
    "reward_none": "the reward must be a number, and it is None",
    "reward_nan": "the reward nan is not a finite float32",
    "reward_complex": "the reward must be a number, and it is the complex128 (1+0j)",
    "reward_dict": "the reward must be a number, and it is the dict {'a': 1.0}",
    "terminated_array": "`terminated` must be True or False, and it is an array of shape (2,): [ True False]",
    "terminated_array_of_one": "`terminated` must be True or False, and it is an array of shape (1,): [ True]",
    "terminated_list": "`terminated` must be True or False, and it is a list of 0: []",
    "terminated_none": "`terminated` must be True or False, and it is None",
    "terminated_text": "`terminated` must be True or False, and it is the str 'False'",
    "terminated_number": "`terminated` must be True or False, and it is the float 0.5",
    "truncated_array": "`truncated` must be True or False, and it is an array of shape (2,): [ True False]",
    "truncated_none": "`truncated` must be True or False, and it is None",
    "truncated_text": "`truncated` must be True or False, and it is the str ''",
    "truncated_dict": "`truncated` must be True or False, and it is the dict {'TimeLimit.truncated': True}",
    "four": STEP + "4 values: the old gym's step has 4, with `done` for the two flags",
    "six": STEP,
    "nothing_at_all": STEP + "a NoneType",
}


@pytest.mark.parametrize("what", [*RESETS, *STEPS])
def test_a_return_of_another_form_is_named(what: str) -> None:
    where = "the reset of the episode with seed 0" if what in RESETS else "step 3 of the episode with seed 0"
    said = str(failure_of(make("Returns-v0", what=what, at=1 if what in RESETS else 3)))
    assert f"environment 0 failed in {where}: {NAMED[what]}" in said


@pytest.mark.parametrize("what", ["four", "six", "nothing_at_all"])
def test_a_time_limit_between_does_not_hide_it(what: str) -> None:
    assert NAMED[what] in str(failure_of(make("Returns-v0", what=what, steps=50)))


def test_a_later_reset_is_a_reset_too() -> None:
    said = str(failure_of(make("Returns-v0", what="nothing", at=2), steps=20))
    assert f"environment 0 failed in the reset of the episode with seed 1: {RESET}None" in said


@pytest.mark.parametrize(
    ("reward", "number"),
    [(1, 1.0), (True, 1.0), (np.float32(0.1), float(np.float32(0.1))), (np.int8(-3), -3.0), (np.array(2.5), 2.5)],
)
def test_rewards_without_ambiguity_are_taken(reward: Any, number: float) -> None:
    assert (reward_number(reward), type(reward_number(reward))) == (number, float)


@pytest.mark.parametrize("kind", [int, float, bool, np.bool_, np.int64, np.float32, np.array])
def test_flags_without_ambiguity_are_taken(kind: Any) -> None:
    assert [flag("terminated", kind(value)) for value in (True, False)] == [True, False]


def test_two_is_no_flag() -> None:
    with pytest.raises(Mistake, match="truncated"):
        flag("truncated", 2)


def line_of(function: Any, text: str) -> str:
    lines, first = inspect.getsourcelines(function)
    number = first + next(number for number, line in enumerate(lines) if text in line)
    return f"mistaken_envs.py:{number}"


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("where", ["step", "reset", "library"])
def test_an_exception_of_the_environment_says_where(where: str, vectorization: str) -> None:
    failure = failure_of(make("Bugs-v0", where=where, vectorization=vectorization))
    assert failure.__cause__ is not None
    if where == "library":
        place, what = line_of(Bugs.step, "linalg"), "LinAlgError: Singular matrix, at "
    else:
        place, what = line_of(Bugs.fail, "raise"), "KeyError: 'left wheel', at "
    assert what in str(failure) and str(failure).endswith(place)


@pytest.mark.parametrize("what", ["four", "terminated_array", "observation_alone"])
def test_workers_say_the_same(what: str) -> None:
    at = 1 if what in RESETS else 3
    alone = str(failure_of(make("Returns-v0", what=what, at=at)))
    assert str(failure_of(make("Returns-v0", what=what, at=at, vectorization="async"))) == alone


def test_an_exception_of_the_constructor_says_where() -> None:
    with pytest.raises(
        RequestError, match="mistaken_envs:Bugs-v0 cannot be made: KeyError: 'left wheel', at"
    ) as caught:
        make("Bugs-v0", where="constructor")
    assert str(caught.value).endswith(line_of(Bugs.fail, "raise"))


def test_a_reset_of_the_old_gym_is_named() -> None:
    said = str(failure_of(make("OldReset-v0")))
    assert (
        "the reset of the episode with seed 0: reset must take `seed` and `options`, as in reset(self, *, seed=" in said
    )


MUST = "must be a gymnasium.spaces.Space, and it is "


@pytest.mark.parametrize("which", ["observation_space", "action_space"])
@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("none", "None; its __init__ must set it"),
        ("class", "the class Box and not an instance of it"),
        ("per_agent", "a dict with the keys a, b; one agent has one space"),
        ("number", "a builtins.int"),
        ("shape", "a builtins.tuple"),
    ],
)
def test_a_space_that_is_none_is_named(what: str, named: str, which: str) -> None:
    config = config_of("Spaces-v0", what=what, which=which)
    for look in (probe, lambda config: make_vector_env(config, 1, lambda env, number: 0)):
        with pytest.raises(RequestError) as caught:
            look(config)
        assert str(caught.value) == f"environment mistaken_envs:Spaces-v0: its {which} {MUST}{named}"


def test_a_space_that_is_absent_is_named() -> None:
    with pytest.raises(
        RequestError, match=r"Typo-v0 has no observation_space \(it has observation_spaces\); its __init"
    ):
        probe(config_of("Typo-v0"))


def test_a_space_that_is_not_yet_known_is_named_though_it_cannot_be_closed() -> None:
    with pytest.raises(
        RequestError, match=r"observation_space cannot be read: TypeError: .* subscriptable, at"
    ) as caught:
        probe(config_of("Later-v0"))
    assert str(caught.value).endswith(line_of(mistaken_envs.Later, "spaces.Discrete(self"))
