"""Figures of a report: learning curves, final scores, performance profiles, chances of improvement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
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
    colour_of,
    label,
    leftmost,
    legend_below,
    marker_of,
    panels,
    steps_axis,
    title,
)
from rltrain.report.runs import EVALUATION, TRAINING
from rltrain.report.statistics import CONFIDENCE, performance_profile, profile_interval
from rltrain.report.summary import Curve, Estimate, Summary
from rltrain.report.swept import heat_maps, is_grid, slices, swept_numbers

_MOST_PANELS, _MOST_ROWS = 12, 20
_FEW_POINTS = 30
NAMES = {EVALUATION: "greedy evaluation return", TRAINING: "training return"}


@dataclass(frozen=True)
class Drawing:
    """A figure that is made when it is needed.

    Attributes:
        name: of its files, without the ending.
        title, caption: what the page says above and below it.
    """

    name: str
    title: str
    caption: str
    make: Callable[[], Figure]


def drawings(contents: Contents) -> Iterator[Drawing]:
    """The figures that this report's runs can fill, in the order of the page."""
    interval = f"{CONFIDENCE:.0%} bootstrap interval over seeds"
    for tag in contents.tags:
        what = NAMES.get(tag, tag)
        yield Drawing(
            "learning_curves"
            if tag == contents.main
            else "training_curves"
            if tag == TRAINING
            else "evaluation_curves",
            f"Learning curves: {what}",
            f"Interquartile mean over seeds; the band is the {interval}, where there are three seeds or more. "
            "Dashed: not all seeds reach this step." + _greys(contents),
            partial(curves, contents, tag),
        )
    if any(len(summary.scores) for summary in contents.summaries):
        yield Drawing(
            "final_scores", "Final scores",
            f"Greedy return of the last network: each dot is a seed, the mark their interquartile mean, the bar the "
            f"{interval}." + _rows_shown(len(contents.variants)),
            partial(final_scores, contents),
        )  # fmt: skip
    if contents.aggregate is not None and len(contents.aggregate.variants) > 0:
        scales = ", ".join(f"{env} from {a:.4g} to {b:.4g}" for env, (a, b) in contents.aggregate.scales.items())
        yield Drawing(
            "aggregate", "All environments together",
            "Interquartile mean of normalized scores over seeds and environments, with its stratified bootstrap "
            "interval. 0 is the return with which training began, 1 the threshold, or the best score where there is "
            f"none: {scales}.",
            partial(aggregate_scores, contents),
        )  # fmt: skip
    if swept_numbers(contents):
        yield _over_swept(contents)
    if len(contents.variants) > 1 and max((len(s.scores) for s in contents.summaries), default=0) > 1:
        yield Drawing(
            "performance_profiles", "Performance profiles",
            f"Share of the seeds whose final return is above the value on the axis, with its {interval}. Higher is "
            "better; curves that cross say that neither setting is better in every respect." + _greys(contents),
            partial(profiles, contents),
        )  # fmt: skip
    if contents.improvements:
        yield Drawing(
            "probability_of_improvement", "Probability of improvement",
            f"Probability that a seed of {label(contents.variants[0])} ends above a seed of the other setting, with "
            f"its {interval}; at one half neither is better." + _rows_shown(len(contents.improvements)),
            partial(chances, contents),
        )  # fmt: skip


def _over_swept(contents: Contents) -> Drawing:
    what = "Final greedy return, interquartile mean over seeds."
    if is_grid(contents):
        caption = f"{what} The framed cell is the best of its environment; empty cells have no score."
        return Drawing("heat_map", "Over two swept numbers", caption, partial(heat_maps, contents))
    bars = f" Bars are {CONFIDENCE:.0%} bootstrap intervals over seeds; the star is the best setting."
    return Drawing("slices", "Over swept numbers", what + bars, partial(slices, contents))


def curves(contents: Contents, tag: str) -> Figure:
    """One panel for each environment."""
    envs = [env for env in contents.envs if any(tag in s.curves for s in contents.of_env(env))][:_MOST_PANELS]
    figure, axes = panels(len(envs))
    for env, panel in zip(envs, axes, strict=True):
        for summary in reversed(contents.of_env(env)):
            if tag in summary.curves:
                _draw_curve(panel, summary, summary.curves[tag], contents.variants.index(summary.setting.variant))
        steps_axis(panel)
        _threshold(panel, contents.of_env(env) if tag in NAMES else [])
        title(panel, contents.title(env))
        if leftmost(panel):
            panel.set_ylabel(NAMES.get(tag, label(tag)))
    legend_below(figure, *_legend(contents, markers=True))
    return figure


def final_scores(contents: Contents) -> Figure:
    """One panel for each environment; a row for each variant."""
    variants = contents.variants[:_MOST_ROWS]
    figure, axes = _rows_figure(contents.envs[:_MOST_PANELS], variants)
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
    variants = [variant for variant in contents.variants if variant in contents.aggregate.variants][:_MOST_ROWS]
    figure, (panel,) = _rows_figure([""], variants)
    for row, variant in enumerate(variants):
        _draw_estimate(panel, row, contents.aggregate.variants[variant], contents.variants.index(variant))
    panel.axvline(1.0, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.6)
    panel.set_xlabel("normalized final return, interquartile mean")
    return figure


def profiles(contents: Contents) -> Figure:
    """One panel for each environment."""
    envs = contents.envs[:_MOST_PANELS]
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
        title(panel, contents.title(env))
        panel.set_xlabel("final greedy return")
        if leftmost(panel):
            panel.set_ylabel("share of seeds above it")
    legend_below(figure, *_legend(contents, markers=False))
    return figure


def chances(contents: Contents) -> Figure:
    """A row for each variant that the best one is compared with."""
    found = contents.improvements[:_MOST_ROWS]
    figure, (panel,) = _rows_figure([""], [improvement.other for improvement in found])
    for row, improvement in enumerate(found):
        estimate = Estimate(improvement.probability, improvement.low, improvement.high)
        _draw_estimate(panel, row, estimate, contents.variants.index(improvement.other))
    panel.axvline(0.5, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.6)
    panel.set_xlim(-0.03, 1.03)
    panel.set_xlabel(f"probability that {label(contents.variants[0])} is better")
    return figure


def _draw_curve(panel: Axes, summary: Summary, line: Curve, rank: int) -> None:
    if rank >= len(PALETTE):
        panel.plot(line.steps, line.iqm, color=GREY, linewidth=0.8, alpha=0.35, zorder=1)
        return
    marker = marker_of(rank) if len(line.steps) <= _FEW_POINTS else ""
    style: dict[str, Any] = {"color": colour_of(rank), "zorder": 3}
    whole = np.where(line.runs == len(summary.setting.runs), line.iqm, np.nan)
    panel.plot(line.steps, line.iqm, linestyle=(0, (2.5, 1.5)), linewidth=1.3, marker=marker, markersize=3, **style)
    panel.plot(line.steps, whole, **style)
    panel.fill_between(line.steps, line.low, line.high, color=colour_of(rank), alpha=0.16, linewidth=0, zorder=2)


def _draw_profile(panel: Axes, scores: np.ndarray, thresholds: np.ndarray, rank: int) -> None:
    coloured = rank < len(PALETTE)
    share = performance_profile(scores, thresholds)
    panel.plot(
        thresholds, share, color=colour_of(rank), alpha=1.0 if coloured else 0.35, linewidth=1.6 if coloured else 0.8,
        zorder=3 if coloured else 1,
    )  # fmt: skip
    if coloured and (interval := profile_interval(scores, thresholds)) is not None:
        panel.fill_between(thresholds, *interval, color=colour_of(rank), alpha=0.12, linewidth=0, zorder=2)


def _draw_estimate(panel: Axes, row: int, estimate: Estimate, rank: int | None = None) -> None:
    colour = colour_of(row if rank is None else rank)
    if estimate.low is not None and estimate.high is not None:
        panel.plot([estimate.low, estimate.high], [row, row], color=colour, linewidth=3.2, alpha=0.55,
                   solid_capstyle="butt")  # fmt: skip
    panel.plot([estimate.value], [row], "D", color=colour, markersize=5.5, markeredgecolor=INK, markeredgewidth=0.7)


def _rows_figure(titles: Sequence[str], variants: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """Panels side by side that share the rows, one for each variant, the first at the top."""
    names = [label(variant) for variant in variants]
    figure, axes = panels(len(titles), height=0.26 * len(variants) + 0.9)
    if len(titles) == 1:
        figure.set_figheight(0.26 * len(variants) + 0.95)
    for panel in axes:
        panel.set_ylim(len(variants) - 0.4, -0.6)
        panel.set_yticks(range(len(variants)), names if leftmost(panel) else [""] * len(variants))
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


def _legend(contents: Contents, markers: bool) -> tuple[list[Artist], list[str]]:
    handles: list[Artist] = [
        Line2D([], [], color=colour_of(rank), marker=marker_of(rank) if markers else "", markersize=4)
        for rank, _ in enumerate(contents.variants[: len(PALETTE)])
    ]
    labels = [label(variant) for variant in contents.variants[: len(PALETTE)]]
    if len(contents.variants) > len(PALETTE):
        handles.append(Line2D([], [], color=GREY, linewidth=0.8))
        labels.append(f"{len(contents.variants) - len(PALETTE)} other settings")
    if markers and any(_thresholds(contents.of_env(env)) for env in contents.envs):
        handles.append(Line2D([], [], color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.6))
        labels.append("threshold")
    return handles, labels


def _greys(contents: Contents) -> str:
    rest = len(contents.variants) - len(PALETTE)
    return f" The best {len(PALETTE)} settings have colours, the other {rest} are grey." if rest > 0 else ""


def _rows_shown(count: int) -> str:
    return f" Of {count} settings the best {_MOST_ROWS} are shown." if count > _MOST_ROWS else ""
