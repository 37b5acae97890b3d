"""What a person sees while a population trains: a line every few seconds for all members together."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from rltrain.loggers.console import duration
from rltrain.text import number

_LINE_SECONDS = 5.0


class PopulationConsole:
    """Shows the mean step and return, the steps per second of all members together, and the time left.

    A line is printed as the last of the members that still train has logged, so that it speaks of all at one time.

    Args:
        total_steps: of each member, the step at which it ends.
        start_steps: of each member, where this process began (not 0 after a resume).
        stream: stderr unless told.
    """

    def __init__(
        self, total_steps: Sequence[int], start_steps: Sequence[int] | None = None, stream: TextIO | None = None
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._total = list(total_steps)
        self._steps = [0] * len(total_steps) if start_steps is None else list(start_steps)
        self._returns: dict[int, float] = {}
        self._round: set[int] = set()  # who has logged since all had
        self._expected = set(range(len(total_steps)))
        self._line_done, self._line_time = self._done, time.monotonic()  # the speed is that since the line before

    def of_member(self, member: int) -> MemberConsole:
        """The logger of one member."""
        return MemberConsole(self, member)

    def log(self, member: int, step: int, scalars: Mapping[str, float]) -> None:
        if member in self._round:  # somebody has ended: the others begin another round without it
            self._expected, self._round = self._round, set()
        self._round.add(member)
        self._steps[member] = step
        if "rollout/episode_return" in scalars:
            self._returns[member] = scalars["rollout/episode_return"]
        if not self._round >= self._expected:
            return
        self._round = set()
        now = time.monotonic()
        if now >= self._line_time + _LINE_SECONDS:
            print(self._line(now), file=self._stream, flush=True)
            self._line_done, self._line_time = self._done, now

    @property
    def _done(self) -> int:
        return sum(self._steps)

    def _line(self, now: float) -> str:
        speed = (self._done - self._line_done) / max(now - self._line_time, 1e-9)
        parts = [f"step {self._done // len(self._total):,}/{max(self._total):,} of each"]
        if self._returns:
            values = sorted(self._returns.values())
            mean = sum(values) / len(values)
            parts.append(f"return {number(mean)} ({number(values[0])} to {number(values[-1])})")
        parts.append(f"{speed:,.0f} steps/s together")
        if speed > 0:
            parts.append(f"{duration((sum(self._total) - self._done) / speed)} left")
        return "  ".join(parts)


class MemberConsole:
    """Hands one member's rows to the console of all."""

    def __init__(self, console: PopulationConsole, member: int) -> None:
        self._console = console
        self._member = member

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._console.log(self._member, step, scalars)

    def flush(self) -> None: ...

    def close(self, completed: bool | None = None) -> None: ...
