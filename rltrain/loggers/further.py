"""Loggers beside metrics.jsonl and TensorBoard: those of `loggers=[wandb,my_module:MyLogger]`."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from rltrain.errors import RequestError, module_hint
from rltrain.loggers.logger import Logger

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
