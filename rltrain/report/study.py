"""Pictures of a study: what its trials reached, and which settings mattered."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rltrain.report.drawing import legend_below


def plot_history(folder: Path, values: Mapping[str, Mapping[int, float]], title: str) -> Path:
    """history.png: the value of each complete and each pruned trial, and the best until then.

    Args:
        values: "complete" and "pruned": number of a trial -> its value.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    complete = dict(sorted(values["complete"].items()))
    if pruned := values["pruned"]:
        axes.plot([*pruned], [*pruned.values()], "x", color="0.6", label="pruned, last evaluation")
    if complete:
        axes.plot([*complete], [*complete.values()], "o", markersize=4, label="complete")
    if len(complete) > 1:  # a line through one point draws nothing
        best = [*accumulate(complete.values(), max)]
        axes.step([*complete], best, where="post", label="best until then")
    axes.set(xlabel="trial", ylabel="greedy return, mean over the seeds", title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend_below(figure, *axes.get_legend_handles_labels())
    return _save(figure, folder / "history.png")


def plot_importances(folder: Path, importances: Mapping[str, float], title: str) -> Path:
    """importance.png: the share of each setting in what sets the best trials apart."""
    figure = Figure(figsize=(7, 1 + 0.35 * len(importances)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh([*importances], [*importances.values()])
    axes.invert_yaxis()
    axes.set(xlabel="share in what sets the best trials apart (PED-ANOVA)", title=title)
    return _save(figure, folder / "importance.png")


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=120)
    return path
