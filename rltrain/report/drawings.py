"""Drawings of a report: which figures its runs can fill, and what the page says of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from rltrain.report.contents import Contents
from rltrain.report.drawing import PALETTE, label
from rltrain.report.figures import (
    MOST_PANELS,
    MOST_ROWS,
    NAMES,
    aggregate_scores,
    chances,
    curves,
    diagnostics,
    final_scores,
    profiles,
)
from rltrain.report.runs import TRAINING
from rltrain.report.statistics import CONFIDENCE
from rltrain.report.swept import heat_maps, is_grid, slices, swept_numbers

_LONGEST = 300  # letters of a name in a caption
_INTERVAL = f"{CONFIDENCE:.0%} bootstrap interval over seeds"
_TIED = " Curves that coincide lie on each other as stripes, the best in the middle."


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
    scored = [len(summary.scores) for summary in contents.summaries if len(summary.scores)]
    yield from (_curves(contents, tag) for tag in contents.tags)
    if scored:
        yield _final_scores(contents)
    if contents.aggregate is not None:
        yield _aggregate(contents)
    if scored and swept_numbers(contents):
        yield _over_swept(contents)
    if len(scored) > 1 and max(scored) > 1:
        yield _profiles(contents)
    if contents.improvements:
        yield _chances(contents)
    if contents.diagnostics:
        yield _diagnostics(contents)


def _curves(contents: Contents, tag: str) -> Drawing:
    other = "training_curves" if tag == TRAINING else "evaluation_curves"
    return Drawing(
        "learning_curves" if tag == contents.main else other,
        f"Learning curves: {NAMES.get(tag, tag)}",
        f"Interquartile mean over seeds; the band is the {_INTERVAL}, where there are three seeds or more. "
        "Dashed: not all seeds reach this step." + _TIED + _shown(contents),
        partial(curves, contents, tag),
    )


def _final_scores(contents: Contents) -> Drawing:
    return Drawing(
        "final_scores",
        "Final scores",
        "Greedy return of the last network: each dot is a seed, the mark their interquartile mean, the bar the "
        f"{_INTERVAL}." + _rows_shown(len(contents.variants)) + _panels_shown(contents),
        partial(final_scores, contents),
    )


def _aggregate(contents: Contents) -> Drawing:
    assert contents.aggregate is not None
    scales = ", ".join(f"{env} from {zero:.4g} to {one:.4g}" for env, (zero, one) in contents.aggregate.scales.items())
    return Drawing(
        "aggregate",
        "All environments together",
        "Interquartile mean of normalized scores over seeds and environments, with its stratified bootstrap interval. "
        f"0 is the return with which training began, 1 the threshold, or the best score where there is none: {scales}.",
        partial(aggregate_scores, contents),
    )


def _over_swept(contents: Contents) -> Drawing:
    what = "Final greedy return, interquartile mean over seeds."
    if is_grid(contents):
        caption = f"{what} The framed cell is the best of its environment; empty cells have no score."
        return Drawing("heat_map", "Over two swept numbers", caption, partial(heat_maps, contents))
    bars = f" Bars are {CONFIDENCE:.0%} bootstrap intervals over seeds; the star is the best setting."
    return Drawing("slices", "Over swept numbers", what + bars, partial(slices, contents))


def _profiles(contents: Contents) -> Drawing:
    return Drawing(
        "performance_profiles",
        "Performance profiles",
        f"Share of the seeds whose final return is above the value on the axis, with its {_INTERVAL}. Higher is "
        "better; curves that cross say that neither setting is better in every respect." + _TIED + _shown(contents),
        partial(profiles, contents),
    )


def _chances(contents: Contents) -> Drawing:
    some_left_out = any(improvement.compared < improvement.envs for improvement in contents.improvements)
    return Drawing(
        "probability_of_improvement",
        "Probability of improvement",
        f"Probability that a seed of {label(contents.variants[0], _LONGEST)} ends above a seed of the "
        f"other setting, with its {_INTERVAL}; at one half neither is better."
        + (" Environments in which only one of both has scores are left out." if some_left_out else "")
        + _rows_shown(len(contents.improvements)),
        partial(chances, contents),
    )


def _diagnostics(contents: Contents) -> Drawing:
    return Drawing(
        "diagnostics",
        "Why learning fails",
        "Interquartile means over seeds. Overestimation is the value of first states less the discounted return that "
        "the greedy policy then got: 0 is right. docs/diagnostics.md says how to read each." + _TIED + _shown(contents),
        partial(diagnostics, contents),
    )


def _panels_shown(contents: Contents) -> str:
    count = len(contents.envs)
    return f" Of {count} environments the first {MOST_PANELS} are shown." if count > MOST_PANELS else ""


def _shown(contents: Contents) -> str:
    rest = len(contents.variants) - len(PALETTE)
    greys = f" The best {len(PALETTE)} settings have colours, the other {rest} are grey." if rest > 0 else ""
    return greys + _panels_shown(contents)


def _rows_shown(count: int) -> str:
    return f" Of {count} settings the best {MOST_ROWS} are shown." if count > MOST_ROWS else ""
