"""Progress of a population: a line every few seconds for all members together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TextIO

from rltrain.loggers.logger import NullLogger
from rltrain.loggers.pace import Pace
from rltrain.terminal.output import errors
from rltrain.terminal.text import counted, number


class PopulationConsole:
    """Shows the mean step and return, the steps per second of all members together, and the time left.

    A line is printed as the last of the members that still train has logged, so that it speaks of all at one time.

    Args:
        total_steps: of each member, the step at which it ends.
        start_steps: of each member, where this process began (not 0 after a resume).
        may_end_early: whether some may end before.
        name: begins each line, where several populations train side by side.
        stream: stderr unless told.
    """

    def __init__(
        self,
        total_steps: Sequence[int],
        start_steps: Sequence[int] | None = None,
        *,
        may_end_early: bool = False,
        name: str = "",
        stream: TextIO | None = None,
    ) -> None:
        self._stream = errors() if stream is None else stream
        self._name = name
        self._total = list(total_steps)
        self._steps = [0] * len(total_steps) if start_steps is None else list(start_steps)
        self._returns: dict[int, float] = {}
        self._round: set[int] = set()  # who has logged since all had
        self._expected = set(range(len(total_steps)))
        self._pace = Pace(self._done, bounded=may_end_early)

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
        if self._pace.note(self._done, scalars):
            print(self._line(), file=self._stream, flush=True)

    @property
    def _done(self) -> int:
        return sum(self._steps)

    def _line(self) -> str:
        steps, totals = ([of[member] for member in self._expected] for of in (self._steps, self._total))
        least, most = min(totals), max(totals)
        jobs = counted(len(totals), "job")  # that still train
        limit = f" of {least:,} to {most:,} ({jobs})"
        if least == most:
            limit = f"/{most:,} of {'each' if len(totals) == len(self._total) else jobs}"
        if len(self._total) == 1:
            limit = f"/{most:,}"
        parts = [f"step {sum(steps) // len(steps):,}{limit}"]
        alone = len(steps) == 1
        if values := sorted(self._returns[member] for member in self._expected if member in self._returns):
            mean = sum(values) / len(values)
            spread = "" if alone else f" ({number(values[0])} to {number(values[-1])})"
            parts.append(f"return {number(mean)}{spread}")
        to_go = sum(self._total[member] - self._steps[member] for member in self._expected)
        speed, left = self._pace.line(self._done, to_go)
        return "  ".join(part for part in (self._name, *parts, speed if alone else f"{speed} together", left) if part)


class MemberConsole(NullLogger):
    """Hands one member's rows to the console of all."""

    def __init__(self, console: PopulationConsole, member: int) -> None:
        self._console = console
        self._member = member

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._console.log(self._member, step, scalars)
