"""rltrain: a config-driven command-line trainer for deep reinforcement learning."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rltrain.api import Run, Sweep, sweep, train
    from rltrain.policy.load import load

__version__ = "0.1.0"
__all__ = ["Run", "Sweep", "__version__", "load", "sweep", "train"]
_HOMES = {"load": "rltrain.policy.load", **dict.fromkeys(("Run", "Sweep", "sweep", "train"), "rltrain.api")}


def __getattr__(name: str) -> Any:
    # The command line imports this package for every refusal, and torch takes longer than all the rest.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({name for name in globals() if name.startswith("__")} | {*__all__})
