"""From `env.*` keys to Gymnasium environments, with every refusal in one line."""

from __future__ import annotations

import difflib
import importlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import gymnasium
from gymnasium.envs.registration import EnvSpec

from rltrain.config.env_families import register_family
from rltrain.config.schema import EnvConfig
from rltrain.config.wrappers import AtariConfig
from rltrain.envs.atari import check_game_kwargs, game_kwargs, time_limit, wrap_atari
from rltrain.envs.faults import described
from rltrain.envs.native import NativeGame, check_native
from rltrain.errors import RequestError, module_hint
from rltrain.terminal.output import warn

_log = logging.getLogger(__name__)
_already_warned: set[str] = set()
_OWN_KEYS = {"id": "env.id", "max_episode_steps": "env.max_episode_steps", "disable_env_checker": None}

FEWER = "evaluations go on with eval.num_envs={}, as no more environments can be made"
Result = TypeVar("Result")


@dataclass(frozen=True)
class EnvMaker:
    """Makes copies of one environment; can be sent to a worker, which need not know the id.

    Gymnasium's environment checker is left out: it only warns, and only about the first step; lanes.py checks all.
    """

    id: str
    spec: EnvSpec
    kwargs: dict[str, Any]
    max_episode_steps: int | None
    atari: AtariConfig | None = None
    native: bool = False

    @property
    def time_limit(self) -> int | None:
        """Where episodes are cut, None for never."""
        own = self.spec.max_episode_steps if self.atari is None else time_limit(self.atari)
        return self.max_episode_steps or own

    @property
    def reward_threshold(self) -> float | None:
        """The return that counts as solved. With other arguments, or episodes that end earlier, an environment is
        another task than the one that was registered with a threshold, and has none."""
        limit = self.spec.max_episode_steps
        shorter = limit is not None and self.max_episode_steps is not None and self.max_episode_steps < limit
        other = any(self.spec.kwargs.get(key, self) != value for key, value in self.kwargs.items())
        return None if shorter or other else self.spec.reward_threshold

    def __call__(self) -> gymnasium.Env[Any, Any]:
        def make() -> gymnasium.Env[Any, Any]:
            gymnasium.registry.setdefault(self.spec.id, self.spec)  # a worker may not have it
            if self.atari is None:
                limit = self.max_episode_steps
                return gymnasium.make(self.spec.id, max_episode_steps=limit, disable_env_checker=True, **self.kwargs)
            if self.native:
                game: gymnasium.Env[Any, Any] = NativeGame({**self.spec.kwargs, **self.kwargs}, self.atari)
                return gymnasium.wrappers.TimeLimit(game, self.time_limit or 1)
            game = gymnasium.make(
                self.spec.id, max_episode_steps=-1, disable_env_checker=True, **game_kwargs(self.kwargs)
            )
            return wrap_atari(game, self.atari, self.id, self.time_limit or 1)

        env = _refusing(self.id, make)
        try:
            for name in ("observation_space", "action_space"):
                _require_space(env, name, self.id)
        except RequestError:
            close(env, self.id)
            raise
        return env


def find_environment(config: EnvConfig) -> EnvMaker:
    """Looks the id up, importing the module of `module:id`.

    Raises:
        RequestError: no such id or module, or `env.kwargs` holds what has a key of its own.
    """
    for key in config.kwargs:
        if key in _OWN_KEYS:
            own = _OWN_KEYS[key]
            raise RequestError(f"env.kwargs.{key} is not allowed" + (f": use {own}" if own else ""))
    if config.kwargs.get("render_mode") == "human":
        films = "video.period=10_000 films episodes of the training, `rltrain evaluate video=true` one of its end"
        raise RequestError(f"env.kwargs.render_mode=human: rltrain opens no windows; {films}")
    spec = _refusing(config.id, lambda: _find(config.id))
    atari = next((w for w in config.wrappers if isinstance(w, AtariConfig)), None)
    if atari is not None and not any(part in str(spec.entry_point) for part in ("ale_py", "atari")):
        raise RequestError(f"env.wrappers: atari is for games of the Arcade Learning Environment, not {config.id}")
    native = config.vectorization == "native"
    if native and atari is None:
        raise RequestError("env.vectorization=native: is for env.wrappers=[atari, ...], whose frames it prepares")
    if atari is not None:
        check_game_kwargs(config.kwargs)
    if native:
        check_native(config.kwargs)
    return EnvMaker(config.id, spec, dict(config.kwargs), config.max_episode_steps, atari, native)


def close(env: gymnasium.Env[Any, Any], name: str) -> None:
    """Closes an environment; a failure to do so is logged, as that of `name`."""
    try:
        env.close()
    except (Exception, SystemExit) as error:
        _log.warning("%s failed to close: %s", name, described(error))


def _require_space(env: gymnasium.Env[Any, Any], name: str, id: str) -> None:
    try:
        space = getattr(env, name)
    except Exception as error:
        if isinstance(error, AttributeError) and error.obj is env.unwrapped and error.name == name:
            close_to = difflib.get_close_matches(name, set(dir(error.obj)) - {"action_space", "observation_space"}, 1)
            hint = f" (it has {close_to[0]})" if close_to else ""
            raise RequestError(f"environment {id} has no {name}{hint}; its __init__ must set it") from error
        raise RequestError(f"environment {id}: its {name} cannot be read: {described(error)}") from error
    if isinstance(space, gymnasium.Space):
        return
    if isinstance(space, type):
        what = f"the class {space.__name__} and not an instance of it"
    elif isinstance(space, Mapping):
        what = f"a {type(space).__name__} with the keys {', '.join(map(str, space))[:100]}; one agent has one space"
    else:
        what = (
            "None; its __init__ must set it" if space is None else f"a {type(space).__module__}.{type(space).__name__}"
        )
    raise RequestError(f"environment {id}: its {name} must be a gymnasium.spaces.Space, and it is {what}")


def make_copies(
    make: EnvMaker,
    first: gymnasium.Env[Any, Any],
    count: int,
    least: int | None,
    seconds: float | None,
    members: int,
) -> list[gymnasium.Env[Any, Any]]:
    """`first` and further copies: `count`, or as many as can be made, at least `least`, a multiple of `members`.

    Raises:
        RequestError: too few can be made; those that were are closed.
    """
    copies, started = [first], time.monotonic()
    least = count if least is None else least
    while len(copies) < count:
        if seconds is not None and len(copies) >= least and time.monotonic() - started > seconds:
            break
        try:
            copies.append(make())
        except RequestError as error:
            if len(copies) >= least:
                warn(_log, f"{FEWER.format(len(copies))}: {error}")
                break
            _close_all(copies)
            for_whom = f" for {members} jobs that train as one program" if members > 1 else ""
            advice = "\nhydra/launcher=basic trains one job after the other" if members > 1 else ""
            raise RequestError(
                f"{len(copies)} of {count} environments{for_whom} can be made: {error}{advice}"
            ) from error
    spare = len(copies) % members
    _close_all(copies[len(copies) - spare :])
    return copies[: len(copies) - spare]


def draws(env: gymnasium.Env[Any, Any]) -> bool:
    """Whether an environment says that it can be drawn as pictures."""
    modes = getattr(env, "metadata", None)
    return isinstance(modes, Mapping) and "rgb_array" in (modes.get("render_modes") or ())


def _close_all(envs: list[gymnasium.Env[Any, Any]]) -> None:
    for env in envs:
        with suppress(Exception, SystemExit):
            env.close()


def _find(id: str) -> EnvSpec:
    module, _, name = id.rpartition(":")
    if module.endswith(".py"):
        raise RequestError(f"env={id}: a module is named without .py: env={module.removesuffix('.py')}:{name}")
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if hint := module_hint(error, module):
                raise RequestError(f"env={id}: {error}{hint}") from error
            raise
    register_family(name)
    try:
        return gymnasium.spec(name)
    except gymnasium.error.UnregisteredEnv as error:
        if not module:
            raise
        theirs = [id for id, spec in gymnasium.registry.items() if _module_of(spec) == module]
        known = f"; it has {', '.join(theirs)}" if theirs else ", nor any other environment"
        raise RequestError(f"env={id}: the module {module} has registered no {name}{known}") from error


def _module_of(spec: EnvSpec) -> str:
    entry = spec.entry_point
    return entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")


def _refusing(id: str, call: Callable[[], Result]) -> Result:
    with _warning_once():
        try:
            return call()
        except RequestError:
            raise
        except (Exception, SystemExit) as error:
            plugin = isinstance(error, gymnasium.error.UnregisteredEnv)
            hint = "; if a plug-in registers it, RLTRAIN_PLUGINS=MODULE names the plug-in" if plugin else ""
            raise RequestError(f"environment {id} cannot be made: {described(error)}{hint}") from error


@contextmanager
def _warning_once() -> Iterator[None]:
    """Each distinct warning goes to the log once, however many copies are made."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for message in (" ".join(str(warning.message).split()) for warning in caught):
        if message not in _already_warned:
            _already_warned.add(message)
            _log.warning(message)
