"""Figures over swept numbers: a heat map of two, slices of one or of several, with the best setting marked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import ScaledTranslation

from rltrain.report.comparison import best_in
from rltrain.report.contents import Contents
from rltrain.report.drawing import (
    INK,
    PALETTE,
    RANKED,
    colour_of,
    is_logarithmic,
    label,
    labels,
    luminance,
    marker_of,
    more_lines,
    panels,
    title,
    uncover,
)
from rltrain.report.groups import ENV, FOLDER, as_text, short_names
from rltrain.report.summary import Summary
from rltrain.terminal.text import number

_MOST_PANELS, _MOST_CELLS, _MOST_LABELS, _MOST_TICKS = 12, 24, 150, 8
_MOST_LINES = len(PALETTE)
_X_AXIS = 0.4  # inches that the labels of an x axis take
_LEAST_APART = 0.11  # of an axis, from one label to the next
_STAR = "#f0e442"
_LARGEST = 1e15


def swept_numbers(contents: Contents) -> list[str]:
    """The keys that tell settings apart by numbers alone."""
    found = {key for env in contents.envs for key in _swept_in(contents, env)}
    return [key for key in contents.groups.keys if key in found]


def _swept_in(contents: Contents, env: str) -> list[str]:
    """The keys whose numbers vary in an environment, among scored settings that are alike in all words: `total_steps`
    that come with the algorithm, or of which one value has scores, are not swept."""
    keys = [key for key in contents.groups.keys if key not in (ENV, FOLDER)]
    numbers = [key for key in keys if all(_is_number(s.setting.values.get(key)) for s in contents.summaries)]
    alike: dict[str, list[Summary]] = {}
    for summary in contents.of_env(env):
        if summary.score is not None:
            words = as_text({key: text for key, text in summary.setting.texts.items() if key not in numbers})
            alike.setdefault(words, []).append(summary)
    return [key for key in numbers if any(len(_values(part, key)) > 1 for part in alike.values())]


def is_grid(contents: Contents) -> bool:
    """Whether there are two swept numbers, of which most pairs of values were tried."""
    keys = swept_numbers(contents)
    if len(keys) != 2:
        return False
    values = [_values(contents.summaries, key) for key in keys]
    pairs = {tuple(s.setting.values[key] for key in keys) for s in contents.summaries}
    return max(map(len, values)) <= _MOST_CELLS and 2 * len(pairs) > len(values[0]) * len(values[1])


def heat_maps(contents: Contents) -> Figure:
    """A panel for each environment and each of the other keys' values; those of one environment share their colours."""
    keys = swept_numbers(contents)
    parts = _parts(contents, keys)[:_MOST_PANELS]
    wide, high = (len(_values(contents.summaries, key)) for key in (keys[1], keys[0]))
    figure, axes = panels(len(parts), max(2.6, 0.62 * wide + 1.5), max(2.1, 0.34 * high + 1.1))
    titles = labels([f"{env} {rest}".strip() for env, rest, _ in parts], 32)
    for (env, _, summaries), name, panel in zip(parts, titles, axes, strict=True):
        scores = [summary.score.value for summary in contents.of_env(env) if summary.score is not None]
        scale = Normalize(min(scores, default=None), max(scores, default=None))
        _draw_heat_map(panel, figure, summaries, keys, scale, best_in(contents.summaries, env))
        panel.set_title(name)
    return figure


def slices(contents: Contents) -> Figure:
    """A panel for each environment and each swept number."""
    keys = swept_numbers(contents)
    places = [(env, key) for env in contents.envs for key in _swept_in(contents, env)][:_MOST_PANELS]
    figure, axes = panels(len(places), columns=min(3, len(keys)) if len(keys) > 1 else 3)
    for (env, key), panel in zip(places, axes, strict=True):
        _draw_slice(panel, contents, env, key)
        title(panel, contents.title(env))
        panel.set_xlabel(label(short_names(keys)[key]))
        panel.set_ylabel("final greedy return")
    _add_legends(figure, axes)
    return figure


def _add_legends(figure: Figure, axes: Sequence[Axes]) -> None:
    """A legend below each panel of several lines, where it hides none; the figure grows by the highest of each row."""
    grown: dict[int, float] = {}  # row of panels -> inches
    for panel in axes:
        handles, names = panel.get_legend_handles_labels()
        place = panel.get_subplotspec()
        if len(names) < 2 or place is None:
            continue
        widest = max(len(line) for name in names for line in name.split("\n")) * 0.065 + 0.55  # inches
        columns = max(1, min(len(names), int(figure.get_figwidth() / place.get_gridspec().ncols / widest)))
        below = panel.transAxes + ScaledTranslation(0, -_X_AXIS, figure.dpi_scale_trans)
        panel.legend(handles, names, loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, ncols=columns)
        height = (0.17 + more_lines(names)) * math.ceil(len(names) / columns)
        grown[place.rowspan.start] = max(height, grown.get(place.rowspan.start, 0.0))
    figure.set_figheight(figure.get_figheight() + sum(grown.values()))


def _draw_heat_map(
    panel: Axes,
    figure: Figure,
    summaries: Sequence[Summary],
    keys: Sequence[str],
    scale: Normalize,
    best: Summary | None,
) -> None:
    rows, columns = _values(summaries, keys[0]), _values(summaries, keys[1])
    cells = np.full((len(rows), len(columns)), np.nan)
    for summary in summaries:
        row, column = rows.index(summary.setting.values[keys[0]]), columns.index(summary.setting.values[keys[1]])
        if summary.score is not None:
            cells[row, column] = summary.score.value
        if summary is best:
            place = (column - 0.5, row - 0.5)
            panel.add_patch(Rectangle(place, 1, 1, fill=False, edgecolor=PALETTE[1], linewidth=2.5, zorder=4))
    edges = [np.arange(len(values) + 1) - 0.5 for values in (columns, rows)]
    mesh = panel.pcolormesh(
        *edges, np.ma.masked_invalid(cells), norm=scale, cmap="cividis", edgecolors="white", linewidth=1.2
    )
    _label_cells(panel, mesh, cells)
    panel.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
    panel.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
    panel.tick_params(length=0)
    names = short_names(keys)
    panel.set_ylabel(label(names[keys[0]]))
    panel.set_xlabel(label(names[keys[1]]))
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)
    bar = figure.colorbar(mesh, ax=panel, pad=0.02, label="final greedy return")
    bar.ax.tick_params(length=2)


def _label_cells(panel: Axes, mesh: QuadMesh, cells: np.ndarray) -> None:
    """The value in each cell, black or white, whichever the cell's colour lets be read."""
    if cells.size > _MOST_LABELS:
        return
    scale = float(np.nanmax(np.abs(cells))) if np.isfinite(cells).any() else 0.0
    for (row, column), value in np.ndenumerate(cells):
        if np.isfinite(value):
            dark = luminance(np.asarray(mesh.cmap(mesh.norm(value)))) < 0.5
            panel.text(column, row, number(value, scale), ha="center", va="center", fontsize=7.5,
                       color="white" if dark else "black")  # fmt: skip


def _draw_slice(panel: Axes, contents: Contents, env: str, key: str) -> None:
    """A line for each combination of the other keys, where these are few; else the settings as dots."""
    scored = [summary for summary in contents.of_env(env) if summary.score is not None]
    lines: dict[str, list[Summary]] = {}
    for summary in scored:
        rest = as_text({other: value for other, value in summary.setting.texts.items() if other != key})
        lines.setdefault(rest, []).append(summary)
    joined = len(lines) <= _MOST_LINES and any(len(members) > 1 for members in lines.values())
    for rank, (name, members) in enumerate(zip(labels(list(lines)), lines.values(), strict=True)):
        members.sort(key=lambda summary: float(summary.setting.values[key]))
        _draw_line(panel, members, key, rank if joined else 0, name if joined else "")
    uncover(panel)
    best = best_in(contents.summaries, env)
    if best is not None and best.score is not None:
        place = (float(best.setting.values[key]), best.score.value)
        panel.plot(*place, "*", color=_STAR, markersize=13, markeredgecolor=INK, markeredgewidth=0.7, zorder=5)
        panel.annotate("best", place, (0, 8), textcoords="offset points", ha="center", va="bottom")
        panel.margins(y=0.18)
    values = _values(scored, key)
    if values and is_logarithmic(values):
        panel.set_xscale("log")
        panel.minorticks_off()
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if 0 < len(values) <= _MOST_TICKS:
        apart = legible_ticks(values)
        panel.set_xticks(apart, [f"{value:g}" for value in apart])


def legible_ticks(values: Sequence[float]) -> list[float]:
    """Of increasing values, the last and those before it whose labels do not lie on another."""
    places = np.log(values) if is_logarithmic(values) else np.asarray(values, np.float64)
    kept = [len(values) - 1]
    for place in range(len(values) - 2, -1, -1):
        if places[kept[-1]] - places[place] >= _LEAST_APART * (places[-1] - places[0]):
            kept.append(place)
    return [values[place] for place in reversed(kept)]


def _draw_line(panel: Axes, members: Sequence[Summary], key: str, rank: int, name: str) -> None:
    values = [float(summary.setting.values[key]) for summary in members]
    scores = [summary.score for summary in members if summary.score is not None]
    colour = colour_of(rank)
    style = "-" if len(members) > 1 else ""
    panel.plot(values, [score.value for score in scores], style, marker=marker_of(rank), markersize=4, color=colour,
               linewidth=1.4, label=name or None, zorder=RANKED)  # fmt: skip
    for value, score in zip(values, scores, strict=True):
        if score.low is not None and score.high is not None:
            panel.plot([value, value], [score.low, score.high], color=colour, linewidth=2.6, alpha=0.35, zorder=2,
                       solid_capstyle="butt")  # fmt: skip


def _parts(contents: Contents, keys: Sequence[str]) -> list[tuple[str, str, list[Summary]]]:
    """(environment, the other keys in one line, settings) of each panel."""
    found: dict[tuple[str, str], list[Summary]] = {}
    for summary in contents.summaries:
        rest = {key: text for key, text in summary.setting.texts.items() if key not in keys}
        found.setdefault((summary.setting.env, as_text(rest)), []).append(summary)
    return [(env, rest, summaries) for (env, rest), summaries in found.items()]


def _values(summaries: Sequence[Summary], key: str) -> list[Any]:
    return sorted({summary.setting.values[key] for summary in summaries})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST
