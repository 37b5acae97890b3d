"""`atari` of `env.wrappers`: the only wrapper that works inside each environment, next to the game.

It does what the vector environment of ale-py does, bit for bit, from the same seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from rltrain.config.wrappers import AtariConfig
from rltrain.errors import RequestError

LIFE_LOST = "rltrain/life_lost"
"""In `info`: a life was lost in this step and the episode goes on."""
MOST_FRAMES = 108_000
"""Of an episode, half an hour of play; Machado et al. (2018)."""
_NOOP = 0
_FRAMES_PER_SECOND = 60


class Atari(gymnasium.Wrapper):
    """A game as in the literature (Mnih et al., 2015): each action is repeated, an observation is the brighter of the
    last two frames, pixel by pixel, as grey and smaller; an episode begins with up to `noop_max` frames of waiting.

    A lost life is told in `info`: to a learner that asks for it, it is an end after which nothing is worth anything;
    the episode, whose return is reported, goes on, and so does the game.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], config: AtariConfig) -> None:
        import cv2

        super().__init__(env)
        base: Any = env.unwrapped
        self._config, self._ale = config, base.ale
        self._resize, self._area = cv2.resize, cv2.INTER_AREA
        self._size = config.screen_size, config.screen_size
        self._read = self._ale.getScreenGrayscale if config.grayscale else self._ale.getScreenRGB
        self._frames = [self._read(), self._read()]  # the last one, and the one before it
        self._act = _actor(base)
        self._game = Game(base, self._read)
        self._lives = 0
        self.tells_life_loss = config.terminal_on_life_loss
        channels = () if config.grayscale else (3,)
        self.observation_space = gymnasium.spaces.Box(0, 255, (*self._size, *channels), np.uint8)
        self.metadata = {**env.metadata, "render_fps": _FRAMES_PER_SECOND / config.frame_skip}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        self._game.begin(seed)
        waits = no_ops(seed, self._config.noop_max)
        for _ in range(waits):
            self._ale.act(_NOOP, 1.0)
            if self._ale.game_over():
                self._ale.reset_game()
        self._lives = self._ale.lives()
        last, before = self._frames
        if waits:
            self._read(last)
        else:
            last[:] = self._game.screen
        before.fill(0)
        return self._observed(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward, ale, skip = 0.0, self._ale, self._config.frame_skip
        for left in reversed(range(skip)):
            reward += self._act(action)
            if ale.game_over(with_truncation=False):
                break
            if left < 2:
                self._read(self._frames[left])
        lives_before, self._lives = self._lives, ale.lives()
        info = {LIFE_LOST: self._lives < lives_before}
        return self._observed(), reward, ale.game_over(with_truncation=False), ale.game_truncated(), info

    def render(self) -> Any:
        """The screen as the game has it, in colour; the wrappers below were never reset and would refuse."""
        return self.env.unwrapped.render()

    def _observed(self) -> np.ndarray:
        last, before = self._frames
        np.maximum(last, before, out=last)
        return np.asarray(self._resize(last, self._size, interpolation=self._area))


def _actor(game: Any) -> Callable[[Any], float]:
    """Plays one frame with an action and returns its reward."""
    if game.continuous:
        return lambda action: float(game.step(action)[1])
    act, actions = game.ale.act, list(game._action_set)
    return lambda action: float(act(actions[action], 1.0))


def no_ops(seed: int, most: int) -> int:
    """How many frames an episode of this seed waits at its start, uniform in 0..most: `std::uniform_int_distribution`
    of the first draws of `std::mt19937(seed)`, as the GNU library has it (Lemire 2019, "Fast random integer generation
    in an interval")."""
    draws = np.random.MT19937()
    draws._legacy_seeding(seed)
    count = most + 1
    while (product := int(draws.random_raw()) * count) % 2**32 < 2**32 % count:
        pass
    return product >> 32


class Game:
    """An emulator that begins episodes, each as if the game had just been loaded with the episode's seed.

    Loading takes 100 ms, as long as 250 steps; resetting 5. The seed only matters for sticky actions, which a Mersenne
    Twister draws; its state is text within the state that the emulator saves. So a saved state is kept, and that text
    replaced. Where it is not found (another ale-py may save otherwise) the game is loaded for each episode.
    """

    def __init__(self, env: Any, read: Callable[[], np.ndarray]) -> None:
        """`read` returns the screen."""
        self._env, self._ale, self._read = env, env.ale, read
        self._around: tuple[bytes, bytes] | None = None  # of the saved state, before and after the generator's
        self.screen = np.empty(0)  # when an episode begins

    def begin(self, seed: int) -> None:
        """Begins an episode."""
        if self._around is None:
            self._load(seed)
            return
        from ale_py import ALEState

        before, after = self._around
        text = _saved_generator(seed)
        size = len(before) + len(text) + len(after) - _NOT_COUNTED
        state: Any = ALEState.__new__(ALEState)
        state.__setstate__(b"".join((before[:_SIZE], size.to_bytes(4, "little"), before[_SIZE + 4 :], text, after)))
        self._ale.reset_game()  # for what the emulator does not save
        self._ale.restoreState(state)

    def _load(self, seed: int) -> None:
        self._ale.setInt("random_seed", seed)
        self._env.load_game()
        self._ale.reset_game()
        self.screen = self._read()
        saved = self._ale.cloneState(include_rng=True).__getstate__()
        before, found, after = saved.partition(_saved_generator(seed))
        if found and int.from_bytes(saved[_SIZE : _SIZE + 4], "little") == len(saved) - _NOT_COUNTED:
            self._around = before, after


_SIZE = 24
"""Where a saved state says how many of its bytes follow, up to the end of the generator's."""
_NOT_COUNTED = _SIZE + 4 + 8


def _saved_generator(seed: int) -> bytes:
    """`std::mt19937(seed)` before its first draw, as the GNU library writes it, after its length."""
    words = np.random.RandomState(seed).get_state(legacy=False)["state"]["key"]
    text = b"%s 624" % " ".join(map(str, words.tolist())).encode()
    return len(text).to_bytes(4, "little") + text


def game_kwargs(kwargs: dict[str, Any]) -> dict[str, Any]:
    """`env.kwargs` of a game whose actions the wrapper repeats, and whose episodes are limited in its own steps.

    Raises:
        RequestError: the game itself would repeat them too.
    """
    if kwargs.get("frameskip", 1) != 1:
        raise RequestError(
            f"env.kwargs.frameskip={kwargs['frameskip']}: env.wrappers=[atari] repeats actions itself, so it must be 1"
        )
    return {"max_num_frames_per_episode": 0, **kwargs, "frameskip": 1}


def check_game_kwargs(kwargs: Mapping[str, Any]) -> None:
    """Whether the wrapper heeds `env.kwargs`, and the emulator takes them for what they say.

    Raises:
        RequestError: it does not.
    """
    for key, given in kwargs.items():
        if key in ("obs_type", "sound_obs"):
            raise RequestError(f"env.kwargs.{key}={given}: env.wrappers=[atari] makes observations of the screen")
        if key == "repeat_action_probability" and not (isinstance(given, int | float) and 0 <= given <= 1):
            raise RequestError(f"env.kwargs.{key}={given}: must be a probability, 0 to 1")


def time_limit(config: AtariConfig) -> int:
    """The agent's steps after which an episode is cut."""
    return max(1, MOST_FRAMES // config.frame_skip)


def wrap_atari(env: gymnasium.Env[Any, Any], config: AtariConfig, id: str, limit: int) -> gymnasium.Env[Any, Any]:
    """The game behind `Atari`; the time limit counts the agent's steps, not the game's frames.

    Raises:
        RequestError: it is no Atari game, or OpenCV is missing.
    """
    if not hasattr(env.unwrapped, "ale"):
        raise RequestError(f"env.wrappers: atari is for games of the Arcade Learning Environment, and {id} is none")
    try:
        return gymnasium.wrappers.TimeLimit(Atari(env, config), limit)
    except ImportError as error:
        hint = "pip install 'rltrain[atari]' brings it"
        raise RequestError(f"env.wrappers: atari needs OpenCV, which is not installed; {hint}") from error


def tells_life_loss(env: gymnasium.Env[Any, Any]) -> bool:
    """Whether the steps' `info` has LIFE_LOST, which ends what is learned."""
    return bool(env.has_wrapper_attr("tells_life_loss") and env.get_wrapper_attr("tells_life_loss"))
