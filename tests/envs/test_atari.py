"""Atari games against a game that was just loaded, Gymnasium's preprocessing and ale-py's own vector environment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from small_runs import env_config

from rltrain.config.wrappers import AtariConfig, FrameStackConfig
from rltrain.envs.atari import LIFE_LOST, Atari, Game, no_ops
from rltrain.envs.choice import choose_exact
from rltrain.envs.make import find_environment
from rltrain.envs.make_vector import make_vector_env
from rltrain.envs.vector import VectorEnv
from rltrain.errors import RequestError
from rltrain.seeding import derive_seed

ale_py = pytest.importorskip("ale_py")
pytest.importorskip("cv2")

ATARI = AtariConfig("atari")


def base(game: str = "breakout", **kwargs: Any) -> Any:
    return ale_py.AtariEnv(game=game, frameskip=1, **kwargs)


def loaded(env: Any, seed: int) -> None:
    env.ale.setInt("random_seed", seed)
    env.load_game()
    env.ale.reset_game()


def frames(env: Any, count: int, seed: int = 0) -> list[tuple[Any, ...]]:
    """Screen, memory and reward of frames with random actions."""
    actions, rng = env._action_set, np.random.default_rng(seed)
    rewards = [env.ale.act(actions[rng.integers(len(actions))], 1.0) for _ in range(count - 1)]
    return [*rewards, env.ale.getScreenGrayscale().tobytes(), env.ale.getRAM().tobytes()]


# Of the games in which a restored state alone, or a reset alone, does not lead to what a loaded game does.
@pytest.mark.parametrize("name", ["tetris", pytest.param("solaris", marks=pytest.mark.slow)])
def test_an_episode_begins_as_in_a_game_that_was_just_loaded(name: str) -> None:
    env, other = base(name), base(name)
    game = Game(env, env.ale.getScreenGrayscale)
    game.begin(3)
    frames(env, 200)
    game.begin(2**31 - 5)
    loaded(other, 2**31 - 5)
    assert np.array_equal(game.screen, other.ale.getScreenGrayscale())
    assert frames(env, 100, 1) == frames(other, 100, 1)
    game.begin(4)
    assert frames(env, 100, 1) != frames(other, 100, 1), "sticky actions are another seed's"


def test_where_the_emulator_saves_otherwise_each_episode_loads_the_game(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rltrain.envs.atari._saved_generator", lambda seed: b"no such text")
    env, other = base(), base()
    game = Game(env, env.ale.getScreenGrayscale)
    game.begin(3)
    game.begin(4)
    loaded(other, 4)
    assert frames(env, 60) == frames(other, 60)


def test_waiting_times_are_spread_over_all_lengths() -> None:
    waits = [no_ops(seed, 3) for seed in range(400)]
    assert np.bincount(waits).min() > 70 and set(waits) == {0, 1, 2, 3}
    assert {no_ops(seed, 0) for seed in range(9)} == {0}


def test_steps_are_those_of_gymnasiums_preprocessing() -> None:
    """From one state of the emulator on; rewards, and the ends of episodes, too."""
    ours = Atari(base(), ATARI)
    theirs = gymnasium.wrappers.AtariPreprocessing(base(), noop_max=0, frame_skip=4)
    ours.reset(seed=1), theirs.reset(seed=1)
    theirs.ale.restoreState(ours.env.unwrapped.ale.cloneState(include_rng=True))
    rng, rewarded, ended = np.random.default_rng(0), 0.0, False
    while not ended:
        action = int(rng.integers(4))
        obs, reward, ended, _, _ = ours.step(action)
        same, gained, theirs_ended, _, _ = theirs.step(action)
        assert (reward, ended) == (gained, theirs_ended)
        assert ended or np.array_equal(obs, same)
        rewarded += reward
    assert rewarded > 0 and obs.shape == (84, 84) and obs.dtype == np.uint8


def make(num_envs: int = 2, limit: int | None = 60, vectorization: str = "sync", **kwargs: Any) -> VectorEnv:
    wrappers = AtariConfig("atari", terminal_on_life_loss=True), FrameStackConfig("frame_stack")
    config = replace(env_config("ALE/Breakout-v5", **kwargs), max_episode_steps=limit, wrappers=wrappers,
                     vectorization=vectorization, reward_clip=0.5)  # fmt: skip
    return make_vector_env(config, num_envs, lambda env, number: derive_seed(0, "environment", env, number))


@pytest.fixture
def envs() -> Iterator[VectorEnv]:
    made = make()
    yield made
    made.close()


def drive(envs: VectorEnv, steps: int, seed: int = 0) -> list[tuple[Any, ...]]:
    rng, seen = np.random.default_rng(seed), []
    for _ in range(steps):
        done, obs, episodes = envs.step(rng.integers(0, 4, envs.num_envs))
        arrays = done.obs, done.next_obs, done.reward, done.terminated, done.truncated, obs
        seen.append((*(array.tobytes() for array in arrays), episodes))
    return seen


def test_lives_end_what_is_learned_and_episodes_replay(envs: VectorEnv) -> None:
    first = envs.reset()
    assert (first.shape, first.dtype) == ((2, 4, 84, 84), np.uint8)
    rng, lost, returns, rewards = np.random.default_rng(0), 0, 0.0, set[float]()
    for _ in range(100):
        done, _, episodes = envs.step(rng.integers(0, 4, 2))
        lost += int((done.terminated & ~done.truncated).sum())
        rewards |= set(done.reward.tolist())
        returns += sum(episode.episode_return for episode in episodes)
        assert all(episode.length == 60 for episode in episodes), "the limit counts the agent's steps"
    assert lost > 0 and rewards == {0.0, 0.5} and returns == int(returns) > 0, "returns are not clipped"
    other = make()
    assert other.load_state_dict(envs.state_dict())[1]
    assert drive(envs, 30) == drive(other, 30)
    other.close()


@pytest.mark.parametrize("continuous", [False, True])
def test_the_game_itself_skips_no_frame(continuous: bool) -> None:
    """Of the frames that an episode has, four are each step's."""
    envs = make(1, continuous=continuous)
    envs.reset()
    game: Any = envs._group._envs[0].unwrapped  # type: ignore[attr-defined]
    before = game.ale.getEpisodeFrameNumber()
    for _ in range(5):
        envs.step(np.zeros((1, 3), np.float32) if continuous else np.zeros(1, np.int64))
    assert game.ale.getEpisodeFrameNumber() - before == 20
    envs.close()


def test_episodes_are_limited_to_108_000_frames() -> None:
    envs = make(1, limit=None)
    assert envs.max_episode_steps == 27_000
    envs.close()


def test_games_are_those_of_the_vector_environment_of_ale_py() -> None:
    """Several episodes with seeds of their own, to their ends: frames, rewards, lives."""
    native = ale_py.AtariVectorEnv(
        "breakout", 1, stack_num=1, noop_max=ATARI.noop_max + 1, use_fire_reset=False, reward_clipping=False,
        repeat_action_probability=0.25,
    )  # fmt: skip
    ours, rng = Atari(base(), ATARI), np.random.default_rng(0)
    for seed in (0, 7, 2**31 - 1):
        obs, _ = ours.reset(seed=seed)
        theirs, info = native.reset(seed=np.array([seed]))
        ended, lives = False, info["lives"][0]
        while not ended:
            assert np.array_equal(obs, theirs[0, 0])
            action = int(rng.integers(4))
            obs, reward, ended, _, told = ours.step(action)
            theirs, gained, terminated, _, info = native.step(np.array([action]))
            lost, lives = info["lives"][0] < lives, info["lives"][0]
            assert (reward, ended, told[LIFE_LOST]) == (gained[0], terminated[0], lost)


@pytest.mark.parametrize("limit", [5, pytest.param(27_000, marks=pytest.mark.slow)])
def test_the_threads_of_ale_py_give_the_same_bit_for_bit(limit: int) -> None:
    """Episodes with seeds of their own, cut or not; lives, environments that idle, episodes that are taken up again."""
    plain, native = (make(3, limit=limit, vectorization=way) for way in ("sync", "native"))
    assert plain.observation_spec == native.observation_spec and plain.max_episode_steps == native.max_episode_steps
    rng = np.random.default_rng(2)
    try:
        assert np.array_equal(plain.reset(), native.reset())
        for step in range(8 if limit == 5 else 400):
            action, active = rng.integers(0, 4, 3), rng.random(3) < 0.7
            first, second = (envs.step(action, active) for envs in (plain, native))
            for name in ("obs", "next_obs", "reward", "terminated", "truncated"):
                assert np.array_equal(getattr(first[0], name)[active], getattr(second[0], name)[active])
            assert np.array_equal(first[1], second[1]) and first[2] == second[2]
            if step == 3:
                state, other = native.state_dict(), make(3, limit=limit, vectorization="native")
                native.close()
                native = other
                assert native.load_state_dict(state)[1]
        plain.reset(), native.reset()  # other episodes than those that are prepared
        assert drive(plain, 12) == drive(native, 12)
    finally:
        plain.close(), native.close()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"kwargs": {"mode": 4}}, r"env\.kwargs\.mode: ale-py's vector environment has no such setting"),
        ({"wrappers": ()}, r"env\.vectorization=native: is for env\.wrappers=\[atari"),
        (
            {"kwargs": {"obs_type": "ram"}, "vectorization": "sync"},
            r"env\.kwargs\.obs_type=ram: env\.wrappers",
        ),
        ({"kwargs": {"sound_obs": True}, "vectorization": "sync"}, r"env\.kwargs\.sound_obs=True: env\.wrappers"),
        ({"kwargs": {"repeat_action_probability": 2}}, r"repeat_action_probability=2: must be a probability, 0 to 1"),
        ({"kwargs": {"repeat_action_probability": -1}, "vectorization": "sync"}, "=-1: must be a probability, 0 to 1"),
    ],
)
def test_what_ale_py_cannot_do_is_refused(change: dict[str, Any], why: str) -> None:
    config = replace(env_config("ALE/Breakout-v5"), **{"wrappers": (ATARI,), "vectorization": "native", **change})
    with pytest.raises(RequestError, match=why):
        find_environment(config)


def test_threads_are_taken_where_they_have_cores_to_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(env_config("ALE/Breakout-v5"), wrappers=(ATARI,), vectorization="auto")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)))
    assert choose_exact(config, 4).way == "native"
    for other in (config, 3), (replace(config, kwargs={"mode": 4}), 4), (replace(config, wrappers=()), 4):
        assert choose_exact(*other).way == "sync"
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    assert choose_exact(config, 64).way == "sync"
