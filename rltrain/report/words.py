"""Words and numbers of a report, the same on the terminal and on the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rltrain.terminal.table import NOTHING
from rltrain.terminal.text import number

if TYPE_CHECKING:
    from rltrain.report.summary import Estimate, Summary

PAGE, TENSORBOARD = "report.html", "tensorboard"
_LONG = 1e9
"""From which on numbers are written with an exponent."""


def shown_estimate(estimate: Estimate | None) -> str:
    """`229.7 [187.0, 243.3]`, all with the decimals of the largest."""
    if estimate is None:
        return NOTHING
    ends: Sequence[float] = [end for end in (estimate.low, estimate.high) if end is not None]
    scale = max(map(abs, (estimate.value, *ends)))
    value, *shown = (number(n, scale) if scale < _LONG else f"{n:.4g}" for n in (estimate.value, *ends))
    return value + (f" [{', '.join(shown)}]" if shown else "")


def shown_solved(summary: Summary) -> str:
    """`3 of 5, 1 lost`; nothing where no run can be judged."""
    lost = f", {summary.lost} lost" if summary.lost else ""
    return f"{summary.solved} of {summary.judged}{lost}" if summary.judged else NOTHING


def cells(summary: Summary) -> tuple[str, str, str, str, str, str]:
    """Seeds, final return, how many solved, at which step, area and steps per second of a setting."""
    scored, seeds = len(summary.scores), len(summary.setting.runs)
    return (
        str(seeds) if scored == seeds else f"{scored} of {seeds}",
        shown_estimate(summary.score),
        shown_solved(summary),
        NOTHING if summary.solve_step is None else f"{summary.solve_step:,.0f}",
        shown_estimate(summary.area),
        NOTHING if summary.speed is None else f"{summary.speed:,.0f}",
    )
