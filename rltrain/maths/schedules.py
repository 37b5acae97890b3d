"""Exploration schedules: epsilon as a function of the environment steps taken and the episodes finished."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rltrain.config.schema import (
    ConstantConfig,
    ExplorationConfig,
    ExponentialConfig,
    LinearConfig,
    PerEpisodeConfig,
)

Count = int | np.ndarray
Schedule = Callable[[Count, Count], Any]
"""(environment steps taken so far, episodes finished so far) -> epsilon of the next action; of arrays elementwise."""


def linear(config: LinearConfig) -> Schedule:
    """From start to end over `steps` environment steps, then end."""
    return lambda env_step, _: config.start + (config.end - config.start) * np.minimum(env_step / config.steps, 1.0)


def exponential(config: ExponentialConfig) -> Schedule:
    """end + (start - end) exp(-env_step / decay)."""
    return lambda env_step, _: config.end + (config.start - config.end) * np.exp(-env_step / config.decay)


def per_episode(config: PerEpisodeConfig) -> Schedule:
    """start * decay^episodes, but never below end."""
    return lambda _, episodes: np.maximum(config.end, config.start * config.decay**episodes)


def constant(config: ConstantConfig) -> Schedule:
    """Always end."""
    return lambda _, __: config.end


def annealed(anneal: bool, steps: int, *names: str) -> dict[str, Schedule]:
    """By each of the names a factor that falls from 1 to 0 over `steps` environment steps; {} without `anneal`."""
    return dict.fromkeys(names, linear(LinearConfig("linear", 1.0, 0.0, steps))) if anneal else {}


def always(number: float) -> Schedule:
    """The same number throughout."""
    return lambda _, __: number


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "linear": linear,
    "exponential": exponential,
    "per_episode": per_episode,
    "constant": constant,
}


def make_schedule(config: ExplorationConfig) -> Schedule:
    """Epsilon as a function of the environment steps and the finished episodes so far."""
    return SCHEDULES[config.name](config)
