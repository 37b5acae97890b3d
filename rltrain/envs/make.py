"""From `env.*` keys to Gymnasium environments, with every refusal in one line."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import gymnasium
from gymnasium.envs.registration import EnvSpec

from rltrain.config.schema import EnvConfig
from rltrain.config.wrappers import AtariConfig
from rltrain.env_families import register_family
from rltrain.envs.atari import game_kwargs, wrap_atari
from rltrain.errors import RequestError, module_hint

_log = logging.getLogger(__name__)
_already_warned: set[str] = set()
_OWN_KEYS = {"id": "env.id", "max_episode_steps": "env.max_episode_steps", "disable_env_checker": None}

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

    @property
    def time_limit(self) -> int | None:
        """Where episodes are cut, None for never."""
        return self.max_episode_steps or self.spec.max_episode_steps

    def __call__(self) -> gymnasium.Env[Any, Any]:
        def make() -> gymnasium.Env[Any, Any]:
            gymnasium.registry.setdefault(self.spec.id, self.spec)  # a worker may not have it
            if self.atari is None:
                limit = self.max_episode_steps
                return gymnasium.make(self.spec.id, max_episode_steps=limit, disable_env_checker=True, **self.kwargs)
            game = gymnasium.make(
                self.spec.id, max_episode_steps=-1, disable_env_checker=True, **game_kwargs(self.kwargs)
            )
            return wrap_atari(game, self.atari, self.id, self.time_limit)

        return _refusing(self.id, make)


def find_environment(config: EnvConfig) -> EnvMaker:
    """Looks the id up, importing the module of `module:id`.

    Raises:
        RequestError: no such id or module, or `env.kwargs` holds what has a key of its own.
    """
    for key in config.kwargs:
        if key in _OWN_KEYS:
            own = _OWN_KEYS[key]
            raise RequestError(f"env.kwargs.{key} is not allowed" + (f": use {own}" if own else ""))
    spec = _refusing(config.id, lambda: _find(config.id))
    atari = next((w for w in config.wrappers if isinstance(w, AtariConfig)), None)
    if atari is not None and not any(part in str(spec.entry_point) for part in ("ale_py", "atari")):
        raise RequestError(f"env.wrappers: atari is for games of the Arcade Learning Environment, not {config.id}")
    return EnvMaker(config.id, spec, dict(config.kwargs), config.max_episode_steps, atari)


def one_line(error: BaseException, limit: int = 300) -> str:
    """`Type: text` of an exception on one line, cut at `limit` characters."""
    text = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _find(id: str) -> EnvSpec:
    module, _, name = id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if hint := module_hint(error, module):
                raise RequestError(f"env={id}: {error}{hint}") from error
            raise
    register_family(name)
    return gymnasium.spec(name)


def _refusing(id: str, call: Callable[[], Result]) -> Result:
    with _warning_once():
        try:
            return call()
        except RequestError:
            raise
        except (Exception, SystemExit) as error:
            plugin = isinstance(error, gymnasium.error.UnregisteredEnv)
            hint = "; if a plug-in registers it, RLTRAIN_PLUGINS=MODULE names the plug-in" if plugin else ""
            raise RequestError(f"environment {id} cannot be made: {one_line(error)}{hint}") from error


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
