"""Drawing: the style that the figures of a report share, and their PNG and SVG files."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from rltrain.terminal.text import harmless, shortened

INK = "#1b1f24"
"""Of text, axes and grids: nothing else in a figure has this colour, so that the page can draw it in its own."""
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f5539")
"""Okabe and Ito's colours, which colour-blind readers tell apart, without black and without the yellow that white
hides; and a brown."""
GREY = "#8c8c8c"
_MARKERS = "osD^vPX"
RANKED = 3
"""The zorder of the lines that have colours by their rank."""
_HIDES, _EDGES = 3e-3, 1.8  # of a panel's height: less than half a line; points by which a hidden line is wider
_MOST_LINES, _LINE_HEIGHT = 3, 0.13  # of a name; inches
_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "rltrain",
    "text.parse_math": False,  # a name may hold dollar signs
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), INK
    ),
}


@contextmanager
def styled() -> Iterator[None]:
    """Figures that are made and written inside look alike, and are the same on every machine with these versions."""
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")  # letters that the font lacks are shown as boxes
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def panels(count: int, width: float = 3.3, height: float = 2.5, columns: int = 3) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels; one alone is wider."""
    columns = min(count, columns if count != 4 else 2)
    rows = math.ceil(count / columns)
    if count == 1:
        width, height = max(width, 5.6), max(height, 3.2)
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, columns, place + 1) for place in range(count)]
    return figure, axes


def leftmost(panel: Axes) -> bool:
    """Whether a panel is the first of its row."""
    place = panel.get_subplotspec()
    return place is not None and place.is_first_col()


def legend_below(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """A legend under all panels, in as many columns as it has room for; the figure grows by its rows."""
    if not handles:
        return
    width = figure.get_figwidth()
    widest = max(len(line) for text in labels for line in text.split("\n")) * 0.065 + 0.55  # inches
    columns = max(1, min(len(labels), int(width / widest)))
    rows = math.ceil(len(labels) / columns)
    figure.set_figheight(figure.get_figheight() + (0.19 + more_lines(labels)) * rows + 0.1)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=1.8, columnspacing=1.4)


def label(text: str, longest: int = 44) -> str:
    """A name as a figure shows it: on one line, and not too long."""
    text = shortened(harmless(text), longest)
    return f" {text}" if text.startswith("_") else text  # Matplotlib hides what begins with one


def labels(texts: Sequence[str], longest: int = 44) -> list[str]:
    """Names as a figure shows them, each on up to three lines of `longest` letters; no two of them are the same.

    Where one needs more lines, all are without the words that they share. What is still too long is cut at its end, and
    where that makes two the same, all begin with their numbers in `texts`, #1 and so on.
    """
    found = [harmless(text) for text in texts]
    if any(len(textwrap.wrap(text, longest, break_on_hyphens=False)) > _MOST_LINES for text in found):
        found = _without_shared(found)
    shown = [_on_lines(text, longest) for text in found]
    if len(set(shown)) < len(set(found)):
        shown = [_on_lines(f"#{number} {text}", longest) for number, text in enumerate(found, 1)]
    return [f" {text}" if text.startswith("_") else text for text in shown]


def more_lines(names: Sequence[str]) -> float:
    """Inches that the longest of some names takes beyond its first line."""
    return _LINE_HEIGHT * max((text.count("\n") for text in names), default=0)


def _without_shared(texts: Sequence[str]) -> list[str]:
    words = [text.split() for text in texts]
    shared = set.intersection(*map(set, words)) if len(texts) > 1 else set()
    return [" ".join(w for w in own if w not in shared) or text for own, text in zip(words, texts, strict=True)]


def _on_lines(text: str, longest: int) -> str:
    return "\n".join(textwrap.wrap(text, longest, max_lines=_MOST_LINES, placeholder="...", break_on_hyphens=False))


def title(panel: Axes, text: str) -> None:
    """A title that is no wider than its panel, on up to two lines."""
    lines = textwrap.wrap(harmless(text), 34, max_lines=2, placeholder="...", break_on_hyphens=False)
    panel.set_title("\n".join(lines))


def colour_of(rank: int) -> str:
    """Colour of the variant with this rank; grey for those that have none."""
    return PALETTE[rank] if rank < len(PALETTE) else GREY


def marker_of(rank: int) -> str:
    """Marker of the variant with this rank."""
    return _MARKERS[rank % len(_MARKERS)]


def steps_axis(axes: Axes) -> None:
    """Environment steps along x."""
    axes.set_xlabel("environment steps")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(x=0.02)


def uncover(panel: Axes) -> None:
    """Widens each ranked line where others that were drawn after it hide it, so that its edges show."""
    lines = [line for line in reversed(panel.lines) if line.get_zorder() == RANKED]
    close = _HIDES * abs(float(np.diff(panel.get_ylim())[0]))
    depths: dict[Line2D, int] = {}
    for place, line in enumerate(lines):
        x, y = _points(line)
        hidden = np.zeros(len(x), bool)
        depths[line] = 0
        for other in lines[:place]:
            same = np.abs(np.interp(x, *_points(other), left=np.nan, right=np.nan) - y) < close
            pairs = same[1:] & same[:-1]  # what meets in one point, as where curves begin, is not hidden
            under = same if len(x) == 1 else np.append(pairs, False) | np.append(False, pairs)
            if under.any() and other.get_color() != line.get_color():
                hidden |= under
                depths[line] = max(depths[line], depths[other] + 1)
        if hidden.any():
            wider, lone = _EDGES * depths[line], len(x) == 1
            panel.plot(
                x, np.where(hidden, y, np.nan), color=line.get_color(), linestyle=line.get_linestyle(),
                linewidth=line.get_linewidth() + wider, marker=line.get_marker() if lone else "",
                markersize=line.get_markersize() + wider, zorder=RANKED - 0.01 * depths[line], solid_capstyle="butt",
            )  # fmt: skip


def _points(line: Line2D) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(line.get_xdata(), np.float64), np.asarray(line.get_ydata(), np.float64)


def is_logarithmic(values: Sequence[float]) -> bool:
    """Whether swept numbers are better seen on a logarithmic axis."""
    return min(values) > 0 and max(values) / min(values) >= 10


def luminance(colour: np.ndarray) -> float:
    """Of a colour's red, green and blue, each from 0 to 1."""
    return float(np.dot(colour[:3], (0.299, 0.587, 0.114)))


def png_bytes(figure: Figure) -> bytes:
    """On white, 200 dots per inch."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=200, facecolor="white")
    return picture.getvalue()


def svg_text(figure: Figure) -> str:
    """Without a background and without a date; text is drawn as paths, so that it looks the same everywhere."""
    picture = io.StringIO()
    figure.savefig(picture, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return picture.getvalue()
