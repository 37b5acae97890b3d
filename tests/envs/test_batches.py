"""Batches of observations told from single ones, for `policy.act`."""

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array

from rltrain.envs.batches import observations_in
from rltrain.envs.observed import NotOfSpace
from rltrain.envs.spaces import from_env_observation

PIXELS = spaces.Box(0, 255, (2, 3), np.uint8)
PARTS = spaces.Dict({"b": spaces.Discrete(3), "a": spaces.Tuple([PIXELS, spaces.MultiDiscrete([2, 2])])})


@pytest.mark.parametrize(
    "space",
    [spaces.Box(-1, 1, (4,)), spaces.Box(-1, 1, ()), PIXELS, spaces.Discrete(4, start=-1), spaces.MultiBinary([2, 2]),
     spaces.MultiDiscrete([3, 4]), spaces.Tuple([spaces.Discrete(3), spaces.Discrete(2)]), PARTS],
    ids=lambda space: type(space).__name__,
)  # fmt: skip
@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_batch_is_told_from_one_observation_by_its_shape(space, size):
    """Against Gymnasium's own batches, those of its vector environments."""
    space.seed(0)
    alone = [space.sample() for _ in range(size)]
    together = create_empty_array(space, n=size)
    together = concatenate(space, alone, together) if size else together
    found = observations_in(space, together)
    assert found is not None and len(found) == size
    for one, expected in zip(found, alone, strict=True):
        assert np.array_equal(from_env_observation(space, one), from_env_observation(space, expected))
    for one in alone:
        assert observations_in(space, one) is None
    if size:
        assert len(observations_in(space, list(alone))) == size


def test_tuples_of_tuples_are_no_batch_of_their_columns():
    """Three hands of Blackjack as a list: not three sums, three cards, three aces."""
    space = spaces.Tuple([spaces.Discrete(32), spaces.Discrete(11), spaces.Discrete(2)])
    hands = [(1, 2, 0), (3, 4, 1), (5, 6, 0)]
    assert observations_in(space, hands) == hands
    assert observations_in(space, tuple(hands)) is None and observations_in(space, [1, 2, 0]) is None
    with pytest.raises(ValueError, match="batches of 2 and 3"):
        observations_in(space, tuple(np.zeros(size, int) for size in (2, 3, 2)))
    assert observations_in(spaces.Dict(a=spaces.Discrete(2)), {"b": np.zeros(3, int)}) is None


@pytest.mark.parametrize(
    "space",
    [spaces.Box(-1, 1, (4,)), spaces.Discrete(3), spaces.MultiDiscrete([3, 4]), PARTS,
     spaces.Tuple([spaces.Discrete(3)] * 2)],
    ids=lambda space: type(space).__name__,
)  # fmt: skip
@pytest.mark.parametrize("info", [{}, {"lives": 3}], ids=["", "info"])
def test_what_reset_returns_is_told_from_an_observation(space, info):
    with pytest.raises(NotOfSpace, match=r"^observation is the pair that env.reset\(\) returns"):
        observations_in(space, (space.sample(), info))


def test_a_pair_with_a_dict_may_be_an_observation():
    space = spaces.Tuple([spaces.Discrete(3), spaces.Dict(a=spaces.Discrete(2))])
    assert observations_in(space, space.sample()) is None


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (4,)), spaces.Discrete(3), spaces.MultiBinary(3)], ids=str)
@pytest.mark.parametrize("given", [[[0, 0], [0]], [np.zeros(4), np.zeros(3)], [[0], 0]], ids=str)
def test_lists_of_different_lengths_are_of_no_space(space, given):
    assert observations_in(space, given) is None
    with pytest.raises(NotOfSpace, match=r"^observation is .*: its space holds"):
        from_env_observation(space, given)
