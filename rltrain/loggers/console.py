"""What a person sees while a run trains: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from rltrain.text import number

_LINE_SECONDS = 5.0
_RETURN_TAGS = ("rollout/episode_return", "eval/episode_return")


class ConsoleLogger:
    """Shows step, return, steps per second and the time left.

    Args:
        total_steps: the step at which the run ends.
        start_step: the step at which this process began (not 0 after a resume).
        bar: whether a progress bar may be drawn (a single run); drawn only where `stream` is a terminal.
        stream: stderr unless told.
    """

    def __init__(
        self, total_steps: int, start_step: int = 0, *, bar: bool = True, stream: TextIO | None = None
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._total = total_steps
        self._step = start_step
        # The speed is that since the line before: what compiling took says nothing about the time left.
        self._line_step, self._line_time = start_step, time.monotonic()
        self._returns: dict[str, float] = {}
        self._bar = None
        if bar and self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total_steps,
                initial=start_step,
                file=self._stream,
                unit="step",
                unit_scale=True,
                dynamic_ncols=True,
                delay=1e-9,  # not drawn before the first row: the header comes first
            )

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        for tag in _RETURN_TAGS:
            if tag in scalars:
                self._returns[tag] = scalars[tag]
        if self._bar is not None:
            self._bar.set_postfix_str(self._return_text(), refresh=False)
            self._bar.update(min(step, self._total) - self._step)
            self._step = min(step, self._total)
            return
        self._step = step
        now = time.monotonic()
        if now >= self._line_time + _LINE_SECONDS:
            print(self._line(now), file=self._stream, flush=True)
            self._line_step, self._line_time = step, now

    def flush(self) -> None:
        self._stream.flush()

    def close(self, completed: bool | None = None) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _line(self, now: float) -> str:
        speed = (self._step - self._line_step) / max(now - self._line_time, 1e-9)
        left = max(self._total - self._step, 0) / speed if speed > 0 else None
        parts = [f"step {self._step:,}/{self._total:,}", self._return_text(), f"{speed:,.0f} steps/s"]
        if left is not None:
            parts.append(f"{duration(left)} left")
        return "  ".join(part for part in parts if part)

    def _return_text(self) -> str:
        names = {"rollout/episode_return": "return", "eval/episode_return": "eval"}
        return "  ".join(f"{names[tag]} {number(value)}" for tag, value in self._returns.items())


def duration(seconds: float) -> str:
    """h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
