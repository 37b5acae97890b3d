"""q_values.png: what a table has learned in a grid world: the values, the greedy policy, every entry."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap, Normalize, to_rgba
from matplotlib.figure import Figure

from rltrain.envs.grid_world import GridWorld
from rltrain.storage.files import write_atomic

_NEVER, _MARK, _INK = "#e4e4e4", "#8a8a8a", "#1d1d1d"
# The dark end is left out: black arrows and numbers are to be read on every colour.
_COLOURS = ListedColormap(ScalarMappable(cmap="YlGnBu").get_cmap()(np.linspace(0.02, 0.62, 256)))


def plot_q_values(run: Path, q_table: np.ndarray, visits: np.ndarray, grid: GridWorld, title: str) -> Path:
    """Draws Q(s, a) [S, A] of a run whose updates per entry are `visits` [S, A].

    Returns:
        The picture's path, q_values.png in the run's folder.

    Raises:
        OSError: it cannot be written.
    """
    picture = io.BytesIO()
    q_values(q_table, visits, grid, title).savefig(picture, format="png")
    path = run / "q_values.png"
    write_atomic(path, picture.getvalue())
    return path


def q_values(q_table: np.ndarray, visits: np.ndarray, grid: GridWorld, title: str) -> Figure:
    """The picture, not yet written. One grid: its values and policy, and every entry; several: values and policies."""
    seen = np.unique(np.concatenate([cells.reshape(-1) for _, cells in grid.cells]))
    seen = seen[visits[seen].any(-1)]
    entries = q_table[seen][visits[seen] > 0] if len(seen) else np.zeros(1)
    best = q_table[seen].max(-1) if len(seen) else np.zeros(1)
    rows, columns = grid.marks.shape
    if len(grid.cells) > 1:
        down, across = -(-len(grid.cells) // grid.columns), grid.columns
        figure = _figure(across * columns * 0.42 + 1.2, down * (rows * 0.42 + 0.4) + 0.8, title, grid.legend)
        axes = figure.subplots(down, across, squeeze=False).reshape(-1)
        scale = _scale(best)
        for place, (name, cells) in zip(axes, grid.cells, strict=False):
            _draw_policy(place, q_table, visits, cells, grid, scale, numbers=False)
            place.set_title(name, fontsize=8)
        for place in axes[len(grid.cells) :]:
            place.remove()
        _colour_bar(figure, list(axes[: len(grid.cells)]), scale, r"$\max_a\,Q(s,a)$")
        return figure
    wide = columns > 1.5 * rows
    size = (columns * 0.85 + 1.6, 2 * rows * 0.85 + 1.4) if wide else (2 * columns * 0.85 + 3.0, rows * 0.85 + 1.0)
    figure = _figure(*size, title, grid.legend)
    first, second = figure.subplots(*((2, 1) if wide else (1, 2)))
    _draw_policy(first, q_table, visits, grid.cells[0][1], grid, _scale(best), numbers=True)
    first.set_title(r"values $\max_a\,Q(s,a)$ and the greedy policy", fontsize=10, pad=9)
    _colour_bar(figure, [first], _scale(best), "")
    _draw_entries(second, q_table, visits, grid.cells[0][1], grid, _scale(entries))
    second.set_title(r"every entry $Q(s,a)$, towards where $a$ leads", fontsize=10, pad=9)
    _colour_bar(figure, [second], _scale(entries), "")
    return figure


def _figure(width: float, height: float, title: str, legend: str) -> Figure:
    figure = Figure(figsize=(max(width, 6.0), max(height, 3.0)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    figure.supxlabel(f"{legend}; grey: never tried", fontsize=8, x=0.01, ha="left")
    return figure


def _scale(values: np.ndarray) -> ScalarMappable:
    """Colours from the 10th percentile on: a few entries, such as those of a cliff, are far below all others."""
    low, high = float(np.percentile(values, 10)), float(values.max())
    return ScalarMappable(Normalize(low, high if high > low else low + 1.0), _COLOURS)


def _colour_bar(figure: Figure, axes: list[Axes], scale: ScalarMappable, label: str) -> None:
    figure.colorbar(scale, ax=axes, shrink=0.75, pad=0.02, aspect=25, extend="min", label=label)


def _draw_policy(
    axes: Axes,
    q_table: np.ndarray,
    visits: np.ndarray,
    cells: np.ndarray,
    grid: GridWorld,
    scale: ScalarMappable,
    numbers: bool,
) -> None:
    values = q_table[cells].max(-1)  # [rows, columns]
    known = visits[cells].any(-1)
    colours = scale.to_rgba(values)
    colours[~known] = to_rgba(_NEVER)
    axes.imshow(colours)
    _dress(axes, cells.shape)
    for row, column in np.ndindex(*cells.shape):
        mark = str(grid.marks[row, column])
        if not known[row, column]:
            axes.text(column, row, mark, ha="center", va="center", color=_MARK, fontsize=11, weight="bold")
            continue
        axes.text(column - 0.4, row - 0.26, mark, ha="left", va="center", color=_MARK, fontsize=7, weight="bold")
        _draw_action(axes, row - 0.06 * numbers, column, grid.actions[int(q_table[cells[row, column]].argmax())])
        if numbers:
            text = _number(values[row, column])
            axes.text(column, row + 0.34, text, ha="center", va="center", color=_INK, fontsize=7.5)


def _draw_action(axes: Axes, row: float, column: float, action: tuple[int, int] | str) -> None:
    if isinstance(action, str):
        axes.text(column, row, action, ha="center", va="center", color=_INK, fontsize=9, weight="bold")
        return
    right, down = 0.22 * action[0], 0.22 * action[1]
    style = {"arrowstyle": "-|>", "color": _INK, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8}
    axes.annotate("", (column + right, row + down), (column - right, row - down), arrowprops=style)


def _draw_entries(
    axes: Axes, q_table: np.ndarray, visits: np.ndarray, cells: np.ndarray, grid: GridWorld, scale: ScalarMappable
) -> None:
    """Each cell in four triangles, one per action."""
    triangles, colours = [], []
    for row, column in np.ndindex(*cells.shape):
        state = cells[row, column]
        if not visits[state].any():
            mark = str(grid.marks[row, column])
            axes.text(column, row, mark, ha="center", va="center", color=_MARK, fontsize=11, weight="bold")
            continue
        for action, direction in enumerate(grid.actions):
            assert not isinstance(direction, str)
            right, down = direction
            ends = [(right - down, down + right), (right + down, down - right)]
            triangles.append([(column, row), *((column + x / 2, row + y / 2) for x, y in ends)])
            tried = visits[state, action] > 0
            colours.append(scale.to_rgba(q_table[state, action]) if tried else to_rgba(_NEVER))
            if tried:
                text = _number(q_table[state, action])
                place = column + 0.31 * right, row + 0.33 * down
                axes.text(*place, text, ha="center", va="center", color=_INK, fontsize=5.6)
    axes.add_collection(PolyCollection(triangles, facecolors=colours, edgecolors="white", linewidths=0.6))
    axes.set_facecolor(_NEVER)
    _dress(axes, cells.shape)
    axes.set_aspect("equal")


def _dress(axes: Axes, shape: tuple[int, ...]) -> None:
    rows, columns = shape
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), xticks=[], yticks=[])
    for line in range(1, columns):
        axes.axvline(line - 0.5, color="white", linewidth=1)
    for line in range(1, rows):
        axes.axhline(line - 0.5, color="white", linewidth=1)
    axes.spines[:].set_visible(False)


def _number(value: float) -> str:
    """Two or three digits: 0.54, -1.9, -13, -112."""
    size = abs(value)
    return f"{value:.2f}" if size < 1 else f"{value:.1f}" if size < 10 else f"{value:.0f}"
