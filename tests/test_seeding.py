"""Random streams: one per purpose, that share nothing, continue across a resume, and stay as checkpoints know them."""

from __future__ import annotations

import copy
import itertools
import json
from typing import Literal, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rltrain.seeding import EpisodeSeeds, Purpose, RandomBlock, derive_seed, first_draws, make_generator

Kind = Literal["uniform", "normal"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


def block_of(kind: Kind, block_size: int, seed: int = 0) -> RandomBlock:
    return RandomBlock(make_generator(seed, "exploration"), kind, block_size)


def reference(kind: Kind, count: int) -> np.ndarray:
    generator = make_generator(0, "exploration")
    return generator.random(count) if kind == "uniform" else generator.standard_normal(count)


counts = st.lists(st.integers(0, 23), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(
    before=counts, after=counts, block_size=st.integers(1, 16), kind=st.sampled_from(["uniform", "normal"]),
    through_json=st.booleans(),
)  # fmt: skip
def test_a_block_draws_the_stream_and_a_resumed_one_continues_it(
    before: list[int], after: list[int], block_size: int, kind: Kind, through_json: bool
) -> None:
    block = block_of(kind, block_size)
    drawn = [block.take(count).copy() for count in before]
    state = block.state_dict()
    state = json.loads(json.dumps(state)) if through_json else copy.deepcopy(state)
    resumed = block_of(kind, block_size, seed=99)
    resumed.take(5)
    resumed.load_state_dict(state)
    drawn += [block.take(count).copy() for count in after]
    assert np.array_equal(np.concatenate(drawn), reference(kind, sum(before) + sum(after)))
    continued = [resumed.take(count).copy() for count in after]
    assert np.array_equal(np.concatenate(continued), np.concatenate(drawn[len(before) :]))
    assert resumed.state_dict() == block.state_dict()


def test_draws_that_were_handed_out_stay_as_they_are() -> None:
    block = block_of("uniform", 8)
    first = block.take(3)
    kept = first.copy()
    block.take(100)
    assert np.array_equal(first, kept)


def test_all_streams_of_neighbouring_seeds_share_nothing() -> None:
    """16 draws each of 11 seeds, 10 purposes, 5 users: 8,800 numbers of 53 bits, no two alike."""
    generators = [
        make_generator(seed, purpose, *keys)
        for seed in [*range(9), 2**31, 2**32]
        for purpose in PURPOSES
        for keys in [(), (0,), (1,), (0, 0), (0, 1)]
    ]
    draws = np.concatenate([generator.random(16) for generator in generators])
    assert len(np.unique(draws)) == len(draws) == 8800


def test_every_episode_of_every_environment_and_seed_has_a_seed_of_its_own() -> None:
    seeds = [
        derive_seed(seed, "environment", env, number)
        for seed, env, number in itertools.product(range(20), range(8), range(40))
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
    gaps = np.abs(np.diff(np.sort(seeds)))
    assert np.median(gaps) > 1000  # spread over the range, not counted up


def test_evaluation_never_sees_a_training_episode() -> None:
    training = {derive_seed(0, "environment", env, number) for env in range(8) for number in range(500)}
    evaluation = {
        derive_seed(0, "evaluation", key, episode) for key in range(0, 50_000, 5000) for episode in range(100)
    }
    assert not training & evaluation
    assert len(evaluation) == 1000


def test_the_streams_are_those_that_checkpoints_were_written_with() -> None:
    """Numbers of the first version: renumbering a purpose would make every resumed run another one."""
    assert [derive_seed(0, purpose) for purpose in PURPOSES] == [
        1878776328,
        336614359,
        1620722436,
        1842996703,
        608273276,
        1039430863,
        1235561164,
        11506308,
        1515805091,
        1488067860,
    ]
    assert derive_seed(7, "environment", 3, 11) == 310283510
    assert make_generator(0, "replay").random() == 0.6771968569751019


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_stream_is_a_function_of_its_seed_purpose_and_keys(purpose: Purpose) -> None:
    assert np.array_equal(make_generator(5, purpose, 2).random(4), make_generator(5, purpose, 2).random(4))
    assert derive_seed(5, purpose, 2) == derive_seed(5, purpose, 2)


@pytest.mark.parametrize("keys", [(), (3,), (2**32 + 5, 9)])
def test_seeds_derived_together_are_those_derived_one_by_one(keys: tuple[int, ...]) -> None:
    seeds = (0, 7, 2**31 - 1, 2**32, 2**40 + 3, 2**130 + 1)
    seeds_of = EpisodeSeeds("environment", [(seed, *keys) for seed in seeds])
    for numbers in ([0, 1, 63, 64, 1000, 2**31, 2**32 - 1], [5]):
        pairs = [(env, number) for env in range(len(seeds)) for number in numbers]
        together = seeds_of.many(*(np.array(column) for column in zip(*pairs, strict=True)))
        assert together.tolist() == [derive_seed(seeds[env], "environment", *keys, number) for env, number in pairs]


def test_episode_seeds_are_derived_seeds_in_any_order() -> None:
    streams = [(0, 0), (0, 1), (1, 0)]
    seed_of = EpisodeSeeds("evaluation", streams, block_size=4)
    for env, number in [(0, 0), (0, 3), (1, 4), (2, 4), (0, 4), (0, 1), (1, 400)]:
        assert seed_of(env, number) == derive_seed(streams[env][0], "evaluation", *streams[env][1:], number)


def test_the_first_numbers_of_many_generators_are_those_of_each() -> None:
    seeds = [0, 1, 2, 12345, 2**31 - 1, 2**32 - 1, *np.random.default_rng(0).integers(0, 2**32, 2000).tolist()]
    expected = np.array([np.random.Generator(np.random.PCG64(seed)).random(5) for seed in seeds]).T
    assert np.array_equal(first_draws(np.array(seeds), 5), expected)
