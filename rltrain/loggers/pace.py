"""How fast a training goes, and the time left once that can be known."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping

LINE_SECONDS = 5.0
_SECONDS_OF_LEARNING = 2 * LINE_SECONDS
"""How long learning must have been seen before its speed is believed."""
_LINES = 13  # a minute: long enough for an evaluation to be a part of it, short enough to follow a change


class Pace:
    """The speed since the line before, and the time left.

    Until learning begins steps are quicker than after it, and its first update may be compiled for half a minute: the
    time left is told from steps that learn, once there are ten seconds of them.

    Args:
        done: environment steps that were made before.
        bounded: whether the run may end before its last step, so that the time left is the most there can be.
    """

    def __init__(self, done: int, *, bounded: bool = False) -> None:
        self._bounded = bounded
        self._before = done, time.monotonic()
        self._learned: deque[tuple[int, float]] = deque(maxlen=_LINES)

    def note(self, done: int, scalars: Mapping[str, float]) -> bool:
        """Takes a row of the log in; whether it is time for a line."""
        now = time.monotonic()
        if not self._learned and _learns(scalars):
            self._learned.append((done, now))
        return now >= self._before[1] + LINE_SECONDS

    def line(self, done: int, to_go: int) -> tuple[str, str]:
        """`500 steps/s` and `0:00:15 left`, the latter empty where that cannot be known.

        Args:
            done: environment steps made so far.
            to_go: how many are to come.
        """
        now = time.monotonic()
        speed = (done - self._before[0]) / max(now - self._before[1], 1e-9)
        self._before = done, now
        if self._learned and self._learned[-1][1] < now:
            self._learned.append((done, now))
        return f"{speed:,.0f} steps/s", self._left(to_go)

    def _left(self, to_go: int) -> str:
        if not self._learned:
            return ""
        (first, since), (last, now) = self._learned[0], self._learned[-1]
        if now - since < _SECONDS_OF_LEARNING or last == first:
            return ""
        left = duration(max(to_go, 0) * (now - since) / (last - first))
        return f"at most {left} left" if self._bounded else f"{left} left"


def duration(seconds: float) -> str:
    """h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _learns(scalars: Mapping[str, float]) -> bool:
    """Whether the steps of a row have learned; an algorithm without gradient steps learns from the first on."""
    if "train/gradient_steps" in scalars:
        return scalars["train/gradient_steps"] > 0
    return "time/steps_per_second" in scalars
