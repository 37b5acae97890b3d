"""Observations of several parts as one vector, beside Gymnasium's own `flatten`."""

import json
import time

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from probe_envs import Votes

from rltrain.config.schema import EnvConfig
from rltrain.envs.flatten import Flattener
from rltrain.envs.make_vector import make_vector_env
from rltrain.envs.space_data import space_from_plain, space_to_plain
from rltrain.envs.spaces import from_env_observation, observation_spec
from rltrain.errors import CheckpointError, RequestError, RunFailed

SHAPES = st.lists(st.integers(1, 3), max_size=3).map(tuple)
DTYPES = st.sampled_from([np.float32, np.float64, np.int64, np.int8, np.bool_, np.uint8])
INTEGERS = st.sampled_from([np.int64, np.int32, np.int8])


@st.composite
def multi_discretes(draw):
    shape = draw(SHAPES.filter(bool))
    size = int(np.prod(shape))
    numbers = [draw(st.lists(st.integers(low, 5), min_size=size, max_size=size)) for low in (1, -5)]
    nvec, start = (np.array(part).reshape(shape) for part in numbers)
    return spaces.MultiDiscrete(nvec, draw(INTEGERS), start=start)


LEAVES = st.one_of(
    st.builds(
        lambda n, start, dtype: spaces.Discrete(n, start=start, dtype=dtype),
        st.integers(1, 5),
        st.integers(-5, 5),
        INTEGERS,
    ),
    st.builds(lambda shape, dtype: spaces.Box(0, 1, shape, dtype), SHAPES, DTYPES),
    st.builds(spaces.MultiBinary, SHAPES.filter(bool) | st.integers(1, 4)),
    multi_discretes(),
)
SPACES = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        st.dictionaries(st.text("abcxyz", min_size=1, max_size=2), parts, min_size=1, max_size=3).map(spaces.Dict),
        st.lists(parts, min_size=1, max_size=3).map(lambda found: spaces.Tuple(found)),
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(SPACES, st.integers(0, 100))
def test_the_order_is_that_of_gymnasium(space, seed):
    space.seed(seed)
    flattener = Flattener(space)
    row = np.full(flattener.size, np.nan, np.float32)
    for _ in range(3):  # into the same row: nothing of the observation before may stay
        observation = space.sample()
        flattener.write(observation, row)
        np.testing.assert_array_equal(row, spaces.flatten(space, observation).astype(np.float32))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(SPACES)
def test_spaces_come_back_from_plain_data(space):
    again = space_from_plain(json.loads(json.dumps(space_to_plain(space))))
    assert type(again) is type(space)
    assert observation_spec(again) == observation_spec(space)
    space.seed(0)
    observation = space.sample()
    if not isinstance(space, spaces.Box):  # one without axes gives samples that Gymnasium warns of
        assert again == space
    assert np.array_equal(from_env_observation(again, observation), from_env_observation(space, observation))


def test_the_order_of_keys_comes_back_where_gymnasium_did_not_sort_them():
    space = spaces.Dict([("b", spaces.Discrete(2)), ("a", spaces.Discrete(3))])
    assert list(space_from_plain(json.loads(json.dumps(space_to_plain(space)))).spaces) == ["b", "a"]


def test_bounds_of_all_kinds_come_back():
    for space in (
        spaces.Box(np.iinfo(np.int64).min, np.iinfo(np.int64).max, (2,), np.int64),
        spaces.Box(0, np.iinfo(np.uint64).max, (2,), np.uint64),
        spaces.Box(-np.inf, np.inf, (), np.float64),
        spaces.Box(np.array([-np.inf, 0.1]), np.array([0.3, np.inf]), dtype=np.float64),
        spaces.Discrete(3, start=-(2**40)),
    ):
        assert space_from_plain(json.loads(json.dumps(space_to_plain(space)))) == space


def test_spaces_of_files_that_name_no_dtype_are_read():
    for plain, space in (
        ({"kind": "discrete", "n": 3, "start": -1}, spaces.Discrete(3, start=-1)),
        ({"kind": "multi_discrete", "nvec": [2, 3], "start": [0, 1], "shape": [2]},
         spaces.MultiDiscrete([2, 3], start=[0, 1])),
        ({"kind": "multi_binary", "shape": [3]}, spaces.MultiBinary(3)),
        ({"kind": "multi_binary", "shape": [2, 3]}, spaces.MultiBinary([2, 3])),
    ):  # fmt: skip
        assert space_from_plain(plain) == space


def test_images_among_the_parts_are_scaled_as_images_are():
    space = spaces.Dict(image=spaces.Box(0, 255, (1, 2), np.uint8), small=spaces.Box(0, 9, (2,), np.uint8))
    row = from_env_observation(space, {"image": np.array([[51, 255]], np.uint8), "small": np.array([0, 9], np.uint8)})
    assert row.tolist() == pytest.approx([0.2, 1.0, 0.0, 9.0])


@pytest.mark.parametrize("kind", Votes.spaces_by_kind)
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_each_kind_of_observation_reaches_the_agent(kind, vectorization):
    if vectorization == "async" and kind not in ("dict", "tuple"):
        pytest.skip("workers run the same lanes")
    config = EnvConfig("probe_envs:Votes-v0", {"kind": kind}, None, None, vectorization, None)
    envs = make_vector_env(config, 2, lambda env, number: 10 * env + number)
    try:
        obs = envs.reset()
        env = Votes(kind)
        for number in range(3):
            for lane in range(2):
                expected = env.reset(seed=10 * lane + number)[0]
                assert env.observation_space.contains(expected) or kind in ("tuple", "matrix")
                if kind in ("dict", "tuple", "multi_discrete", "multi_binary"):
                    expected = spaces.flatten(env.observation_space, expected)
                np.testing.assert_array_equal(obs[lane], expected)
            _, obs, episodes = envs.step(np.ones(2, np.int64))
            assert len(episodes) == 2
    finally:
        envs.close()


@pytest.mark.parametrize(
    ("space", "observation", "text"),
    [
        (spaces.Dict(a=spaces.Discrete(2), b=spaces.Discrete(2)), {"a": 0}, r"no part \['b'\]"),
        (spaces.Tuple((spaces.Discrete(2), spaces.Discrete(2))), (0,), r"no part \[1\]"),
        (spaces.Dict(a=spaces.Discrete(2)), 3, r"no part \['a'\]"),
        (spaces.Dict(a=spaces.Discrete(2, start=1)), {"a": 0}, r"observation\['a'\] is 0: .* from 1 to 2"),
        (spaces.Dict(a=spaces.Box(0, 1, (2,))), {"a": np.zeros(1)}, r"\['a'\] has shape \(1,\), its space \(2,\)"),
        (spaces.MultiDiscrete([2, 3]), np.array([0, 3]), r"holds 3 at \[1\]: its space goes from 0 to 2 there"),
        (spaces.MultiDiscrete([2, 3]), np.array([0, -1]), r"holds -1 at \[1\]"),
        (spaces.MultiDiscrete([2, 3]), 1, r"has shape \(\)"),
        (spaces.MultiBinary(2), np.zeros((2, 1), np.int8), r"has shape \(2, 1\)"),
        (spaces.Discrete(3, start=2), 5, "observation is 5: .* from 2 to 4"),
        (spaces.Box(0, 1, (2,)), np.zeros(()), r"has shape \(\)"),
    ],
)
def test_an_observation_that_is_not_of_its_space_is_named(space, observation, text):
    with pytest.raises(ValueError, match=text):
        from_env_observation(space, observation)


def test_a_part_that_is_not_of_its_space_stops_the_run():
    envs = make_vector_env(EnvConfig("probe_envs:Votes-v0", {}, None, None, "sync", None), 1, lambda i, k: 0)
    envs.reset()
    envs._group._envs[0].unwrapped.observe = lambda: {"side": 3}
    with pytest.raises(RunFailed, match=r"environment 0 failed in step 1 .*: observation has no part \['place'\]"):
        envs.step(np.zeros(1, np.int64))


HOSTILE = {
    "a huge Discrete": {"kind": "discrete", "n": 10**15, "start": 0},
    "a huge box": {"kind": "box", "dtype": "float64", "low": 0, "high": 1, "shape": [1 << 20, 1 << 20]},
    "sizes whose product wraps": {"kind": "box", "dtype": "uint8", "low": 0, "high": 1, "shape": [1 << 32, 1 << 32]},
    "a negative size": {"kind": "box", "dtype": "float32", "low": 0, "high": 1, "shape": [-1]},
    "a box of objects": {"kind": "box", "dtype": "object", "low": 0, "high": 1, "shape": [1]},
    "bounds of another number": {"kind": "box", "dtype": "float32", "low": [0, 1], "high": 1, "shape": [3]},
    "a huge count": {"kind": "multi_discrete", "nvec": [10**15], "start": [0], "shape": [1]},
    "counts of no whole numbers": {"kind": "multi_discrete", "dtype": "V8", "nvec": [2], "start": [0], "shape": [1]},
    "n that its dtype lacks": {"kind": "discrete", "dtype": "int8", "n": 500, "start": 0},
    "a dtype that is no text": {"kind": "discrete", "dtype": ["int8"], "n": 5, "start": 0},
    "a huge MultiBinary": {"kind": "multi_binary", "shape": [10**12]},
    "n that is no number": {"kind": "discrete", "n": "3", "start": 0},
    "no parts": {"kind": "dict"},
    "parts of one": {"kind": "dict", "parts": [["a"]]},
    "keys that are no text": {"kind": "dict", "parts": [[["a"], {"kind": "discrete", "n": 2, "start": 0}]]},
    "many large parts": {"kind": "tuple", "parts": [{"kind": "discrete", "n": 2**24, "start": 0}] * 100},
    "many small parts": {"kind": "tuple", "parts": [{"kind": "tuple", "parts": []}] * 100_000},
    "another kind": {"kind": "text"},
    "no mapping": [1],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_strangers_space_is_refused_at_once(name):
    started = time.perf_counter()
    with pytest.raises(CheckpointError, match="space is malformed"):
        space_from_plain(HOSTILE[name])
    assert time.perf_counter() - started < 5


def test_a_space_that_is_nested_too_deeply_is_refused():
    plain, space = {"kind": "discrete", "n": 2, "start": 0}, spaces.Discrete(2)
    for _ in range(40):
        plain, space = {"kind": "tuple", "parts": [plain]}, spaces.Tuple((space,))
    with pytest.raises(CheckpointError, match="too many parts"):
        space_from_plain(plain)
    with pytest.raises(RequestError, match="32 deep"):
        observation_spec(space)
