"""`atari` of `env.wrappers`: the only wrapper that works inside each environment, next to the game."""

from __future__ import annotations

from typing import Any

import gymnasium

from rltrain.config.wrappers import AtariConfig
from rltrain.errors import RequestError

LIFE_LOST = "rltrain/life_lost"
"""In `info`: a life was lost in this step and the episode goes on."""


class LifeLoss(gymnasium.Wrapper):
    """Says when a life is lost. To a learner that is an end, after which nothing is worth anything; the episode, whose
    return is reported, goes on, and so does the game. Mnih et al. (2015), methods."""

    tells_life_loss = True

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        result = self.env.reset(**kwargs)
        self._lives = self._count()
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        before, self._lives = self._lives, self._count()
        return obs, reward, terminated, truncated, {**info, LIFE_LOST: self._lives < before}

    def _count(self) -> int:
        return int(self.env.unwrapped.ale.lives())  # type: ignore[attr-defined]


def game_kwargs(kwargs: dict[str, Any]) -> dict[str, Any]:
    """`env.kwargs` of a game whose actions the wrapper repeats.

    Raises:
        RequestError: the game itself would repeat them too.
    """
    if kwargs.get("frameskip", 1) != 1:
        raise RequestError(
            f"env.kwargs.frameskip={kwargs['frameskip']}: env.wrappers=[atari] repeats actions itself, so it must be 1"
        )
    return {**kwargs, "frameskip": 1}


def wrap_atari(
    env: gymnasium.Env[Any, Any], config: AtariConfig, id: str, max_episode_steps: int | None
) -> gymnasium.Env[Any, Any]:
    """Gymnasium's AtariPreprocessing; the time limit counts the agent's steps, not the game's frames.

    Raises:
        RequestError: it is no Atari game, or OpenCV is missing.
    """
    if not hasattr(env.unwrapped, "ale"):
        raise RequestError(f"env.wrappers: atari is for games of the Arcade Learning Environment, and {id} is none")
    try:
        wrapped: gymnasium.Env[Any, Any] = gymnasium.wrappers.AtariPreprocessing(
            env,
            noop_max=config.noop_max,
            frame_skip=config.frame_skip,
            screen_size=config.screen_size,
            terminal_on_life_loss=False,
            grayscale_obs=config.grayscale,
        )
    except gymnasium.error.DependencyNotInstalled as error:
        hint = "pip install 'rltrain[atari]' brings it"
        raise RequestError(f"env.wrappers: atari needs OpenCV, which is not installed; {hint}") from error
    if config.terminal_on_life_loss:
        wrapped = LifeLoss(wrapped)
    return wrapped if max_episode_steps is None else gymnasium.wrappers.TimeLimit(wrapped, max_episode_steps)


def tells_life_loss(env: gymnasium.Env[Any, Any]) -> bool:
    """Whether the steps' `info` has LIFE_LOST."""
    return bool(env.has_wrapper_attr("tells_life_loss"))
