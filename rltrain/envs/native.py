"""Atari games in the threads of ale-py's vector environment (`env.vectorization=native`), which need not hold Python.

Each game has an environment of its own there, of one lane: so it has the seed of each of its episodes, idles, and is
replayed alone. The numbers are those of `Atari`, bit for bit.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import gymnasium
import numpy as np

from rltrain.config.wrappers import AtariConfig
from rltrain.envs.atari import LIFE_LOST
from rltrain.errors import RequestError

_KNOWN = {"game", "repeat_action_probability", "full_action_space", "frameskip", "max_num_frames_per_episode"}
_LANE = np.zeros(1, np.int64)
_STRENGTH = np.ones(1, np.float32)
_NO_LIMIT = 2**31 - 1
_loaders: list[ThreadPoolExecutor] = []


class NativeGame(gymnasium.Env[np.ndarray, Any]):
    """One game. `ahead` begins a step that `step` then waits for, so that many games emulate at the same time.

    ale-py loads the game anew for each seed, which takes 100 ms. So the next episode begins on a second emulator, in
    another thread, while the present one is played.
    """

    def __init__(self, kwargs: dict[str, Any], config: AtariConfig) -> None:
        self._emulators = [_emulator(kwargs, config) for _ in range(2)]  # the one that plays, and the next
        self._next: Future[Any] | None = None
        self._next_seed = -1
        self._action: int | None = None  # that was sent
        self._lives = 0
        self.metadata = {"render_modes": ["rgb_array"]}  # of the game, which others draw
        self.tells_life_loss = config.terminal_on_life_loss
        shape = self._emulators[0].get_observation_shape()[1:]  # of one frame
        self.observation_space = gymnasium.spaces.Box(0, 255, tuple(shape), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(len(self._emulators[0].get_action_set()))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        if self._action is not None:
            self._emulators[0].recv()
        begun = self._next.result() if self._next is not None else None
        if begun is not None and seed == self._next_seed:
            self._emulators.reverse()
        else:
            begun = self._emulators[0].reset(_LANE, np.array([seed]))
        self._next, self._action = None, None
        obs, info = begun
        self._lives = int(info["lives"][0])
        return obs[0, 0], {}

    def ahead(self, action: int, next_seed: int) -> None:
        """Begins a step, and once in an episode the episode after it."""
        if self._next is None:
            self._next_seed = next_seed
            self._next = _loader().submit(self._emulators[1].reset, _LANE, np.array([next_seed]))
        self._send(action)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        if self._action != action:
            self._send(action)
        obs, reward, terminated, _, info = self._emulators[0].recv()
        self._action = None
        before, self._lives = self._lives, int(info["lives"][0])
        return obs[0, 0], float(reward[0]), bool(terminated[0]), False, {LIFE_LOST: self._lives < before}

    def close(self) -> None:
        if self._next is not None:
            self._next.result()

    def _send(self, action: int) -> None:
        self._emulators[0].send(np.array([action]), _STRENGTH)
        self._action = action


def check_native(kwargs: dict[str, Any]) -> None:
    """Raises RequestError where `env.kwargs` are not all known to ale-py's vector environment."""
    if others := sorted(kwargs.keys() - _KNOWN):
        raise RequestError(
            f"env.kwargs.{others[0]}: ale-py's vector environment has no such setting;"
            " use env.vectorization=sync or async"
        )


def _loader() -> ThreadPoolExecutor:
    """The thread in which episodes begin."""
    if not _loaders:
        _loaders.append(ThreadPoolExecutor(1, "begins Atari episodes"))
    return _loaders[0]


def _emulator(kwargs: dict[str, Any], config: AtariConfig) -> Any:
    import ale_py
    from ale_py import roms

    interface: Any = ale_py.ALEVectorInterface
    return interface(
        roms.get_rom_path(kwargs["game"]),
        1,
        frame_skip=config.frame_skip,
        stack_num=1,
        img_height=config.screen_size,
        img_width=config.screen_size,
        grayscale=config.grayscale,
        maxpool=config.frame_skip > 1,
        noop_max=config.noop_max + 1,
        use_fire_reset=False,
        reward_clipping=False,
        max_episode_steps=_NO_LIMIT,
        repeat_action_probability=kwargs.get("repeat_action_probability", 0.25),
        full_action_space=kwargs.get("full_action_space", False),
        num_threads=1,
    )
