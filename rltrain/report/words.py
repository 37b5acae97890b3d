"""Words and numbers of a report, the same on the terminal and on the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rltrain.terminal.table import NOTHING
from rltrain.terminal.text import number

if TYPE_CHECKING:
    from rltrain.report.summary import Estimate

PAGE, TENSORBOARD = "report.html", "tensorboard"


def shown_estimate(estimate: Estimate | None) -> str:
    """`229.7 [187.0, 243.3]`, all with the decimals of the largest."""
    if estimate is None:
        return NOTHING
    ends: Sequence[float] = [end for end in (estimate.low, estimate.high) if end is not None]
    scale = max(map(abs, (estimate.value, *ends)))
    interval = f" [{', '.join(number(end, scale) for end in ends)}]" if ends else ""
    return number(estimate.value, scale) + interval
