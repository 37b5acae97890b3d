"""The batched twins of MinAtar's games against the package: every number, draws too, also from rare situations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
import torch
from halves import often

from rltrain.config.env_families import register_family
from rltrain.envs.batched import BATCHED_ENVS
from rltrain.envs.batched.minatar.draws import WORDS, Draws, first_words

pytest.importorskip("minatar")
pytestmark = pytest.mark.filterwarnings("ignore:.*out of date")
register_family("MinAtar/Breakout-v1")

Rng = np.random.Generator


class Case(NamedTuple):
    rows: Callable[[Any], list[Any]]  # of a game of the package, as the twin has them
    play: Callable[[Any, Rng], int]  # an action, of all six, that keeps alive and scores
    disturb: Callable[[Any, Rng], None]  # brings the game into a situation that is rare
    in_order: Callable[[np.ndarray], np.ndarray] = np.asarray  # a twin's rows as `rows` has them
    goes_on: bool = False  # every second game is played on after its end, for more of what is dense


def breakout_rows(game: Any) -> list[Any]:
    ball = [game.ball_x, game.ball_y, game.ball_dir, game.strike, game.last_x, game.last_y]
    return [game.pos, *ball, *game.brick_map.ravel()]


def play_breakout(game: Any, rng: Rng) -> int:
    ahead = game.ball_x + (1 if game.ball_dir in (1, 2) else -1)
    goal = game.ball_x if rng.random() < 0.7 else ahead
    return 1 if game.pos > goal else 3 if game.pos < goal else 0


def disturb_breakout(game: Any, rng: Rng) -> None:
    game.brick_map[1:4] = rng.random((3, 10)) < rng.choice([0.02, 0.5, 1.0])
    game.ball_x, game.ball_y, game.ball_dir = rng.integers(10), rng.integers(9), rng.integers(4)


def freeway_rows(game: Any) -> list[Any]:
    columns = np.array([[x, timer, speed] for x, _, timer, speed in game.cars]).T
    return [game.pos, game.move_timer, game.terminate_timer, *columns.ravel()]


def play_freeway(game: Any, rng: Rng) -> int:
    return 2 if rng.random() < 0.9 else 4


def disturb_freeway(game: Any, rng: Rng) -> None:
    game.pos, game.move_timer = int(rng.integers(1, 10)), int(rng.integers(4))
    game.terminate_timer = int(rng.integers(300) if rng.random() < 0.5 else rng.integers(10))


def asterix_rows(game: Any) -> list[Any]:
    speeds = [game.spawn_speed, game.spawn_timer, game.move_speed, game.move_timer, game.ramp_timer, game.ramp_index]
    columns = np.array([[-9, ANY, ANY] if e is None else [e[0], e[2], e[3]] for e in game.entities]).T
    return [game.player_x, game.player_y, *speeds, *columns.ravel()]


def play_asterix(game: Any, rng: Rng) -> int:
    near = game.entities[game.player_y - 1]
    if near is not None and not near[3]:
        return int(rng.choice([2, 4]))
    return int(rng.integers(5))


def disturb_asterix(game: Any, rng: Rng) -> None:
    game.spawn_speed, game.move_speed = int(rng.integers(1, 11)), int(rng.integers(1, 6))
    game.spawn_timer, game.move_timer = int(rng.integers(3)), int(rng.integers(3))
    game.ramp_timer, game.ramp_index = int(rng.integers(-1, 10)), int(rng.integers(2))
    for slot in range(8):
        if rng.random() < 0.5:
            game.entities[slot] = None


def space_invaders_rows(game: Any) -> list[Any]:
    timers = [game.alien_move_timer, game.alien_shot_timer, game.ramp_index]
    maps = [game.alien_map.ravel(), game.f_bullet_map.ravel(), game.e_bullet_map.ravel()]
    return [game.pos, game.shot_timer, game.alien_dir, game.enemy_move_interval, *timers, *np.concatenate(maps)]


def play_space_invaders(game: Any, rng: Rng) -> int:
    if game.e_bullet_map[7:9, game.pos].any():
        return int(rng.choice([1, 3]))
    return int(rng.choice([5, 5, 1, 3]))


def disturb_space_invaders(game: Any, rng: Rng) -> None:
    kept = rng.random((10, 10)) < rng.choice([0.1, 0.5])
    game.alien_map = np.roll(game.alien_map, rng.integers(3), 0) * kept
    game.alien_map[rng.integers(7), rng.integers(10)] = 1
    game.alien_move_timer, game.alien_shot_timer = int(rng.integers(3)), int(rng.integers(10))


def seaquest_rows(game: Any) -> list[Any]:
    player = [game.oxygen, game.diver_count, game.sub_x, game.sub_y, game.sub_or]
    timers = [game.e_spawn_speed, game.e_spawn_timer, game.d_spawn_timer, game.move_speed, game.ramp_index]
    subs = [[*sub, True] for sub in reversed(game.e_subs)]
    fish = [[*each, ANY, False] for each in reversed(game.e_fish)]
    slots = [np.full((kinds, count), ANY) for kinds, count in ((3, 2), (4, 2), (6, 30))]
    for array, things in zip(slots, (game.f_bullets[::-1], game.divers[::-1], subs + fish), strict=True):
        array[0] = -9
        array[:, : len(things)] = np.array(things, int).reshape(-1, len(array)).T
    theirs = np.zeros((2, 10, 10))
    for x, y, right in game.e_bullets:
        theirs[0 if right else 1, y, x] = 1
    rows = [*player, *timers, game.shot_timer, game.surface]
    return [*rows, *np.concatenate([array.ravel() for array in (*slots, theirs)])]


def seaquest_in_order(rows: np.ndarray) -> np.ndarray:
    """A twin's rows [406] with free slots last, and submarines before fish, as the package's lists are shown."""
    rows, first = rows.copy(), 12
    for kinds, count in ((3, 2), (4, 2), (6, 30)):
        array = rows[first : first + kinds * count].reshape(kinds, count)
        group = np.where(array[0] < 0, 2, 1 - array[5] if kinds == 6 else 0)
        array[:] = array[:, np.argsort(group, kind="stable")]
        first += kinds * count
    return rows


def play_seaquest(game: Any, rng: Rng) -> int:
    if game.oxygen < 40 and game.diver_count:
        return 2
    return int(rng.choice([0, 1, 1, 3, 3, 4, 4 if game.sub_y < 4 else 2, 5, 5, 5]))


def disturb_seaquest(game: Any, rng: Rng) -> None:
    game.diver_count, game.oxygen = int(rng.integers(7)), int(rng.integers(2, 200))
    game.e_spawn_speed, game.move_speed = (int(rng.choice([1, 1, 3, 9])), 2) if rng.random() < 0.8 else (20, 5)
    game.e_spawn_timer, game.ramp_index = int(rng.integers(game.e_spawn_speed + 1)), int(rng.integers(2))
    game.sub_y, game.surface = int(rng.integers(1, 9)), False
    for diver in game.divers:
        diver[1] = game.sub_y


ANY = -99  # a row of the twin that says nothing
CASES = {
    "Breakout": Case(breakout_rows, play_breakout, disturb_breakout),
    "Freeway": Case(freeway_rows, play_freeway, disturb_freeway),
    "Asterix": Case(asterix_rows, play_asterix, disturb_asterix),
    "Seaquest": Case(seaquest_rows, play_seaquest, disturb_seaquest, seaquest_in_order, goes_on=True),
    "SpaceInvaders": Case(space_invaders_rows, play_space_invaders, disturb_space_invaders),
}
GAMES = [f"MinAtar/{name}-v{version}" for name in CASES for version in (0, 1)]


def original(id: str) -> Any:
    return gymnasium.make(id, disable_env_checker=True).unwrapped


def twin_of(id: str, **kwargs: Any) -> Any:
    return BATCHED_ENVS[id](**{**gymnasium.spec(id).kwargs, **kwargs})


def before_tempering(words: np.ndarray) -> np.ndarray:
    """The inverse of tempering, of uint32."""
    words = words ^ words >> 18
    words = words ^ words << 15 & 0xEFC60000
    for shift, mask in ((-7, 0x9D2C5680), (11, 2**32 - 1)):
        found = words
        for _ in range(4):  # each time `shift` more bits are right
            found = words ^ (found >> shift if shift > 0 else found << -shift) & mask
        words = found
    return words


def transplanted(case: Case, env: Any) -> np.ndarray:
    """The twin's state of a game of the package."""
    generator = np.random.RandomState()
    generator.set_state(env.game.random.get_state())
    words = before_tempering(generator.randint(0, 2**32, WORDS, np.uint32)).view(np.int32)
    return np.concatenate(([0, env.game.last_action], case.rows(env.game.env), words)).astype(np.int32)


def compare(id: str, lanes: int, steps: int) -> tuple[float, int]:
    """Plays and compares; returns the sum of rewards and the number of episodes that ended."""
    case, twin, rng = CASES[id.split("/")[1][:-3]], twin_of(id), np.random.default_rng(0)
    envs = [original(id) for _ in range(lanes)]
    for lane, env in enumerate(envs):
        env.reset(seed=lane)
    seeds, earned, ends = lanes, 0.0, 0
    state = twin.from_seeds(np.arange(lanes))
    for _ in range(steps):
        action = rng.integers(0, envs[0].action_space.n, lanes)
        for lane in range(lanes // 2):
            chosen = case.play(envs[lane].game.env, rng)
            action[lane] = envs[lane].action_set.index(chosen) if chosen in envs[lane].action_set else 0
        expected = [env.step(int(a)) for env, a in zip(envs, action, strict=True)]
        before = state.copy()
        state, reward, terminated = twin.step(np, state, action)
        rows = np.array([case.rows(env.game.env) for env in envs])
        assert np.array_equal(np.where(rows == ANY, ANY, [case.in_order(lane) for lane in state[2:-WORDS].T]), rows)
        assert state[1].tolist() == [env.game.last_action for env in envs]
        assert np.array_equal(np.moveaxis(twin.observe(np, state), -1, 0), [each[0] for each in expected])
        assert reward.tolist() == [each[1] for each in expected]
        assert terminated.tolist() == [each[2] for each in expected]
        assert state.dtype == before.dtype == np.int32
        earned, ends = earned + reward.sum(), ends + terminated.sum()
        for env in envs[::2] if case.goes_on else ():
            terminated[envs.index(env)] = env.game.env.terminal = False
        for lane in terminated.nonzero()[0].tolist():
            envs[lane].reset(seed=seeds)
            state[:, lane] = twin.from_seeds(np.array([seeds]))[:, 0]
            seeds += 1
        for lane in (rng.random(lanes) < 0.03).nonzero()[0].tolist():
            case.disturb(envs[lane].game.env, rng)
            state[:, lane] = transplanted(case, envs[lane])
    return earned, ends


@pytest.mark.parametrize("id", often(GAMES, GAMES[1::2]))
def test_a_twin_does_what_the_package_does(id: str) -> None:
    earned, ends = compare(id, 12, 250)
    assert earned > 8 and ends > 8


@pytest.mark.slow
@pytest.mark.parametrize("id", GAMES[1::2])
def test_a_twin_does_so_over_many_episodes(id: str) -> None:
    earned, ends = compare(id, 64, 1_500)
    assert earned > 400 and ends > 150


def test_draws_are_those_of_random_state() -> None:
    """Words too that are made long after the first 624, each lane at a pace of its own."""
    seeds, rng = np.array([0, 1, 2**31 - 1, 7919]), np.random.default_rng(0)
    ring, cursor = first_words(seeds), np.zeros(4, np.int64)
    packages = [np.random.RandomState(seed) for seed in seeds]
    for _ in range(600):
        draws = Draws(np, ring, cursor, 5)
        below = draws.below(0, 0.1), draws.below(np.full(4, 2), 1 / 3)
        count = rng.choice([2, 4, 5], 4)
        for lane, generator in enumerate(packages):
            assert below[0][lane] == (generator.rand() < 0.1)
            assert count[lane] == 2 or below[1][lane] == (generator.rand() < 1 / 3)
            assert count[lane] < 5 or draws.words[4, lane] & 7 == generator.randint(8)
        cursor, write = draws.take(count)
        write(ring)


@pytest.mark.parametrize("id", GAMES[::2])
def test_a_twin_computes_the_same_in_torch(id: str, device: torch.device) -> None:
    twin, rng = twin_of(id), np.random.default_rng(1)
    state = twin.from_seeds(np.arange(40))
    for _ in range(60):
        action = rng.integers(0, 6, 40)
        tensors = torch.from_numpy(state).to(device), torch.from_numpy(action).to(device)
        expected, found = twin.step(np, state, action), twin.step(torch, *tensors)
        for a, b in zip((*expected, twin.observe(np, state)), (*found, twin.observe(torch, tensors[0])), strict=True):
            assert np.array_equal(a, b.cpu().numpy())
        assert (found[0].dtype, found[2].dtype) == (torch.int32, torch.bool)
        state = np.where(expected[2], twin.from_seeds(rng.integers(0, 2**31, 40)), expected[0])


@pytest.mark.slow
@pytest.mark.parametrize("id", GAMES[::2])
def test_a_twin_compiles_to_one_graph(id: str, device: torch.device) -> None:
    twin = twin_of(id)
    state, action = twin.from_seeds(np.arange(40)), np.arange(40) % 6
    compiled = torch.compile(lambda state, action: twin.step(torch, state, action), fullgraph=True)
    for _ in range(20):
        found = compiled(torch.from_numpy(state).to(device), torch.from_numpy(action).to(device))
        for a, b in zip(found, expected := twin.step(np, state, action), strict=True):
            assert np.array_equal(a.cpu().numpy(), b)
        state = expected[0]


def test_sticky_actions_and_their_share() -> None:
    """The first is no action; sticky_action_prob=0 leaves every action as it is, 1 none."""
    for share, expected in ((0.0, 3), (1.0, 0)):
        twin = twin_of("MinAtar/Breakout-v1", sticky_action_prob=share)
        state, _, _ = twin.step(np, twin.from_seeds(np.arange(50)), np.full(50, 2))
        assert (state[1] == expected).all()
