"""Figures of a report: learning curves, final scores, performance profiles, chances of improvement."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rltrain.report.contents import Contents
from rltrain.report.drawing import (
    GREY,
    INK,
    PALETTE,
    RANKED,
    colour_of,
    label,
    labels,
    leftmost,
    legend_below,
    marker_of,
    more_lines,
    panels,
    steps_axis,
    title,
    uncover,
)
from rltrain.report.runs import EVALUATION, TRAINING
from rltrain.report.statistics import performance_profile, profile_interval
from rltrain.report.summary import Curve, Estimate, Summary
from rltrain.terminal.text import counted

MOST_ROWS = 20
"""Settings that a figure with a row for each shows."""
MOST_PANELS = 12
"""Environments that a figure with a panel for each shows."""
_FEW_POINTS = 30
NAMES = {EVALUATION: "greedy evaluation return", TRAINING: "training return"}


def curves(contents: Contents, tag: str) -> Figure:
    """One panel for each environment."""
    envs = [env for env in contents.envs if any(tag in s.curves for s in contents.of_env(env))][:MOST_PANELS]
    figure, axes = panels(len(envs))
    for env, panel in zip(envs, axes, strict=True):
        for summary in reversed(contents.of_env(env)):
            if tag in summary.curves:
                _draw_curve(panel, summary, summary.curves[tag], contents.variants.index(summary.setting.variant))
        steps_axis(panel)
        _threshold(panel, contents.of_env(env) if tag in NAMES else [])
        uncover(panel)
        title(panel, contents.title(env))
        if leftmost(panel):
            panel.set_ylabel(NAMES.get(tag, label(tag)))
    drawn = {s.setting.variant for env in envs for s in contents.of_env(env) if tag in s.curves}
    legend_below(figure, *_legend(contents, drawn, markers=True))
    return figure


def diagnostics(contents: Contents) -> Figure:
    """One panel for each diagnostic and environment."""
    every = [(tag, env) for tag in contents.diagnostics for env in contents.envs]
    shown = [(tag, env) for tag, env in every if any(tag in s.curves for s in contents.of_env(env))][:MOST_PANELS]
    figure, axes = panels(len(shown))
    for (tag, env), panel in zip(shown, axes, strict=True):
        for summary in reversed(contents.of_env(env)):
            if tag in summary.curves:
                _draw_curve(panel, summary, summary.curves[tag], contents.variants.index(summary.setting.variant))
        uncover(panel)
        steps_axis(panel)
        name = tag.rpartition("/")[2].replace("_", " ")
        title(panel, name if len(contents.envs) == 1 else f"{name}, {env}")
    drawn = {s.setting.variant for tag, env in shown for s in contents.of_env(env) if tag in s.curves}
    legend_below(figure, *_legend(contents, drawn, markers=False))
    return figure


def final_scores(contents: Contents) -> Figure:
    """One panel for each environment; a row for each variant."""
    variants = contents.variants[:MOST_ROWS]
    figure, axes = _rows_figure(contents.envs[:MOST_PANELS], [_names(contents)[variant] for variant in variants])
    for env, panel in zip(contents.envs, axes, strict=False):
        for summary in contents.of_env(env):
            if summary.setting.variant in variants and summary.score is not None:
                row = variants.index(summary.setting.variant)
                below = np.full(len(summary.scores), row + 0.27)
                panel.plot(summary.scores, below, "o", color=colour_of(row), markersize=2.8, markeredgewidth=0)
                _draw_estimate(panel, row, summary.score)
        _threshold(panel, contents.of_env(env), across=True)
        title(panel, contents.title(env))
        panel.set_xlabel("final greedy return")
    return figure


def aggregate_scores(contents: Contents) -> Figure:
    """A row for each variant that has scores in all environments."""
    assert contents.aggregate is not None
    variants = [variant for variant in contents.variants if variant in contents.aggregate.variants][:MOST_ROWS]
    figure, (panel,) = _rows_figure([""], [_names(contents)[variant] for variant in variants])
    for row, variant in enumerate(variants):
        _draw_estimate(panel, row, contents.aggregate.variants[variant], contents.variants.index(variant))
    panel.axvline(1.0, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.6)
    panel.set_xlabel("normalized final return, interquartile mean")
    return figure


def profiles(contents: Contents) -> Figure:
    """One panel for each environment."""
    envs = contents.envs[:MOST_PANELS]
    figure, axes = panels(len(envs))
    for env, panel in zip(envs, axes, strict=True):
        scored = [summary for summary in contents.of_env(env) if len(summary.scores)]
        every = np.concatenate([summary.scores for summary in scored]) if scored else np.zeros(1)
        margin = 0.05 * (every.max() - every.min()) or 1.0
        thresholds = np.linspace(every.min() - margin, every.max() + margin, 201)
        for summary in reversed(scored):
            rank = contents.variants.index(summary.setting.variant)
            _draw_profile(panel, summary.scores, thresholds, rank)
        panel.set_ylim(-0.03, 1.03)
        uncover(panel)
        title(panel, contents.title(env))
        panel.set_xlabel("final greedy return")
        if leftmost(panel):
            panel.set_ylabel("share of seeds above it")
    drawn = {s.setting.variant for env in envs for s in contents.of_env(env) if len(s.scores)}
    legend_below(figure, *_legend(contents, drawn, markers=False))
    return figure


def chances(contents: Contents) -> Figure:
    """A row for each variant that the best one is compared with."""
    found, names = contents.improvements[:MOST_ROWS], _names(contents)
    figure, (panel,) = _rows_figure([""], [names[improvement.other] for improvement in found])
    for row, improvement in enumerate(found):
        estimate = Estimate(improvement.probability, improvement.low, improvement.high)
        _draw_estimate(panel, row, estimate, contents.variants.index(improvement.other))
    panel.axvline(0.5, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.6)
    panel.set_xlim(-0.03, 1.03)
    best = names[contents.variants[0]]
    around = "\n" if "\n" in best else " "
    panel.set_xlabel(f"probability that{around}{best}{around}is better", loc="right")
    return figure


def _draw_curve(panel: Axes, summary: Summary, line: Curve, rank: int) -> None:
    if rank >= len(PALETTE):
        panel.plot(line.steps, line.iqm, color=GREY, linewidth=0.8, alpha=0.35, zorder=1)
        return
    marker = marker_of(rank) if len(line.steps) <= _FEW_POINTS else ""
    style: dict[str, Any] = {"color": colour_of(rank), "zorder": RANKED}
    whole = np.where(line.runs == len(summary.setting.runs), line.iqm, np.nan)
    panel.plot(line.steps, line.iqm, linestyle=(0, (2.5, 1.5)), linewidth=1.3, marker=marker, markersize=3, **style)
    panel.plot(line.steps, whole, **style)
    panel.fill_between(line.steps, line.low, line.high, color=colour_of(rank), alpha=0.16, linewidth=0, zorder=2)


def _draw_profile(panel: Axes, scores: np.ndarray, thresholds: np.ndarray, rank: int) -> None:
    coloured = rank < len(PALETTE)
    share = performance_profile(scores, thresholds)
    panel.plot(
        thresholds, share, color=colour_of(rank), alpha=1.0 if coloured else 0.35, linewidth=1.6 if coloured else 0.8,
        zorder=RANKED if coloured else 1,
    )  # fmt: skip
    if coloured and (interval := profile_interval(scores, thresholds)) is not None:
        panel.fill_between(thresholds, *interval, color=colour_of(rank), alpha=0.12, linewidth=0, zorder=2)


def _draw_estimate(panel: Axes, row: int, estimate: Estimate, rank: int | None = None) -> None:
    colour = colour_of(row if rank is None else rank)
    if estimate.low is not None and estimate.high is not None:
        panel.plot([estimate.low, estimate.high], [row, row], color=colour, linewidth=3.2, alpha=0.55,
                   solid_capstyle="butt")  # fmt: skip
    panel.plot([estimate.value], [row], "D", color=colour, markersize=5.5, markeredgecolor=INK, markeredgewidth=0.7)


def _names(contents: Contents) -> dict[str, str]:
    """Variant -> its name, the same in every figure."""
    return dict(zip(contents.variants, labels(contents.variants), strict=True))


def _rows_figure(titles: Sequence[str], names: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """Panels side by side that share the rows, one for each name, the first at the top."""
    rows = (0.26 + more_lines(names)) * len(names)
    figure, axes = panels(len(titles), height=rows + 0.9)
    if len(titles) == 1:
        figure.set_figheight(rows + 0.95)
    for panel in axes:
        panel.set_ylim(len(names) - 0.4, -0.6)
        panel.set_yticks(range(len(names)), names if leftmost(panel) else [""] * len(names))
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="y", visible=False)
    return figure, axes


def _threshold(panel: Axes, summaries: Sequence[Summary], across: bool = False) -> None:
    """A line at the return that counts as solved."""
    for threshold in _thresholds(summaries):
        draw = panel.axvline if across else panel.axhline
        draw(threshold, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.6, zorder=1)


def _thresholds(summaries: Sequence[Summary]) -> set[float]:
    """Those that the runs of an environment tell; none where they do not agree."""
    runs = [run for summary in summaries for run in summary.setting.runs]
    found = {run.result.threshold for run in runs if run.result is not None and run.result.threshold is not None}
    return found if len(found) == 1 else set()


def _legend(contents: Contents, drawn: Container[str], markers: bool) -> tuple[list[Artist], list[str]]:
    """Handles and labels of the variants that are drawn."""
    ranks = [rank for rank, variant in enumerate(contents.variants) if variant in drawn]
    named = [rank for rank in ranks if rank < len(PALETTE)]
    handles: list[Artist] = [
        Line2D([], [], color=colour_of(rank), marker=marker_of(rank) if markers else "", markersize=4) for rank in named
    ]
    every = _names(contents)
    names = [every[contents.variants[rank]] for rank in named]
    if others := len(ranks) - len(named):
        handles.append(Line2D([], [], color=GREY, linewidth=0.8))
        names.append(counted(others, "other setting"))
    if markers and any(_thresholds(contents.of_env(env)) for env in contents.envs):
        handles.append(Line2D([], [], color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.6))
        names.append("threshold")
    return handles, names
