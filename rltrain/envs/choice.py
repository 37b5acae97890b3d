"""How environments are stepped where `env.vectorization=auto`, as far as that changes no number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import gymnasium
import numpy as np

from rltrain.config.schema import EnvConfig
from rltrain.envs.batched import BATCHED_ENVS
from rltrain.envs.batched.environment import make_twin
from rltrain.envs.batched.lanes import BatchedLanes
from rltrain.envs.lanes import Lanes
from rltrain.envs.make import find_environment
from rltrain.envs.make_vector import make_vector_env
from rltrain.envs.spaces import action_spec, make_action_transform
from rltrain.envs.vector import VectorEnv
from rltrain.errors import RequestError, RunFailed
from rltrain.machine import available_cores
from rltrain.seeding import derive_seed
from rltrain.terminal.text import shortened
from rltrain.types import ActionSpec

Way = Literal["sync", "async", "batched", "native", "compiled"]

# From how many environments of all members together a way is faster than those before it:
# docs/adr/0014-vectorization-is-chosen.md. `python -m benchmarks.vectorization` measures it.
BATCHED_FROM = 8
ON_DEVICE_FROM = 4  # the steps recorded by torch
ON_DEVICE_COMPILED_FROM = 1  # or captured in CUDA graphs
# Where ale-py's threads have cores to themselves: it takes 100 ms of one to begin an episode, and `sync` takes 5.
NATIVE_FROM, NATIVE_CORES = 4, 4

# In which a twin is compared with its environment, some 20 ms: whole vector instructions, and lanes that are left over.
_LANES, _STEPS = 11, 32
_LONGEST = 150  # characters of why a twin is not taken, which the header tells
_COMPARED = ("obs", "next_obs", "reward", "terminated", "truncated")


@dataclass(frozen=True)
class Choice:
    """A way to step environments, and in a few words why `auto` took it; None where it was asked for."""

    way: Way
    why: str | None = None


def choose_exact(config: EnvConfig, num_envs: int) -> Choice:
    """The fastest of the ways that give the same numbers bit for bit, `sync`, `batched` and `native`, for `num_envs` at
    once."""
    if config.vectorization != "auto":
        return Choice(config.vectorization)
    if (threads := available_cores()) >= NATIVE_CORES and num_envs >= NATIVE_FROM and _has_native(config):
        return Choice("native", f"the numbers of sync, in ale-py's threads on {threads} cores")
    least = pays_from(config, BATCHED_FROM)
    if find_environment(config).spec.id in BATCHED_ENVS and num_envs < least:
        return Choice("sync", f"the fastest for fewer than {least} environments")
    if lack := lacks_twin(config):
        games = f"Atari in ale-py's threads pays from {NATIVE_FROM} games and {NATIVE_CORES} cores on"
        return Choice("sync", games if _is_atari(config) else lack)
    return Choice("batched", f"the numbers of sync, faster from {least} environments on")


def pays_from(config: EnvConfig, least: int) -> int:
    """`least`, or what an environment's own twin says, where its step is dearer or the environment's cheaper."""
    return max(least, getattr(BATCHED_ENVS.get(find_environment(config).spec.id), "batched_from", 0))


def _is_atari(config: EnvConfig) -> bool:
    return bool(config.wrappers) and config.wrappers[0].name == "atari"


def _has_native(config: EnvConfig) -> bool:
    """Whether ale-py's threads play a game as `sync` does, compared over some steps of two episodes."""
    try:
        makers = [find_environment(replace(config, vectorization=way)) for way in ("native", "sync")]
    except RequestError:
        return False
    shown = []
    for make in makers:
        lanes = Lanes([make()], 0, config.id)
        try:
            parts = [
                lanes.reset([1]),
                *(lanes.step(np.array([k % 3]), None, [2]).obs for k in range(8)),
                lanes.reset([2]),
            ]
            shown.append([part.tobytes() for part in parts])
        finally:
            lanes.close()
    return shown[0] == shown[1]


def lacks_twin(config: EnvConfig) -> str | None:
    """Why an environment has no batched twin that gives its numbers; None where it has one."""
    if find_environment(config).spec.id not in BATCHED_ENVS:
        return f"{config.id} has no batched twin"
    try:
        return None if _same_numbers(config) else "its batched twin gives other numbers here"
    except RequestError:
        return "its batched twin does not take these settings"
    except _TwinFailed as error:
        return str(error)
    except RunFailed:
        return f"{config.id} fails where it is compared with its batched twin"


class _TwinFailed(RunFailed):
    """A fault of the twin, not of its environment."""


@contextmanager
def _faults_are_the_twins(id: str) -> Iterator[None]:
    try:
        yield
    except RunFailed as error:
        text = str(error).removeprefix(f"{id}: ")
        text = text if "batched twin" in text else f"its batched twin fails: {text}"
        raise _TwinFailed(shortened(text, _LONGEST)) from error


def _same_numbers(config: EnvConfig) -> bool:
    """Whether the twin does what its environment does, bit for bit, in some episodes on this machine.

    A plug-in's twin, or another version's vector instructions, may round otherwise. Where an environment keeps a
    `state`, as Gymnasium's do, it is compared too: an observation's 32 bits hide the last bits of it for long.

    Raises:
        RequestError, RunFailed: one of the two cannot be made, or fails; _TwinFailed where it is the twin.
    """
    make = find_environment(config)
    copies = [make() for _ in range(_LANES)]
    alone = Lanes(copies, 0, config.id)
    try:
        spaces = copies[0].observation_space, copies[0].action_space
        twin = make_twin(make.spec, replace(config, vectorization="batched"), BATCHED_ENVS, spaces[0])
        together = BatchedLanes(twin, _LANES, config.id, *spaces, make.time_limit)
        spec, to_env, rng = action_spec(spaces[1]), make_action_transform(spaces[1]), np.random.default_rng(0)
        seeds = [derive_seed(0, "environment", lane, 0) for lane in range(_LANES)]
        first_obs = alone.reset(seeds)
        with _faults_are_the_twins(config.id):
            if not _equal(first_obs, together.reset(seeds)):
                return False
        for step in range(1, _STEPS):
            actions = to_env(random_actions(spec, _LANES, rng))
            next_seeds = [seed + step for seed in seeds]
            first = alone.step(actions, None, next_seeds)
            with _faults_are_the_twins(config.id):
                second = together.step(actions, None, next_seeds)
            arrays = ((getattr(first, name), getattr(second, name)) for name in _COMPARED)
            same = all(_equal(*pair) for pair in arrays) and first.finished == second.finished
            if not (same and _same_state(copies, together.now().state)):
                return False
        return True
    finally:
        alone.close()


def _equal(first: np.ndarray, second: np.ndarray) -> bool:
    return first.dtype == second.dtype and first.tobytes() == second.tobytes()


def _same_state(copies: Sequence[gymnasium.Env[Any, Any]], state: np.ndarray) -> bool:
    """Where the environments keep what looks like the twin's state [*state, L]."""
    try:
        kept = np.stack([np.asarray(env.unwrapped.state, state.dtype) for env in copies], -1)  # type: ignore[attr-defined]
    except (AttributeError, TypeError, ValueError):
        return True
    return kept.shape != state.shape or np.array_equal(kept, state)


def trial_envs(config: EnvConfig, way: Way) -> VectorEnv:
    """Some environments without wrappers, to try a way of stepping."""
    bare = replace(config, vectorization=way, wrappers=(), reward_clip=None)
    return make_vector_env(bare, _LANES, lambda env, number: derive_seed(0, "environment", env, number))


def random_actions(spec: ActionSpec, count: int, rng: np.random.Generator) -> np.ndarray:
    """[count, *action], as an agent chooses."""
    if spec.kind == "discrete":
        return rng.integers(0, spec.n, count)
    if spec.kind == "multi_discrete":
        return rng.integers(0, np.array(spec.sizes).reshape(spec.shape), (count, *spec.shape))
    return rng.normal(size=(count, *spec.shape)).astype(np.float32)
