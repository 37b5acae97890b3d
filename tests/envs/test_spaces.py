import numpy as np
import pytest
import torch
from gymnasium import spaces

from rltrain.config.schema import EnvConfig
from rltrain.engine.stepping import make_to_env
from rltrain.envs.make_vector import make_vector_env
from rltrain.envs.spaces import (
    action_limits,
    action_spec,
    from_env_observation,
    make_action_transform,
    observation_spec,
    to_env_action,
)
from rltrain.errors import RequestError, RunFailed
from rltrain.types import ActionScale, ObservationSpec


def make(id):
    return make_vector_env(EnvConfig(id, {}, None, None, "sync", None), 2, lambda env, number: 10 * env + number)


@pytest.mark.parametrize(
    ("space", "spec"),
    [
        (spaces.Box(-1, 1, (3,), np.float64), ObservationSpec("box", (3,), "float64")),
        (spaces.Box(0, 9, (2, 2), np.int32), ObservationSpec("box", (2, 2), "float64")),
        (spaces.Box(0, 9, (2, 2), np.int16), ObservationSpec("box", (2, 2), "float32")),
        (spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(0, 9, (), np.int64)), ObservationSpec("box", (3,), "float64")),
        (spaces.Box(0, 1, (4,), np.bool_), ObservationSpec("box", (4,), "bool")),
        (spaces.Box(0, 255, (3, 4, 2), np.uint8), ObservationSpec("box", (3, 4, 2), "uint8")),
        (spaces.Box(0, 255, (128,), np.uint8), ObservationSpec("box", (128,), "uint8")),
        (spaces.Box(0, 254, (128,), np.uint8), ObservationSpec("box", (128,), "float32")),
        (spaces.Box(0, 1, ()), ObservationSpec("box", (), "float32")),
        (spaces.MultiBinary((2, 3)), ObservationSpec("box", (6,), "float32")),
        (spaces.MultiDiscrete([2, 3], start=[1, -1]), ObservationSpec("box", (5,), "float32")),
        (spaces.Dict(b=spaces.Discrete(3), a=spaces.Box(0, 1, (2, 2))), ObservationSpec("box", (7,), "float32")),
        (
            spaces.Tuple((spaces.Discrete(3), spaces.Tuple((spaces.MultiBinary(2),)))),
            ObservationSpec("box", (5,), "float32"),
        ),
        (spaces.Discrete(4, start=-2), ObservationSpec("discrete", (), "int64", 4)),
    ],
)
def test_observation_specs(space, spec):
    assert observation_spec(space) == spec


@pytest.mark.parametrize(
    "space", [spaces.Tuple([spaces.MultiBinary(3)]), spaces.Text(3), spaces.Dict(a=spaces.Discrete(2))]
)
def test_actions_of_other_spaces_are_refused_by_name(space):
    with pytest.raises(RequestError, match=f"action space {type(space).__name__} is not supported"):
        action_spec(space)


@pytest.mark.parametrize(
    ("space", "sizes", "agents", "own"),
    [
        (spaces.MultiDiscrete([2, 3], start=[5, -1]), (2, 3), [1, 2], np.array([6, 1])),
        (spaces.MultiDiscrete([[4], [2]]), (4, 2), [[3], [0]], np.array([[3], [0]])),
        (spaces.MultiDiscrete([3, 2], dtype=np.int8), (3, 2), [2, 1], np.array([2, 1], np.int8)),
        (spaces.MultiBinary((2, 2)), (2, 2, 2, 2), [[0, 1], [1, 0]], np.array([[0, 1], [1, 0]], np.int8)),
    ],
)
def test_several_numbers_at_once_are_shifted_and_of_the_space_s_kind(space, sizes, agents, own):
    spec = action_spec(space)
    assert (spec.kind, spec.shape, spec.sizes, spec.dtype) == ("multi_discrete", space.shape, sizes, "int64")
    given = np.array(agents)
    taken = to_env_action(space, given)
    assert space.contains(taken) and taken.dtype == own.dtype and np.array_equal(taken, own)
    assert not np.shares_memory(taken, given)
    to_env = make_to_env(0, ActionScale(*action_limits(space), str(space.dtype)), torch.device("cpu"))
    in_program = to_env(torch.from_numpy(given)[None])  # [*action, L]
    assert np.array_equal(in_program.movedim(-1, 0)[0].numpy(), own)


def test_a_number_outside_its_own_choices_is_refused():
    envs = make("probe_envs:Lock-v0")  # of 2, 3 and 4 choices
    envs.reset()
    envs.step(np.array([[1, 2, 3], [0, 0, 0]]))
    for wrong in ([2, 0, 0], [0, -1, 0]):
        with pytest.raises(RunFailed, match=r"the agent's action is outside 0..\[1, 2, 3\]"):
            envs.step(np.array([[0, 0, 0], wrong]))


def test_a_box_without_numbers_is_refused():
    for kind, spec in (("observation", observation_spec), ("action", action_spec)):
        with pytest.raises(RequestError, match=f"{kind} space .* holds no number"):
            spec(spaces.Box(0, 1, (0,)))


def test_discrete_with_a_start_is_shifted_both_ways():
    envs = make("probe_envs:Shifted-v0")
    assert (envs.action_spec.n, envs.observation_spec.n) == (3, 4)
    assert envs.reset().tolist() == [3, 3]  # the environment shows 1, its space starts at -2
    _, obs, _ = envs.step(np.array([0, 2]))  # 5 and 7 for the environment, which then shows -2 and 0
    assert obs.tolist() == [0, 2]
    assert obs.dtype == np.int64
    assert to_env_action(spaces.Discrete(3, start=5), np.int64(2)) == 7
    assert from_env_observation(spaces.Discrete(4, start=-2), -1) == 1


def test_box_actions_are_scaled_and_clipped_at_the_door():
    envs = make("probe_envs:EchoBox-v0")  # bounds [-2, 6], [0, inf), (-inf, 1], none
    spec = envs.action_spec
    assert np.array_equal(spec.low, np.array([-2, 0, -np.inf, -np.inf], np.float32))
    assert np.array_equal(spec.high, np.array([6, np.inf, 1, np.inf], np.float32))
    envs.reset()
    for agent, env in [
        ([-1, 0.5, 0.5, 0.5], [-2, 0.5, 0.5, 0.5]),
        ([1, -1, 3, 1e6], [6, 0, 1, 1e6]),
        ([0.5, 7, -8, -9], [4, 7, -8, -9]),
        ([-1.5, 0, 0, 0], [-2, 0, 0, 0]),
        ([2, 0, 0, 0], [6, 0, 0, 0]),
    ]:
        action = np.array([agent, [0, 0, 0, 0]], np.float32)
        transition, _, _ = envs.step(action)
        assert np.array_equal(transition.next_obs, np.array([env, [2, 0, 0, 0]], np.float32))
        assert np.array_equal(transition.action, np.array([agent, [0, 0, 0, 0]], np.float32))  # as the agent chose it


def test_the_largest_float_is_no_bound():
    largest = float(np.finfo(np.float32).max)
    space = spaces.Box(np.float32(-largest), np.float32(largest), (1,), np.float32)
    assert np.isinf(action_spec(space).high).all()
    assert make_action_transform(space)(np.array([[0.25]], np.float32)).tolist() == [[0.25]]


def test_actions_have_the_dtype_of_the_space():
    for dtype in (np.float32, np.float64):
        assert make_action_transform(spaces.Box(-1, 1, (1,), dtype))(np.zeros((2, 1), np.float32)).dtype == dtype


def test_an_action_without_axes_reaches_the_environment_as_an_array():
    envs = make("probe_envs:Aim-v0")  # asserts it
    envs.reset()
    transition, _, _ = envs.step(np.array([0.5, 9.0], np.float32))
    assert transition.reward.tolist() == [0.0, -1.0]  # 3 is the best, 4 the bound
    action = to_env_action(spaces.Box(0.0, 4.0, ()), np.float32(0.5))
    assert type(action) is np.ndarray and action.shape == () and action == 3.0


def test_images_stay_uint8():
    envs = make("probe_envs:Images-v0")
    obs = envs.reset()
    assert (obs.dtype, obs.shape, obs.max()) == (np.uint8, (2, 3, 4, 2), 200)


def test_float64_observations_become_float32():
    envs = make("probe_envs:Walk-v0")
    obs = envs.reset()
    assert obs.dtype == np.float32
    assert np.array_equal(obs[1], np.random.Generator(np.random.PCG64(10)).normal(size=2).astype(np.float32))
