"""The wrappers that `env.wrappers` may list: their arguments with types, ranges and defaults. Torch-free.

An entry is a name, or a mapping of the name and the arguments that differ from their defaults. The entries of a list
have no YAML file to state defaults in, so these stand here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from rltrain.config.schema import Range


@dataclass(frozen=True)
class AtariConfig:
    """Atari games as in the literature: grey, smaller frames, each action repeated; must come first."""

    name: Literal["atari"]
    noop_max: Annotated[int, Range(0)] = 30
    frame_skip: Annotated[int, Range(1)] = 4
    screen_size: Annotated[int, Range(8)] = 84
    grayscale: bool = True
    terminal_on_life_loss: bool = False


@dataclass(frozen=True)
class ClipObservationConfig:
    """Each number of the observation within low..high."""

    name: Literal["clip_observation"]
    low: float = -10.0
    high: float = 10.0


@dataclass(frozen=True)
class FrameStackConfig:
    """The last `size` observations; the first of an episode, or zeros, fill what is missing."""

    name: Literal["frame_stack"]
    size: Annotated[int, Range(2)] = 4
    padding: Literal["reset", "zero"] = "reset"


@dataclass(frozen=True)
class NormalizeObservationConfig:
    """Mean 0 and deviation 1 over all observations of the run so far; not where the variance is at most epsilon."""

    name: Literal["normalize_observation"]
    epsilon: Annotated[float, Range(above=0)] = 1e-8


@dataclass(frozen=True)
class NormalizeRewardConfig:
    """Rewards over the deviation of the discounted return so far, for training."""

    name: Literal["normalize_reward"]
    gamma: Annotated[float, Range(0, 1)] = 0.99
    epsilon: Annotated[float, Range(above=0)] = 1e-8


@dataclass(frozen=True)
class RescaleObservationConfig:
    """The bounds of each number of the observation become low..high."""

    name: Literal["rescale_observation"]
    low: Annotated[float, Range(-1e6, 1e6)] = -1.0
    high: Annotated[float, Range(-1e6, 1e6)] = 1.0


@dataclass(frozen=True)
class ScaleRewardConfig:
    """Rewards times `factor`, for training."""

    name: Literal["scale_reward"]
    factor: Annotated[float, Range(above=0)] = 0.1


@dataclass(frozen=True)
class TimeAwareConfig:
    """The share of the time limit that is left, appended to the observation."""

    name: Literal["time_aware"]


WRAPPER_CONFIGS: dict[str, type] = {
    "atari": AtariConfig,
    "clip_observation": ClipObservationConfig,
    "frame_stack": FrameStackConfig,
    "normalize_observation": NormalizeObservationConfig,
    "normalize_reward": NormalizeRewardConfig,
    "rescale_observation": RescaleObservationConfig,
    "scale_reward": ScaleRewardConfig,
    "time_aware": TimeAwareConfig,
}
"""A plug-in adds its own dataclass here, and its class to `rltrain.envs.wrappers.WRAPPERS`."""

_BOX_ACTIONS = "an agent's -1..1 spans the bounds of a Box action, and what lies outside is clipped"
INSTEAD: dict[str, str] = {
    "clip_action": f"always done: {_BOX_ACTIONS}",
    "rescale_action": f"always done: {_BOX_ACTIONS}",
    "clip_reward": "use env.reward_clip=1",
    "flatten_observation": "always done: observations of several parts become one vector",
    "record_episode_statistics": "always done: rollout/episode_return and rollout/episode_length",
    "time_limit": "use env.max_episode_steps=N",
}
"""Wrappers that people look for, and what there is."""


def arguments_of(cls: type) -> dict[str, Any]:
    """The arguments of a wrapper with their defaults."""
    fields = dataclasses.fields(cls)
    return {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}


def changes_observations(name: str) -> bool:
    """Whether a network reads other numbers because of the wrapper."""
    return name not in ("normalize_reward", "scale_reward")
