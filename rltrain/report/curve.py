"""learning_curve.png: the returns of one run against environment steps."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, StrMethodFormatter

from rltrain.config.plain import at
from rltrain.errors import RequestError
from rltrain.loggers.jsonl import read_rows
from rltrain.report.records import before_resume
from rltrain.storage.files import write_atomic
from rltrain.storage.run_folder import RunFolder

_ROLLOUT, _EVAL, _EVAL_STD = "rollout/episode_return", "eval/episode_return", "eval/episode_return_std"
_BLUE, _ORANGE, _GREY, _INK = "#3b6fb6", "#d9622b", "#8a8a8a", "#222222"
_MAX_POINTS = 4000
_LEGEND_ROW = 0.2  # inches
_POSSIBLE = {
    "Acrobot-v1": (-500.0, 0.0),
    "CartPole-v0": (0.0, 200.0),
    "CartPole-v1": (0.0, 500.0),
    "FrozenLake-v1": (0.0, 1.0),
    "FrozenLake8x8-v1": (0.0, 1.0),
    "MountainCar-v0": (-200.0, 0.0),
    "Pendulum-v1": (-math.inf, 0.0),
}
"""The lowest and the highest return of an episode, of environments as they are registered."""


def plot_learning_curve(run: Path) -> Path:
    """Draw a run's metrics.jsonl: training returns, their moving average, evaluations, the environment's threshold.

    Returns:
        The picture's path, learning_curve.png in the run's folder.

    Raises:
        OSError: there are no metrics, or the picture cannot be written.
    """
    path = run / "learning_curve.png"
    write_atomic(path, learning_curve_png(run))
    return path


def learning_curve_png(run: Path) -> bytes:
    """The picture as the content of a PNG file, not yet written.

    Raises:
        OSError: there are no metrics.
    """
    picture = io.BytesIO()
    learning_curve(run).savefig(picture, format="png")
    return picture.getvalue()


def learning_curve(run: Path) -> Figure:
    """The picture as a figure.

    Raises:
        OSError: there are no metrics.
    """
    rows = list(read_rows(run / "metrics.jsonl"))
    figure = Figure(figsize=(8, 4.5), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    result, config = _read(RunFolder(run).read_result), _read(RunFolder(run).read_config)
    changed = before_resume(_read(RunFolder(run).read_record))  # the legend is on all points, also those before
    _draw_training(axes, rows, None if "log_period" in changed else config.get("log_period"))
    limited = "episodes_asked" in result  # episodes that take too long are fewer than asked for
    episodes = "" if "eval.episodes" in changed else _episodes(config, limited)
    _draw_evaluations(axes, rows, episodes, _possible(config))
    _draw_result(axes, result, max((row["step"] for row in rows), default=0))
    threshold = result.get("threshold")
    if isinstance(threshold, int | float):
        axes.axhline(threshold, color=_GREY, linestyle=(0, (4, 3)), linewidth=1.2, label=f"threshold {threshold:g}")
    _dress(axes, _title(config) or run.name)
    _lay_out(figure, axes)
    return figure


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of each value and up to window - 1 before it: float64 [len(values)]."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def _series(rows: list[dict[str, Any]], tag: str) -> tuple[np.ndarray, np.ndarray]:
    points = [(row["step"], row[tag]) for row in rows if isinstance(row.get(tag), int | float)]
    array = np.array(points, dtype=np.float64).reshape(-1, 2)
    array = array[np.isfinite(array).all(axis=1)]
    return array[:, 0], array[:, 1]


def _draw_training(axes: Axes, rows: list[dict[str, Any]], period: Any) -> None:
    steps, returns = _series(rows, _ROLLOUT)
    if not len(steps):
        return
    window = max(1, min(100, len(returns) // 10))
    thin = slice(None, None, math.ceil(len(returns) / _MAX_POINTS))
    label = f"training, each point the mean of {period:,} steps" if isinstance(period, int) else "training"
    if len(steps) == 1:  # a line through one point draws nothing
        axes.plot(steps, returns, color=_BLUE, marker="o", label=label)
        return
    if window == 1:
        axes.plot(steps[thin], returns[thin], color=_BLUE, linewidth=1.6, label=label)
        return
    axes.plot(steps[thin], returns[thin], color=_BLUE, alpha=0.3, linewidth=0.8, label=label)
    average = moving_average(returns, window)
    label = f"training, moving average of {window} points"  # not of steps: a row may lack a finished episode
    axes.plot(steps[thin], average[thin], color=_BLUE, linewidth=2, label=label)


def _draw_evaluations(axes: Axes, rows: list[dict[str, Any]], episodes: str, possible: tuple[float, float]) -> None:
    """The means, and a band of one standard deviation around them, without what no episode can return."""
    evaluated = [row for row in rows if isinstance(row.get(_EVAL), int | float)]
    steps, returns = _series(evaluated, _EVAL)
    if not len(steps):
        return
    axes.plot(
        steps, returns, color=_ORANGE, linewidth=1.6, marker="o", markersize=4, label=f"greedy evaluation{episodes}"
    )
    spread_steps, spread = _series(evaluated, _EVAL_STD)
    if np.array_equal(spread_steps, steps):
        low, high = np.clip(returns - spread, *possible), np.clip(returns + spread, *possible)
        label = "± their standard deviation"
        axes.fill_between(steps, low, high, color=_ORANGE, alpha=0.18, linewidth=0, label=label)


def _draw_result(axes: Axes, result: dict[str, Any], last_step: int) -> None:
    """The score of the last network, unless the run has gone on since: of a short run it may be all there is."""
    step, mean, episodes = result.get("env_step"), at(result, ["episode_return", "mean"]), result.get("episodes")
    if isinstance(step, int) and step >= last_step and isinstance(mean, int | float) and math.isfinite(mean):
        label = f"last network, mean of {episodes} greedy episodes"
        axes.plot([step], [mean], color=_INK, linestyle="", marker="D", markersize=5, label=label, zorder=3)


def _episodes(config: dict[str, Any], limited: bool) -> str:
    """The legend's words on the episodes of an evaluation; none where their number is not known."""
    asked = at(config, ["eval", "episodes"])
    return f", mean of {'up to ' if limited else ''}{asked} episodes" if isinstance(asked, int) else ""


def _possible(config: dict[str, Any]) -> tuple[float, float]:
    """The lowest and the highest return of an episode, as far as they are known: of no environment that was changed."""
    changed = any(at(config, ["env", key]) for key in ("kwargs", "max_episode_steps", "wrappers"))
    return (-math.inf, math.inf) if changed else _POSSIBLE.get(str(at(config, ["env", "id"])), (-math.inf, math.inf))


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=12)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("episode return")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.6g}"))  # "500m" would be read as 500 million
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)
    axes.set_xlim(left=0)


def _lay_out(figure: Figure, axes: Axes) -> None:
    """The margins, and the legend below the axes, where it hides nothing; the figure grows by its rows."""
    entries = len(axes.get_legend_handles_labels()[1])
    height = figure.get_figheight()
    grown = height + (_LEGEND_ROW * math.ceil(entries / 2) + 0.08 if entries else 0.0)
    figure.set_figheight(grown)
    bottom, top = 1 - 0.885 * height / grown, 1 - 0.075 * height / grown
    figure.subplots_adjust(left=0.13, right=0.985, bottom=bottom, top=top)  # a layout engine draws all twice
    if entries:
        axes.legend(
            ncols=2, loc="lower center", bbox_to_anchor=(0.5, 0.0), bbox_transform=figure.transFigure, frameon=False,
            fontsize=9,
        )  # fmt: skip
    else:
        axes.text(0.5, 0.5, "no finished episode yet", transform=axes.transAxes, ha="center", color=_GREY)


def _title(config: dict[str, Any]) -> str:
    parts = [at(config, ["algo", "name"]), at(config, ["env", "id"])]
    seed = config.get("seed")
    title = " on ".join(str(part) for part in parts if part)
    return f"{title}, seed {seed}" if title and seed is not None else title


def _read(read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Content of a file; nothing where it is missing or damaged."""
    try:
        return read()
    except RequestError:
        return {}
