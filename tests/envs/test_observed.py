"""Observations that are not of their space, of every kind of space and in every way: never cast without a word."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from rltrain.envs.lanes import Lanes
from rltrain.envs.observed import EVERY
from rltrain.envs.spaces import from_env_observation
from rltrain.errors import RunFailed

BYTES = spaces.Box(0, 255, (2,), np.uint8)
BOOLS = spaces.Box(0, 1, (2,), np.bool_)
FLOATS = spaces.Box(-1.0, 1.0, (2,), np.float32)
SMALL = spaces.Box(0, 9, (2,), np.int32)
TREE = spaces.Dict(a=spaces.Tuple((spaces.Discrete(3), FLOATS)), b=BYTES, c=spaces.MultiBinary(2))


def tree(first: Any = 1, floats: Any = (0.5, 0.5), image: Any = (1, 2), flags: Any = (0, 1)) -> dict[str, Any]:
    return {"a": (first, np.array(floats)), "b": np.array(image), "c": np.array(flags)}


OF_NO_NUMBERS: list[Any] = [
    None, "text", b"text", "1", {}, {"a": 1}, [None, None], ["1", "2"], [[1], [1, 2]], object, {1, 2}, 1 + 2j,
    np.array([1, 2], object), np.array([1 + 2j, 0]), np.array(["1", "2"]), np.array([1, 2], "datetime64[s]"),
    np.array([1, 2], "timedelta64[s]"), np.zeros(2, [("x", float)]), [10**30, 0],
]  # fmt: skip
OF_OTHER_SHAPES: list[Any] = [1, [1], [1, 0, 1], np.ones((1, 2), np.int8), np.ones((2, 1), np.int8), [], np.ones(())]


@pytest.mark.parametrize("space", [BYTES, BOOLS, FLOATS, SMALL, spaces.MultiBinary(2), spaces.MultiDiscrete([2, 3])])
@pytest.mark.parametrize("value", [*OF_NO_NUMBERS, *OF_OTHER_SHAPES], ids=repr)
def test_what_is_no_array_of_numbers_of_its_shape_is_refused(space: spaces.Space[Any], value: Any) -> None:
    with pytest.raises(ValueError, match=r"^observation (is|has shape) .*its space"):
        from_env_observation(space, value)


NO_STATES: list[Any] = [
    *OF_NO_NUMBERS, [1], np.array([1]), np.ones((1, 1), int), 1.0, 1.9, np.float32(1), np.array(1.0), np.nan,
    float("inf"), -1, 3, 10**30, np.int64(-1), np.array(3),
]  # fmt: skip


@pytest.mark.parametrize("value", NO_STATES, ids=repr)
def test_what_is_no_state_of_a_discrete_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^observation (is|has shape) .*its space"):
        from_env_observation(spaces.Discrete(3), value)


@pytest.mark.parametrize(
    ("space", "value", "text"),
    [
        (BYTES, np.array([0.9, 0.0]), r"observation is float64 \[0.9 0. \]: its space holds uint8 of shape \(2,\)"),
        (BYTES, np.array([np.nan, 0.0], np.float32), r"is float32 \[nan +0.\]: its space holds uint8"),
        (BYTES, [0.0, 1.0], r"is \[0.0, 1.0\]: its space holds uint8"),
        (BYTES, np.array([5, -1]), r"holds -1 at \[1\]: its space goes from 0 to 255"),
        (BYTES, np.array([300, 0], np.int16), r"holds 300 at \[0\]: its space goes from 0 to 255"),
        (BYTES, np.array([300, 0], np.uint16), "holds 300"),
        (BOOLS, np.array([0, 2]), r"holds 2 at \[1\]: its space goes from 0 to 1"),
        (BOOLS, np.array([0, 0.5]), "is float64"),
        (spaces.MultiBinary(2), np.array([0, 2], np.int8), r"holds 2 at \[1\]"),
        (spaces.MultiBinary(2), np.array([0, 0.5]), "is float64"),
        (spaces.MultiDiscrete([2, 3]), np.array([0, 1.5]), "is float64"),
        (spaces.MultiDiscrete([2, 3], start=[4, 0]), np.array([0, 1]), r"holds 0 at \[0\]: its space goes from 4 to 5"),
        (SMALL, np.array([1.5, 0]), "is float64"),
        (SMALL, np.array([10, 0]), r"holds 10 at \[0\]: its space goes from 0 to 9"),
        (FLOATS, np.array([0, 1e39]), r"holds more than the largest float32: \[0.e\+00 1.e\+39\]"),
        (FLOATS, np.array([0, np.inf]), "is not finite"),
        (spaces.Discrete(3), True + 0.5, "observation is 1.5: its space holds a whole number from 0 to 2"),
        (TREE, tree(first=1.9), r"observation\['a'\]\[0\] is 1.9: its space holds a whole number from 0 to 2"),
        (TREE, tree(first=3), r"observation\['a'\]\[0\] is 3"),
        (TREE, tree(floats=(0.5, np.nan)), r"observation\['a'\]\[1\] is not finite: \[0.5 nan\]"),
        (TREE, tree(image=(0.9, 1)), r"observation\['b'\] is float64"),
        (TREE, tree(image=(256, 1)), r"observation\['b'\] holds 256 at \[0\]"),
        (TREE, tree(flags=(0, 2)), r"observation\['c'\] holds 2 at \[1\]"),
        (TREE, {**tree(), "a": None}, r"observation has no part \['a'\]\[0\]"),
    ],
)  # fmt: skip
def test_the_rule_and_the_value_are_named(space: spaces.Space[Any], value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text) as refusal:
        from_env_observation(space, value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("space", "value", "row"),
    [
        (FLOATS, np.array([0, 1]), [0, 1]),
        (FLOATS, np.array([True, False]), [1, 0]),
        (FLOATS, [0.25, 1], [0.25, 1]),
        (FLOATS, np.array([0.1, 0.2]), np.array([0.1, 0.2], np.float32)),
        (spaces.Box(-1, 1, (2,), np.float64), np.array([0.5, 0.25], np.float32), [0.5, 0.25]),
        (BYTES, np.array([255, 0]), [255, 0]),
        (BYTES, np.array([True, False]), [1, 0]),
        (BOOLS, np.array([1, 0]), [True, False]),
        (SMALL, np.array([9, 0], np.uint8), [9, 0]),
        (spaces.Box(-1, 1, (2,), np.dtype(">f4")), np.array([0.5, 1], ">f4"), [0.5, 1]),
        *((spaces.Discrete(3), value, 2) for value in (2, np.int32(2), np.array(2), np.uint8(2))),
        (spaces.Discrete(2), True, 1),
        (spaces.Discrete(2), np.True_, 1),
        (spaces.MultiDiscrete([2, 3]), [1, 2], [0, 1, 0, 0, 1]),
        (spaces.MultiBinary(2), np.array([True, False]), [1, 0]),
        (TREE, {**tree(), "b": [1, 2]}, np.array([0, 1, 0, 0.5, 0.5, 1 / 255, 2 / 255, 0, 1], np.float32)),
    ],
)  # fmt: skip
def test_what_means_the_same_is_taken(space: spaces.Space[Any], value: Any, row: Any) -> None:
    np.testing.assert_array_equal(from_env_observation(space, value), row)


NUMBERS = st.one_of(st.integers(-(2**40), 2**40), st.integers(-3, 300), st.floats(), st.booleans())
GIVEN_AS = st.sampled_from(["?", "u1", "i1", "u2", "i4", "i8", "u8", "f2", "f4", "f8", "g", "O", None])
KINDS = st.sampled_from(["?", "u1", "i1", "i2", "u2", "i4", "i8", "u8", "f2", "f4", "f8"])


@settings(max_examples=400, deadline=None, derandomize=True)
@given(KINDS, st.lists(NUMBERS, min_size=2, max_size=2), GIVEN_AS)
def test_no_number_is_changed(kind: str, numbers: list[Any], given_as: str | None) -> None:
    """Whatever is given to whatever Box: it is refused, or each number is what float32 or float64 makes of it."""
    dtype = np.dtype(kind)
    bounds: tuple[Any, Any] = (-np.inf, np.inf) if dtype.kind == "f" else (0, 1)
    if dtype.kind in "iu":
        bounds = (np.iinfo(dtype).min, np.iinfo(dtype).max)
    with np.errstate(all="ignore"):
        try:
            value: Any = numbers if given_as is None else np.array(numbers).astype(given_as)
        except (ValueError, OverflowError, TypeError):
            return
    try:
        row = from_env_observation(spaces.Box(*bounds, (2,), dtype), value)
    except ValueError:
        return
    assert np.asarray(value).dtype.kind != "O" and np.isfinite(row).all()
    assert row.tolist() == np.asarray(value).astype(row.dtype if row.dtype.kind == "f" else float).tolist()


class Shows(gymnasium.Env[Any, Any]):
    """Shows `usual`, and `odd` after so many steps of each episode."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space[Any], usual: Any, odd: Any, at: int) -> None:
        self.observation_space = space
        self.usual, self.odd, self.at = usual, odd, at

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.t = 0
        return self.show(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self.show(), 0.0, False, False, {}

    def show(self) -> Any:
        return self.odd if self.t == self.at else self.usual


def run(space: spaces.Space[Any], usual: Any, odd: Any, at: int, steps: int) -> Lanes:
    lanes = Lanes([Shows(space, usual, usual, 0), Shows(space, usual, odd, at)], 4, "Shows-v0")
    lanes.reset([7, 8])
    for _ in range(steps):
        lanes.step(np.zeros(2, np.int64), None, [9, 9])
    return lanes


@pytest.mark.parametrize(("at", "where"), [(0, "the reset"), (1, "step 1"), (2, "step 2"), (37, "step 37")])
@pytest.mark.parametrize(
    ("space", "usual", "odd"),
    [
        (BYTES, np.zeros(2, np.uint8), np.array([0.9, 0.9])),
        (BYTES, np.zeros(2, np.uint8), np.array([300, 0])),
        (BOOLS, np.zeros(2, bool), np.array([2, 0])),
        (FLOATS, np.zeros(2, np.float32), np.array([np.nan, 0], np.float32)),
        (FLOATS, np.zeros(2, np.float32), np.array([1e39, 0])),
        (FLOATS, np.zeros(2, np.float32), None),
        (spaces.Box(-1, 1, (2,), np.float64), np.zeros(2), np.array([1e39, 0])),
        (spaces.Discrete(3), 0, 1.9),
        (spaces.Discrete(3), 0, [1]),
        (TREE, tree(), tree(first=1.9)),
        (spaces.Dict(a=FLOATS), {"a": np.zeros(2, np.float32)}, {"a": np.array([np.nan, 0], np.float32)}),
    ],
)
def test_at_every_step_the_environment_and_the_step_are_named(
    space: spaces.Space[Any], usual: Any, odd: Any, at: int, where: str, recwarn: pytest.WarningsRecorder
) -> None:
    part = r"\['a'\].*" if isinstance(space, spaces.Dict) else " "
    with pytest.raises(RunFailed, match=rf"^Shows-v0: environment 5 failed in {where} of .* seed 8: observation{part}"):
        run(space, usual, odd, at, 40)
    assert not recwarn.list


@pytest.mark.parametrize(("at", "seen"), [(0, True), (1, True), (2, False), (EVERY, True), (EVERY + 1, True)])
def test_ranges_of_integers_are_looked_at_in_the_reset_and_now_and_then(at: int, seen: bool) -> None:
    def go() -> Lanes:
        return run(SMALL, np.zeros(2, np.int32), np.array([10, 0], np.int32), at, EVERY + 2)

    if not seen:
        go()
        return
    with pytest.raises(RunFailed, match="holds 10"):
        go()


def test_bounds_of_floats_are_looked_at_in_the_reset_alone() -> None:
    """Physics leaves the bounds that its author wrote down, and rounding does."""
    usual, odd = np.zeros(2, np.float32), np.array([0, 1.5], np.float32)
    with pytest.raises(RunFailed, match=r"the reset .* holds 1.5 at \[1\]: its space goes from -1.0 to 1.0 there"):
        run(FLOATS, usual, odd, 0, 1)
    run(FLOATS, usual, np.array([0, 1 + 1e-6], np.float32), 0, 1)
    for at in (1, EVERY, EVERY + 1):
        run(FLOATS, usual, odd, at, EVERY + 2)


@pytest.mark.parametrize(
    ("space", "odd", "text"),
    [
        (spaces.Dict(a=spaces.Discrete(2)), {"a": 0, "z": 0}, r"has a part \['z'\], which its space has not"),
        (spaces.Dict(a=spaces.Dict(b=spaces.Discrete(2))), {"a": {"b": 0, "z": 0}}, r"has a part \['a'\]\['z'\]"),
        (spaces.Tuple((spaces.Discrete(2),)), (0, 1), r"has a part \[1\]"),
    ],
)
def test_parts_that_no_space_has_are_named_in_the_reset(space: spaces.Space[Any], odd: Any, text: str) -> None:
    with pytest.raises(RunFailed, match=text):
        run(space, odd, odd, 0, 0)


def test_where_failures_are_collected_the_other_environments_go_on() -> None:
    lanes = Lanes([Shows(BYTES, np.ones(2, np.uint8), None, at) for at in (-1, 2, -1)], 0, "Shows-v0")
    lanes.failures = {}
    lanes.reset([1, 2, 3])
    for _ in range(2):
        done = lanes.step(np.zeros(3, np.int64), None, [9] * 3)
    assert done.obs.tolist() == [[1, 1], [0, 0], [1, 1]]
    assert list(lanes.failures) == [1] and "observation is None" in str(lanes.failures[1])
