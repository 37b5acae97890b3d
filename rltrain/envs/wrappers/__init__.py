"""`env.wrappers` by name. A new one: a class, a line in WRAPPERS, a dataclass and a line in WRAPPER_CONFIGS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rltrain.envs.wrappers.normalize import NormalizeObservation, NormalizeReward
from rltrain.envs.wrappers.simple import ClipObservation, FrameStack, RescaleObservation, ScaleReward, TimeAware
from rltrain.envs.wrappers.stack import WrapperStack
from rltrain.envs.wrappers.wrapper import Wrapper, WrapperContext
from rltrain.types import ObservationSpec

__all__ = ["WRAPPERS", "Wrapper", "WrapperContext", "WrapperStack", "make_wrappers"]

WRAPPERS: dict[str, type[Wrapper]] = {
    "atari": Wrapper,  # works inside each environment, see envs/atari.py
    "clip_observation": ClipObservation,
    "frame_stack": FrameStack,
    "normalize_observation": NormalizeObservation,
    "normalize_reward": NormalizeReward,
    "rescale_observation": RescaleObservation,
    "scale_reward": ScaleReward,
    "time_aware": TimeAware,
}


def make_wrappers(configs: Sequence[Any], spec: ObservationSpec, context: WrapperContext) -> WrapperStack:
    """The wrappers of `env.wrappers`, the first next to the environments.

    Raises:
        RequestError: one of them cannot follow on what it is given.
    """
    named: list[tuple[str, Wrapper]] = []
    inner = spec
    for config in configs:
        wrapper = WRAPPERS[config.name](config, inner, context)
        named.append((config.name, wrapper))
        inner = wrapper.spec
    return WrapperStack(named, spec, context)
