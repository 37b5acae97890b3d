"""Series of a run, read from its metrics.jsonl row by row, in bounded memory."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rltrain.loggers.jsonl import read_tags
from rltrain.storage.run_result import LARGEST, MOST_STEPS
from rltrain.terminal.text import counted

SPEED = "time/steps_per_second"
MOST_POINTS = 4096
"""Of a series, an even number: those of a longer one are means of neighbouring rows."""


@dataclass(frozen=True)
class Series:
    """A function of environment steps: linear between its points, and constant after the last one.

    Attributes:
        steps: float64 [N], increasing.
        values: float64 [N].
    """

    steps: np.ndarray
    values: np.ndarray

    def at(self, steps: np.ndarray) -> np.ndarray:
        """Values at `steps`, [G] -> [G]; NaN before the first point."""
        return np.asarray(np.interp(steps, self.steps, self.values, left=math.nan))

    def means(self, edges: np.ndarray) -> np.ndarray:
        """Means between neighbouring `edges`, [G + 1] -> [G]; NaN where the first point comes later."""
        return np.asarray(np.diff(self._integral(edges)) / np.diff(edges))

    def _integral(self, steps: np.ndarray) -> np.ndarray:
        """From the first point to each of `steps`, NaN before it."""
        areas = np.concatenate([[0.0], np.cumsum(np.diff(self.steps) * (self.values[1:] + self.values[:-1]) / 2)])
        place = np.clip(np.searchsorted(self.steps, steps, side="right") - 1, 0, None)
        beyond = (steps - self.steps[place]) * (self.values[place] + self.at(steps)) / 2
        return np.asarray(areas[place] + beyond)


@dataclass(frozen=True)
class Metrics:
    """The metrics of a run.

    Attributes:
        series: by tag; only those that have a point.
        last_step: of the last row; None where there is none.
        train_seconds: in training, without evaluations; None where no row has a speed.
        speed: environment steps per second, as far as rows tell; None where none does.
        not_finite: how many values were left out since they are NaN, infinite or no numbers.
        faults: what a file that training wrote does not have: lines that are no rows, rows that are missing.
        has_gaps: whether rows are missing.
    """

    series: dict[str, Series]
    last_step: int | None
    train_seconds: float | None
    speed: float | None = None
    not_finite: int = 0
    faults: tuple[str, ...] = ()
    has_gaps: bool = False


def read_metrics(path: Path, tags: Collection[str], longest: float = math.inf, end: int | None = None) -> Metrics:
    """The series of `tags` in a metrics file. Rows without a finite value are left out, and so are torn lines.

    Args:
        longest: the most steps from one row to the next.
        end: the step of the last row, where the run has come to its end; rows beyond it are a stranger's.

    Raises:
        OSError: the file cannot be read.
    """
    points = {tag: _Points() for tag in tags}
    last, not_finite, check, pace = None, 0, _Check(longest, end), _Pace()
    for row in read_tags(path, [SPEED, *tags]):
        step = row.get("step", -1)
        if not check.admits(step, last):
            continue
        for tag, kept in points.items():
            if tag in row:
                if (value := _number(row[tag])) is not None:
                    kept.add(step, value)
                else:
                    not_finite += 1
        if SPEED in row:
            pace.add(step, _number(row[SPEED]))
        last = step if last is None else max(last, step)
    series = {tag: found.series() for tag, found in points.items() if found}
    faults = tuple(check.faults(last))
    return Metrics(series, last, pace.seconds or None, pace.speed, not_finite, faults, check.has_gaps(last))


class _Pace:
    """Seconds of training, from the speeds of rows: each is that since the row before that has one, whatever rows of
    evaluations lie between."""

    def __init__(self) -> None:
        self.seconds, self._steps, self._last = 0.0, 0, 0

    @property
    def speed(self) -> float | None:
        return self._steps / self.seconds if self.seconds else None

    def add(self, step: int, speed: float | None) -> None:
        if speed is not None and speed > 0 and step > self._last:
            self.seconds += (step - self._last) / speed
            self._steps += step - self._last
        self._last = max(self._last, step)


class _Check:
    """Faults of the rows of a metrics file, counted as they come."""

    def __init__(self, longest: float, end: int | None) -> None:
        self._longest, self._end = longest, end
        self._skipped = self._beyond = self._unordered = self._gaps = 0
        self._gap = (0, 0)  # the first

    def admits(self, step: int, last: int | None) -> bool:
        """Whether a row of `step` may be the run's; `last` is the largest step before it, None for the first row."""
        if not 0 <= step < MOST_STEPS:
            self._skipped += 1
            return False
        if self._end is not None and step > self._end:
            self._beyond += 1
            return False
        if last is not None and step <= last:
            self._unordered += 1
        elif step - (last or 0) > self._longest:
            self._gap = self._gap if self._gaps else (last or 0, step)
            self._gaps += 1
        return True

    def faults(self, last: int | None) -> list[str]:
        """Each in a few words, about the file."""
        found = []
        if self._skipped:
            found.append(f"{counted(self._skipped, 'line')} skipped (no row, or torn)")
        if self._beyond:
            found.append(f"{counted(self._beyond, 'row')} skipped (beyond the last step, {self._end:,})")
        if self._unordered:
            found.append(f"{counted(self._unordered, 'row')} out of order")
        if self._gaps:
            more = f" and in {counted(self._gaps - 1, 'other gap')}" if self._gaps > 1 else ""
            found.append(f"rows missing from step {self._gap[0]:,} to {self._gap[1]:,}{more}")
        if self._end is not None and (last or 0) < self._end:
            found.append(f"rows missing from step {last or 0:,} to the last, {self._end:,}")
        return found

    def has_gaps(self, last: int | None) -> bool:
        return self._gaps > 0 or (self._end is not None and (last or 0) < self._end)


class _Points:
    """The points of one series as they come, each the mean of as many rows as keeps them few."""

    def __init__(self) -> None:
        self.steps, self.values = array("d"), array("d")
        self._rows_each, self._rows, self._step, self._value = 1, 0, 0.0, 0.0

    def __bool__(self) -> bool:
        return self._rows > 0 or len(self.steps) > 0

    def add(self, step: int, value: float) -> None:
        if self._rows_each == 1:
            self.steps.append(step)
            self.values.append(value)
            self._keep_few()
            return
        self._rows += 1
        self._step += step
        self._value += value
        if self._rows == self._rows_each:
            self._end_point()

    def series(self) -> Series:
        if self._rows:
            self._end_point()
        steps, values = np.array(self.steps), np.array(self.values)
        if (np.diff(steps) <= 0).any():  # no file of ours; of two values of one step the later holds
            steps, last = np.unique(steps[::-1], return_index=True)
            values = values[::-1][last]
        return Series(steps, values)

    def _end_point(self) -> None:
        self.steps.append(self._step / self._rows)
        self.values.append(self._value / self._rows)
        self._rows, self._step, self._value = 0, 0.0, 0.0
        self._keep_few()

    def _keep_few(self) -> None:
        if len(self.steps) == MOST_POINTS:
            self.steps, self.values = _halved(self.steps), _halved(self.values)
            self._rows_each *= 2


def _halved(numbers: array[float]) -> array[float]:
    return array("d", np.array(numbers).reshape(-1, 2).mean(axis=1))


def _number(value: Any) -> float | None:
    if type(value) is int:
        value = float(value) if -LARGEST < value < LARGEST else None
    return value if type(value) is float and -LARGEST < value < LARGEST else None
