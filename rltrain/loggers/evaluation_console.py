"""Progress of an evaluation: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TextIO

from rltrain.loggers.pace import LINE_SECONDS, duration
from rltrain.terminal.output import errors
from rltrain.terminal.text import draws_bars

if TYPE_CHECKING:
    from tqdm import tqdm

_BAR_SECONDS = 0.5


class EvaluationConsole:
    """Shows the episodes that have ended and the time left; nothing of an evaluation that is over at once.

    Args:
        bar: whether a progress bar may be drawn (not by a sweep's job); drawn only where `stream` is a terminal.
        stream: stderr unless told.
    """

    def __init__(self, *, bar: bool = True, stream: TextIO | None = None) -> None:
        self._stream = errors() if stream is None else stream
        self._draws = bar and draws_bars(self._stream)
        self._period = _BAR_SECONDS if self._draws else LINE_SECONDS
        self._bar: tqdm[Any] | None = None
        self._episodes = 0
        self._began = self._next = 0.0

    def begin(self, episodes: int) -> None:
        self._episodes = episodes
        self._began = time.monotonic()
        self._next = self._began + self._period

    def due(self) -> bool:
        return time.monotonic() >= self._next

    def show(self, ended: int, steps: int, steps_left: float, guessed: bool) -> None:
        now = time.monotonic()
        self._next = now + self._period
        seconds = steps_left * (now - self._began) / max(steps, 1)
        left = f"{duration(seconds)} left" if guessed else f"at most {duration(seconds)} left"
        text = f"evaluating  {ended:,}/{self._episodes:,} episodes  {steps:,} steps"
        if not self._draws:
            print(f"{text}  {left}", file=self._stream, flush=True)
            return
        # By steps: episodes that are played side by side may all end at the same time.
        done, form = steps / max(steps + steps_left, 1), f"{text} |{{bar}}| {left}"
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                initial=done, total=1.0, file=self._stream, leave=False, dynamic_ncols=True, bar_format=form
            )
            return
        self._bar.n, self._bar.bar_format = done, form
        self._bar.refresh()

    def end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
