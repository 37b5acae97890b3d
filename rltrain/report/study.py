"""Pictures of a study: what its trials reached, and which settings mattered."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

from matplotlib.figure import Figure


def plot_history(folder: Path, values: Mapping[str, Mapping[int, float]], title: str) -> Path:
    """history.png: the value of each complete and each pruned trial, and the best until then.

    Args:
        values: "complete" and "pruned": number of a trial -> its value.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    complete = dict(sorted(values["complete"].items()))
    axes.plot([*values["pruned"]], [*values["pruned"].values()], "x", color="0.6", label="pruned, last evaluation")
    axes.plot([*complete], [*complete.values()], "o", markersize=4, label="complete")
    axes.step([*complete], [*accumulate(complete.values(), max)], where="post", label="best until then")
    axes.set(xlabel="trial", ylabel="greedy return, mean over the seeds", title=title)
    axes.legend()
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
