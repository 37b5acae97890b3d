"""Places in a user's own code, by which messages name what went wrong in it."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from rltrain.terminal.shell import shown_path

_OURS = str(Path(__file__).parents[1]) + os.sep
_GYMNASIUM_S_OWN = ("/gymnasium/core.py", "/gymnasium/wrappers/", "/gymnasium/envs/registration.py")
_INSTALLED = ("/site-packages/", "/dist-packages/", "/lib/python3")


def at_origin(error: BaseException) -> str:
    """`, at file:line` of a plug-in that is not installed, to be put behind its error; empty where none was running."""
    place = origin(error, installed=False)
    return f", at {place}" if place else ""


def origin(error: BaseException, installed: bool = True) -> str | None:
    """`file:line` of the user's code where an exception was raised, or from where it called what raised it; None where
    none of it was running.

    Args:
        installed: whether a package that is installed, and not ours, may be the user's: an environment's.
    """
    frames = [
        (frame.f_code.co_filename, line, str(frame.f_globals.get("__name__")).partition(".")[0])
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not is_ours_or_gymnasium_s(frame.f_code.co_filename)
    ]
    own = [frame for frame in frames if not any(part in frame[0] for part in _INSTALLED)]
    of_first = [frame for frame in frames if frame[2] == frames[0][2]] if installed else []
    if not (own or of_first):
        return None
    file, line, _ = (own or of_first)[-1]
    return f"{shown_path(Path(file))}:{line}"


def is_ours_or_gymnasium_s(file: str) -> bool:
    """Whether a source file is no user's: it is part of rltrain, or of what Gymnasium puts around an environment."""
    return file.startswith((_OURS, "<")) or any(part in file for part in _GYMNASIUM_S_OWN)
