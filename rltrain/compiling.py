"""Running an update as one compiled function, where that pays."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

from rltrain.config.schema import DQNConfig, RunConfig

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_R = TypeVar("_R")

# Compiling takes 2-20 s and saves about half a millisecond per gradient step of a small network.
_WORTH_GRADIENT_STEPS = 15_000


def choose_compile(config: RunConfig, members: int = 1) -> bool:
    """Whether to compile the update of `members` runs; `auto` does where the gradient steps ahead earn the time back,
    and a C++ compiler is there.

    REINFORCE makes few and large updates in several shapes: there `auto` is false.
    """
    if config.device.compile != "auto":
        return config.device.compile
    algo = config.algo
    if not isinstance(algo, DQNConfig):
        return False
    gradient_steps = (config.total_steps - algo.learning_starts) // algo.train_period * algo.gradient_steps
    return gradient_steps >= _WORTH_GRADIENT_STEPS and has_compiler()


def has_compiler() -> bool:
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def compiled(update: Callable[_P, _R], fallback: Callable[_P, _R]) -> Callable[_P, _R]:
    """`update` compiled as one graph at its first call; `fallback`, with one line in the log, where that fails."""
    # Compiled code of earlier jobs in this process counts towards the limit at which recompiling is given up.
    torch._dynamo.reset()
    chosen: list[Callable[_P, _R]] = [torch.compile(update, fullgraph=True, dynamic=False)]
    worked = False

    def call(*args: Any, **kwargs: Any) -> _R:
        nonlocal worked
        if worked:
            return chosen[0](*args, **kwargs)
        try:
            result = chosen[0](*args, **kwargs)
        except Exception as error:
            reason = str(error).strip().splitlines()[0][:200]
            _log.warning("compiling failed, the update runs uncompiled: %s", reason)
            chosen[0] = fallback
            result = fallback(*args, **kwargs)
        worked = True
        return result

    return call
