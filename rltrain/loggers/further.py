"""Loggers beside metrics.jsonl and TensorBoard: those of `loggers=[wandb,my_module:MyLogger]`."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from rltrain.errors import RequestError, RunFailed, module_hint, one_line
from rltrain.loggers.logger import Logger
from rltrain.terminal.output import warn
from rltrain.terminal.places import at_origin

_log = logging.getLogger(__name__)

KNOWN = {"wandb": "rltrain.loggers.wandb:WandbLogger"}
"""Names that need no module."""


class MakeLogger(Protocol):
    """A logger's class, or a function that makes one."""

    def __call__(self, folder: Path, resume_step: int | None, config: Mapping[str, Any]) -> Logger:
        """
        Args:
            folder: of the run.
            resume_step: where the run continues from: rows of later steps come again. None: a new run.
            config: of the run, nested.
        """
        ...


def find_logger(name: str) -> MakeLogger:
    """The class of a logger.

    Raises:
        RequestError: there is none of that name, or its package is not installed.
    """
    if name in KNOWN and importlib.util.find_spec(name) is None:
        raise RequestError(f"loggers=[{name}]: {name} is not installed; pip install 'rltrain[{name}]' brings it")
    module, _, attribute = KNOWN.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise RequestError(f"loggers=[{name}]: {error}{module_hint(error, module)}") from error
    if not callable(found):
        raise RequestError(f"loggers=[{name}]: the module {module} has no {attribute} that makes a logger")
    return cast(MakeLogger, found)


class FurtherLogger:
    """One of `loggers=[...]`, told of the run's end once. Its errors name it; one in `close` fails no run, of which all
    is written by then.

    Raises:
        RunFailed: it raises.
    """

    def __init__(self, name: str, folder: Path, resume_step: int | None, config: Mapping[str, Any]) -> None:
        self._name, self._closed = name, False
        make = find_logger(name)
        self._logger: Logger
        self._call(lambda: setattr(self, "_logger", make(folder, resume_step, config)))

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._call(lambda: self._logger.log(step, scalars))

    def result(self, step: int, scalars: Mapping[str, float]) -> None:
        self._call(lambda: self._logger.result(step, scalars))

    def video(self, step: int, path: Path) -> None:
        self._call(lambda: self._logger.video(step, path))

    def flush(self) -> None:
        self._call(lambda: self._logger.flush())

    def close(self, completed: bool | None = None) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._logger.close(completed)
        except Exception as error:
            warn(_log, f"{self._described(error)}, when it was closed")
            _log.info("of the logger:", exc_info=error)

    def _call(self, of_logger: Callable[[], None]) -> None:
        try:
            of_logger()
        except Exception as error:
            raise RunFailed(self._described(error)) from error

    def _described(self, error: Exception) -> str:
        return f"loggers=[{self._name}]: {one_line(error)}{at_origin(error)}"
