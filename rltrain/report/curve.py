"""learning_curve.png: the returns of one run against environment steps."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from rltrain.files import write_atomic
from rltrain.loggers.jsonl import read_rows

_ROLLOUT, _EVAL, _EVAL_STD = "rollout/episode_return", "eval/episode_return", "eval/episode_return_std"
_BLUE, _ORANGE, _GREY = "#3b6fb6", "#d9622b", "#8a8a8a"
_MAX_POINTS = 4000


def plot_learning_curve(run: Path) -> Path:
    """Draw a run's metrics.jsonl: training returns, their moving average, evaluations, the environment's threshold.

    Returns:
        The picture's path, learning_curve.png in the run's folder.

    Raises:
        OSError: there are no metrics, or the picture cannot be written.
    """
    rows = list(read_rows(run / "metrics.jsonl"))
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_training(axes, rows)
    _draw_evaluations(axes, rows)
    threshold = _read_mapping(run / "result.json").get("threshold")
    if isinstance(threshold, int | float):
        axes.axhline(threshold, color=_GREY, linestyle=(0, (4, 3)), linewidth=1.2, label=f"threshold {threshold:g}")
    _dress(axes, _title(run))
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    path = run / "learning_curve.png"
    write_atomic(path, picture.getvalue())
    return path


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


def _draw_training(axes: Axes, rows: list[dict[str, Any]]) -> None:
    steps, returns = _series(rows, _ROLLOUT)
    if not len(steps):
        return
    window = max(1, min(100, len(returns) // 10))
    thin = slice(None, None, math.ceil(len(returns) / _MAX_POINTS))
    axes.plot(steps[thin], returns[thin], color=_BLUE, alpha=0.3, linewidth=0.8, label="training")
    if window > 1:
        average = moving_average(returns, window)
        axes.plot(steps[thin], average[thin], color=_BLUE, linewidth=2, label=f"training, mean of {window}")


def _draw_evaluations(axes: Axes, rows: list[dict[str, Any]]) -> None:
    evaluated = [row for row in rows if isinstance(row.get(_EVAL), int | float)]
    steps, returns = _series(evaluated, _EVAL)
    if not len(steps):
        return
    axes.plot(steps, returns, color=_ORANGE, linewidth=1.6, marker="o", markersize=4, label="greedy evaluation")
    spread_steps, spread = _series(evaluated, _EVAL_STD)
    if np.array_equal(spread_steps, steps):
        axes.fill_between(steps, returns - spread, returns + spread, color=_ORANGE, alpha=0.18, linewidth=0)


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=12)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("episode return")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9, loc="best")
    else:
        axes.text(0.5, 0.5, "no finished episode yet", transform=axes.transAxes, ha="center", color=_GREY)


def _title(run: Path) -> str:
    config = _read_mapping(run / "config.yaml")
    parts = [_nested(config, "algo", "name"), _nested(config, "env", "id")]
    seed = config.get("seed")
    title = " on ".join(str(part) for part in parts if part) or run.name
    return f"{title}, seed {seed}" if seed is not None else title


def _nested(mapping: dict[str, Any], key: str, name: str) -> Any:
    inner = mapping.get(key)
    return inner.get(name) if isinstance(inner, dict) else None


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return data if isinstance(data, dict) else {}
