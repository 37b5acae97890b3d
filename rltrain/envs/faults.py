"""Names of an environment's faults, and where in its own code they lie."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

from rltrain.envs.returned import RESET_RULE, STEP_RULE, Mistake
from rltrain.errors import one_line
from rltrain.terminal.places import is_ours_or_gymnasium_s, origin
from rltrain.terminal.shell import shown_path


def described(error: BaseException) -> str:
    """One line about what went wrong inside or about an environment: a form that is not Gymnasium's by its name, an
    exception with the place in the environment's own code where it was raised."""
    if isinstance(error, Mistake):
        return " ".join(str(error).split())
    if misread := _misread(error):
        return misread
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg}, at {shown_path(Path(error.filename))}:{error.lineno}"
    place = origin(error)
    return one_line(error) + (f", at {place}" if place else "")


def _misread(error: BaseException) -> str | None:
    """Of an error that our code, or a wrapper of Gymnasium, ran into because it had expected Gymnasium's interface."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames or not is_ours_or_gymnasium_s(frames[-1][0].f_code.co_filename):
        return None
    text = str(error)
    if isinstance(error, ValueError | TypeError) and "unpack" in text:
        found = re.search(r"got (\d+)|non-iterable (\w+)", text)
        number = found and found[1]
        old = ": the old gym's step has 4, with `done` for the two flags" if number == "4" else ""
        what = f"{number} values{old}" if number else f"a {found[2]}" if found else "more"
        rule = STEP_RULE if "5" in text or frames[-1][0].f_code.co_name == "step" else RESET_RULE
        return f"{rule}, and it returned {what}"
    unexpected = re.search(r"reset\(\) got an unexpected keyword argument '(seed|options)'", text)
    if isinstance(error, TypeError) and unexpected:
        return f"reset must take `seed` and `options`, as in reset(self, *, seed=None, options=None): {text}"
    return None
