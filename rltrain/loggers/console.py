"""Progress of a run: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO

from rltrain.loggers.logger import NullLogger
from rltrain.loggers.pace import Pace
from rltrain.terminal.output import errors
from rltrain.terminal.text import draws_bars, number

_NAMES = {"rollout/episode_return": "return", "eval/episode_return": "eval"}
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt}{postfix}"  # tqdm's own time left takes the steps before learning for all


class ConsoleLogger(NullLogger):
    """Shows step, return, steps per second and the time left.

    Args:
        total_steps: the step at which the run ends.
        start_step: the step at which this process began (not 0 after a resume).
        may_end_early: whether it may end before.
        bar: whether a progress bar may be drawn (a single run); drawn only where `stream` is a terminal.
        stream: stderr unless told.
    """

    def __init__(
        self,
        total_steps: int,
        start_step: int = 0,
        *,
        may_end_early: bool = False,
        bar: bool = True,
        stream: TextIO | None = None,
    ) -> None:
        self._stream = errors() if stream is None else stream
        self._total = total_steps
        self._shown = start_step
        self._pace = Pace(start_step, bounded=may_end_early)
        self._speed: tuple[str, ...] = ()
        self._returns: dict[str, float] = {}
        self._bar = None
        if bar and draws_bars(self._stream):
            from tqdm import tqdm

            self._bar = tqdm(
                total=total_steps,
                initial=start_step,
                file=self._stream,
                unit_scale=True,
                dynamic_ncols=True,
                delay=1e-9,  # not drawn before the first row: the header comes first
                bar_format=_BAR,
            )

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        for tag in _NAMES:
            if tag in scalars:
                self._returns[tag] = scalars[tag]
        due = self._pace.note(step, scalars)
        if due:
            self._speed = self._pace.line(step, self._total - step)
        if self._bar is not None:
            self._speed = self._speed if step < self._total else self._speed[:1]
            self._bar.set_postfix_str(self._joined(), refresh=False)
            self._bar.update(min(step, self._total) - self._shown)
            self._shown = min(step, self._total)
        elif due:
            print(self._joined(f"step {step:,}/{self._total:,}"), file=self._stream, flush=True)

    def flush(self) -> None:
        self._stream.flush()

    def close(self, completed: bool | None = None) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _joined(self, *first: str) -> str:
        returns = (f"{name} {number(self._returns[tag])}" for tag, name in _NAMES.items() if tag in self._returns)
        return "  ".join(part for part in (*first, *returns, *self._speed) if part)
