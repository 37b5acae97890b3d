"""The benchmark as one picture: a panel per work, a bar per program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

PANELS = ("w1", "w32", "ppo", "reinforce", "atari", "solved")
_LONGEST_TITLE = 60
OTHERS, OWN, UNSOLVED = "#9aa5b1", "#1f77b4", "#d62728"


def draw(results: Mapping[str, Any], path: Path) -> bool:
    """Writes the picture; False where there is nothing to show yet."""
    panels = [(name, results[name]) for name in PANELS if name in results]
    if not panels:
        return False
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(5.4 * columns, 2.5 * lines), dpi=120, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (name, part) in zip(grid, panels, strict=False):
        solved = name == "solved"
        title = "From the shell to CartPole-v1 solved" if solved else part["title"]
        bars(axes, {label: row.get("warm" if solved else "runs", []) for label, row in part["rows"].items()}, solved)
        title = title if len(title) <= _LONGEST_TITLE else title.partition(":")[0]
        axes.set_title(title.replace(", steps per second in total", " in total"), fontsize=10, loc="left")
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(path)
    return True


def bars(axes: Axes, rows: Mapping[str, list[dict[str, Any]]], solved: bool) -> None:
    """Medians as bars, the range as a whisker, every single measurement as a dot."""
    key = "wall_seconds" if solved else "steps_per_second"
    shown = {label: runs for label, runs in rows.items() if runs}
    top = max((run[key] for runs in shown.values() for run in runs), default=1.0)
    for place, (label, runs) in enumerate(shown.items()):
        values = np.array([run[key] for run in runs])
        middle = float(np.median(values))
        axes.barh(place, middle, height=0.62, color=OWN if label.startswith("rltrain") else OTHERS)
        if len(values) > 1:
            axes.hlines(place, values.min(), values.max(), color="black", linewidth=1)
            axes.plot(values, np.full(len(values), place), "|", color="black", markersize=7)
        text = f"{middle:.1f} s" if solved else f"{middle:,.0f}"
        failed = sum(not run["solved"] for run in runs) if solved else 0
        note = f"  ({failed} of {len(runs)} not solved)" if failed else ""
        color = UNSOLVED if failed else "black"
        axes.text(values.max() + 0.015 * top, place, text + note, va="center", fontsize=9, color=color)
    axes.set_yticks(range(len(shown)), list(shown))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * top if not solved else 1.6 * top)
    axes.set_xlabel("seconds (shorter is better)" if solved else "environment steps per second", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
