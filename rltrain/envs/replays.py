"""A look at whether an environment's episodes replay, which an exact resume needs: one seed and the same actions lead
to the same episode, also in another copy, and whatever was played before.

Copies are made for it, so that training finds its own as they are when they are new.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from rltrain.config.schema import EnvConfig
from rltrain.envs.choice import random_actions
from rltrain.envs.lanes import Lanes
from rltrain.envs.make import EnvMaker, find_environment
from rltrain.envs.process_state import process_kept
from rltrain.envs.spaces import action_spec, make_action_transform
from rltrain.errors import RequestError, RunFailed

_STEPS = 64
_SECONDS = 0.1  # for making a copy, for a reset, and for an episode's steps, of which there may be fewer then
_BEFORE, _SEED, _NEXT = 1, 2, 3  # seeds: of the episode played before, of the one repeated, of the one after it
_SEEDED = (
    "two resets with one seed differ: does reset call super().reset(seed=seed), and forget the episode before?",
    "step {} differs when an episode is played again: does it draw from self.np_random, and forget the episode before?",
)
_GLOBAL = "it draws from random generators of the whole process, not from self.np_random"
_COPIES = "with one seed, two copies differ: does its __init__ draw random numbers?"


class Replays(NamedTuple):
    """The outcome. same: None where it was not found out. why: it is not the same, or was not found out."""

    same: bool | None = True
    why: str = ""


_SLOW = Replays(None, "it is slow")


def known_to_replay(config: EnvConfig) -> bool:
    """Whether nobody needs to look: of Gymnasium's own environments, Atari games and batched twins.

    Args:
        config: with its way of stepping decided.
    """
    known = str(find_environment(config).spec.entry_point).startswith(("gymnasium.envs.", "ale_py."))
    return known or config.vectorization in ("batched", "compiled")


def look(config: EnvConfig) -> Replays:
    """Plays an episode's first steps again, in the same copy and in another; takes less than a second.

    Args:
        config: with its way of stepping decided.
    """
    if known_to_replay(config):
        return Replays()
    if config.vectorization == "async":  # it may hang or die: only its workers may run it
        return Replays(None, "it runs in other processes")
    with process_kept(), _global_generators_kept():
        try:
            return _look(find_environment(config))
        except (RunFailed, RequestError):  # which will be told when it happens in the training
            return Replays(None, "it fails")


def _look(make: EnvMaker) -> Replays:
    started = time.monotonic()
    with _copy(make) as (lanes, actions):
        if time.monotonic() - started > _SECONDS:
            return _SLOW
        started = time.monotonic()
        lanes.reset([_BEFORE])
        if time.monotonic() - started > _SECONDS:
            return _SLOW
        _steps(lanes, actions[:8])
        shown = _episode(lanes, actions)
        actions = actions[: len(shown) - 1]
        if (place := _difference(shown, _episode(lanes, actions))) is not None:
            return Replays(False, _SEEDED[place > 0].format(place))
        if _difference(shown, _episode(lanes, actions, _draw_from_global_generators)) is not None:
            return Replays(False, _GLOBAL)
    with _copy(make) as (lanes, _):
        return Replays(False, _COPIES) if _difference(shown, _episode(lanes, actions)) is not None else Replays()


@contextmanager
def _copy(make: EnvMaker) -> Iterator[tuple[Lanes, list[np.ndarray]]]:
    """A new environment, alone, and actions for it: each [1, *action]."""
    env = make()
    lanes = Lanes([env], 0, make.id)
    try:
        chosen = random_actions(action_spec(env.action_space), _STEPS, np.random.default_rng(0))
        to_env = make_action_transform(env.action_space)
        yield lanes, [to_env(action[None]) for action in chosen]
    finally:
        lanes.close()


def _nothing() -> None:
    pass


def _episode(lanes: Lanes, actions: list[np.ndarray], between: Callable[[], object] = _nothing) -> list[bytes]:
    """Plays an episode; returns what its reset and each of its steps showed."""
    between()
    return [lanes.reset([_SEED]).tobytes(), *_steps(lanes, actions, between)]


def _steps(lanes: Lanes, actions: list[np.ndarray], between: Callable[[], object] = _nothing) -> list[bytes]:
    deadline, shown = time.monotonic() + _SECONDS, list[bytes]()
    for action in actions:
        if time.monotonic() > deadline:
            break
        between()
        step = lanes.step(action, None, [_NEXT])
        parts: tuple[Any, ...] = (step.obs, step.next_obs, step.reward, step.terminated, step.truncated)
        shown.append(b"".join(part.tobytes() for part in parts))
    return shown


def _difference(shown: list[bytes], again: list[bytes]) -> int | None:
    """The first step in which two episodes differ, 0 for their resets; None where they do not, as far as both went."""
    return next((step for step, pair in enumerate(zip(shown, again, strict=False)) if pair[0] != pair[1]), None)


def _draw_from_global_generators() -> None:
    random.random()
    np.random.random()
    if (torch := sys.modules.get("torch")) is not None:
        torch.rand(1)


@contextmanager
def _global_generators_kept() -> Iterator[None]:
    """Puts back what environments, which may use or seed them, made of the process's random generators."""
    python, numpy = random.getstate(), np.random.get_state()
    torch = sys.modules.get("torch")
    torch_state = torch.get_rng_state() if torch is not None else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if torch is not None:
            torch.set_rng_state(torch_state)
