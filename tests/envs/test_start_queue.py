"""The next episodes of environments that are stepped elsewhere: of random blocks, against their numbers and seeds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_runs import env_config

from rltrain.envs.batched.block import occurrences
from rltrain.envs.batched.cartpole import CartPole
from rltrain.envs.make_vector import make_vector_env
from rltrain.envs.vector import VectorEnv
from rltrain.seeding import EpisodeSeeds, derive_seed
from rltrain.types import BlockRecords

ENVS, DEPTH = 3, 4


def start_of(env: int, number: int) -> np.ndarray:
    seed = derive_seed(5, "environment", env, number)
    return CartPole().start_state(np.random.Generator(np.random.PCG64(seed)))


def assert_holds_the_next_episodes(envs: VectorEnv, numbers: np.ndarray) -> None:
    states, begun = envs.next_starts(DEPTH)
    for env in range(ENVS):
        for ahead in range(DEPTH):
            found = states[(begun[env] + ahead) % DEPTH, :, env]
            assert np.array_equal(found, start_of(env, int(numbers[env]) + 1 + ahead)), (env, ahead)


@pytest.mark.parametrize("many", [True, False])
def test_it_holds_the_next_episodes_whatever_ended(many: bool) -> None:
    streams = [(5, env) for env in range(ENVS)]
    seeds = EpisodeSeeds("environment", streams)
    of_one = seeds if many else lambda env, number: derive_seed(5, "environment", env, number)
    config = replace(env_config("CartPole-v1"), vectorization="compiled")
    envs = make_vector_env(config, ENVS, of_one)
    envs.reset()
    generator, numbers, steps = np.random.default_rng(0), np.zeros(ENVS, np.int64), 0
    assert_holds_the_next_episodes(envs, numbers)
    for _ in range(60):
        size = int(generator.integers(1, DEPTH + 1))
        ended = generator.random((size, ENVS)) < 0.5
        length = generator.integers(1, 500, (size, ENVS))
        seen = BlockRecords(ended, length * 1.5, length, np.ones((size, ENVS), bool))
        episodes = envs.record_block(envs.now(), seen)
        expected = []
        for step, env in np.argwhere(ended).tolist():
            expected.append((env, int(numbers[env]), length[step, env] * 1.5, int(length[step, env])))
            numbers[env] += 1
        assert [(e.env, e.number, e.episode_return, e.length) for e in episodes] == expected
        assert_holds_the_next_episodes(envs, numbers)
        steps += size
    assert numbers.min() > 3 * DEPTH
    assert envs.state_dict()["episode"].tolist() == numbers.tolist()


def test_occurrences_count_what_stands_before() -> None:
    lanes = np.random.default_rng(0).integers(0, 5, 200)
    expected = [int((lanes[:place] == lane).sum()) for place, lane in enumerate(lanes)]
    assert occurrences(lanes).tolist() == expected
    assert occurrences(np.empty(0, np.int64)).tolist() == []
