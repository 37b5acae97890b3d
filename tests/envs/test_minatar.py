"""MinAtar: episodes that their seed and actions determine, observations of one byte, a limit of steps."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from rltrain.config.env_families import MINATAR_STEPS, register_family
from rltrain.config.schema import EnvConfig
from rltrain.envs.make import find_environment
from rltrain.envs.make_vector import make_vector_env

pytest.importorskip("minatar")

GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
CHANNELS = {"Asterix": 4, "Breakout": 4, "Freeway": 7, "Seaquest": 10, "SpaceInvaders": 6}


def config(game: str, version: int = 1) -> EnvConfig:
    return EnvConfig(f"MinAtar/{game}-v{version}", {}, None, None, "sync", None)


@pytest.mark.parametrize("game", GAMES)
def test_an_episode_depends_on_its_seed_and_actions_alone(game: str) -> None:
    """Also on no episode before it: a first step that is sticky repeats an action, and the game keeps its last one."""
    used, fresh = find_environment(config(game))(), find_environment(config(game))()
    n, generator = int(used.action_space.n), np.random.default_rng(0)  # type: ignore[attr-defined]
    for seed in range(30):
        used.step(n - 1) if seed else used.reset(seed=99)
        actions = generator.integers(0, n, 6).tolist()
        for env in (used, fresh):
            env.reset(seed=seed)
        fresh.unwrapped.game.last_action = 0  # type: ignore[attr-defined]
        for action in actions:
            (obs, *rest), (expected, *others) = used.step(action), fresh.step(action)
            assert np.array_equal(obs, expected) and rest == others
            if rest[1]:
                break
        fresh = find_environment(config(game))()


@pytest.mark.parametrize("game", GAMES)
def test_observations_are_bools_of_one_byte(game: str) -> None:
    envs = make_vector_env(config(game, 0), 2, lambda env, number: 10 * env + number)
    assert envs.observation_spec.shape == (10, 10, CHANNELS[game])
    assert envs.action_spec.n == 6
    assert envs.max_episode_steps == MINATAR_STEPS
    obs = envs.reset()
    assert obs.dtype == np.bool_ and obs.nbytes == 2 * 100 * CHANNELS[game]
    transition, _, _ = envs.step(np.zeros(2, np.int64))
    assert transition.next_obs.dtype == np.bool_


def test_a_picture_is_large_enough_to_be_looked_at() -> None:
    register_family("MinAtar/Breakout-v1")
    env = gymnasium.make("MinAtar/Breakout-v1", render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert isinstance(picture, np.ndarray)
    assert (picture.shape, picture.dtype) == ((240, 240, 3), np.uint8)
    assert picture.max() > 100
