"""The ways a command may end badly, and the exit code of each."""

from __future__ import annotations

import os
import re
import signal

EXTRAS = {"box2d": "box2d", "mujoco": "mujoco", "classic-control": "render", "toy-text": "render"}
"""An extra of Gymnasium -> the extra of ours that brings what it is for."""

_PACKAGES = {"minatar": "minatar", "ale_py": "atari", "wandb": "wandb"}


class RequestError(Exception):
    """The request is wrong: a message of at most three lines, exit code 2."""


class CheckpointError(RequestError):
    """A checkpoint is damaged, foreign or absent."""


class RunFailed(Exception):
    """The run itself failed: exit code 1, the traceback goes to the run's log."""


class Pruned(Exception):
    """A trial of a search was given up before its end, after its runs were saved: no failure."""


class GoesOn(Exception):
    """A run is saved and goes on in another program, as most of its population have ended: no failure.

    Args:
        step: where it was saved; an earlier try may have left checkpoints of later steps.
        together: with the others that are left; not by itself.
    """

    def __init__(self, step: int, together: bool) -> None:
        super().__init__("goes on without those that have ended")
        self.step, self.together = step, together


class Interrupted(Exception):
    """A signal stopped the command, a run after it was saved.

    Args:
        exit_code: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP.
        message: what the user is told; unless given, `reason`.

    Attributes:
        reason: which signal it was.
    """

    def __init__(self, exit_code: int, message: str = "") -> None:
        signals = {130: "SIGINT", 143: "SIGTERM", 129: "SIGHUP (its terminal was closed)"}
        self.reason = f"stopped by {signals[exit_code]}" if exit_code in signals else "stopped"
        super().__init__(message or self.reason)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[type[Interrupted], tuple[int, str]]:
        return type(self), (self.exit_code, str(self))


def one_line(error: BaseException, limit: int = 300) -> str:
    """`Type: text` of an exception on one line, cut at `limit` characters."""
    text = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    return text if len(text) <= limit else text[: limit - 3] + "..."


def how_ended(code: int) -> str:
    """`signal SIGKILL` or `exit code 1`: what ended a process, by its return code."""
    if code >= 0:
        return f"exit code {code}"
    number = -code
    known = signal.Signals(number).name if number in {*signal.Signals} else str(number)
    return f"signal {known}{': memory may have run out' if number == signal.SIGKILL else ''}"


def module_hint(error: BaseException, module: str) -> str:
    """Advice for the user whose own module `module` was not found; empty for any other error."""
    if isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]:
        searched = [os.path.abspath(folder) for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
        advice = "" if os.getcwd() in searched else " (PYTHONPATH=. adds this folder)"
        return f" in the installed packages or $PYTHONPATH{advice}"
    return ""


def missing_extra(error: BaseException) -> str:
    """The missing package and the extra of ours that brings it, also read from Gymnasium's complaint; or nothing."""
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package in _PACKAGES:
        return f"{package} is not installed; pip install 'rltrain[{_PACKAGES[package]}]' brings it"
    wanted = re.search(r"(\S+) is not installed.*gymnasium\[([\w-]+)\]", str(error))
    extra = EXTRAS.get(wanted[2].replace("_", "-")) if wanted else None
    return f"{wanted[1]} is not installed; pip install 'rltrain[{extra}]' brings it" if wanted and extra else ""
