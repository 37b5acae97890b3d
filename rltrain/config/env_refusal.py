"""Why an environment cannot be made, in the words of the config: its keys and our package's extras."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from rltrain.config.env_source import env_creator, package_lacking
from rltrain.config.plain import show
from rltrain.config.schema import EnvConfig
from rltrain.config.spelling import suggestion
from rltrain.errors import RequestError, missing_extra

_MOST_NAMES = 12


def explain_environment(config: EnvConfig, error: RequestError) -> RequestError:
    """The request's error where the environment's own exception caused `error`; else `error` itself."""
    cause = error.__cause__
    if cause is None:
        return error
    if absent := missing_extra(cause):
        return RequestError(f"env={config.id}: {absent}")
    if isinstance(cause, ModuleNotFoundError) and (package := package_lacking(config.id)):
        return RequestError(f"env={config.id}: needs {package}, which is not installed")
    message = _about_kwargs(config, str(cause)) if isinstance(cause, TypeError) else None
    return RequestError(message) if message else error


def _about_kwargs(config: EnvConfig, text: str) -> str | None:
    taken = list(dict.fromkeys(_parameters(env_creator(config.id))))
    unexpected = re.search(r"got an unexpected keyword argument '(\w+)'", text)
    if unexpected is not None:
        key = unexpected[1]
        if key not in config.kwargs or key in taken:
            return None
        names = ", ".join(taken[:_MOST_NAMES]) + (", ..." if len(taken) > _MOST_NAMES else "")
        takes = f"it takes {names or 'nothing'}{suggestion(key, taken)}"
        return f"env.kwargs.{key}={show(config.kwargs[key])}: {config.id} does not take it; {takes}"
    missing = re.search(r"missing \d+ required [\w-]+(?: only)? arguments?: ((?:'\w+'(?:, and |, | and )?)+)", text)
    if missing is not None:
        needed = [key for key in re.findall(r"'(\w+)'", missing[1]) if key in taken]
        return f"env.kwargs.{', env.kwargs.'.join(needed)}: {config.id} needs a value" if needed else None
    return None


def _parameters(creator: Any) -> Iterator[str]:
    """The names of the arguments; where a class hands on its **kwargs, those of its parents too."""
    if isinstance(creator, type):
        functions = [vars(cls)["__init__"] for cls in creator.__mro__ if "__init__" in vars(cls)]
    else:
        functions = [creator]
    for function in functions:
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            return
        if isinstance(creator, type):
            parameters = parameters[1:]  # self
        yield from (p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            return
