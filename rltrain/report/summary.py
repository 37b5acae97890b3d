"""Summary of each setting over its seeds: curves, final scores, areas, solve steps, speed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rltrain.report.groups import Setting
from rltrain.report.runs import EVALUATION, Run
from rltrain.report.series import Series
from rltrain.report.statistics import (
    FEWEST_RUNS,
    iqm,
    iqm_interval,
    percentile_interval,
    resample_counts,
    resampled_iqm,
)

MOST_POINTS = 100
"""Of a curve over seeds: where the runs have more, each point is the mean since the one before."""


@dataclass(frozen=True)
class Estimate:
    """An interquartile mean over runs, and its interval, which few runs do not have."""

    value: float
    low: float | None
    high: float | None

    def to_plain(self) -> dict[str, float | None]:
        """As it is written to JSON."""
        return {"iqm": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Curve:
    """A metric of a setting's runs against environment steps, all [G].

    Attributes:
        runs: how many runs have a value there.
        low, high: NaN where there are too few of them for an interval.
    """

    steps: np.ndarray
    runs: np.ndarray
    iqm: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Summary:
    """A setting over its seeds.

    Attributes:
        scores: greedy return of the last network of each run that has one, [N]; of a trial that was given up, none.
        score: over the runs.
        std: the sample's standard deviation (n - 1) of the scores; None for fewer than two.
        solved, lost: how many runs solved the environment, or lost it again; of `judged` runs.
        solve_step: the median over all judged runs, of which those that never reached the threshold count as infinite;
            None where that is the median.
        area: mean return from the first step to `horizon`.
        train_seconds, speed: medians over runs; None where no run tells.
    """

    setting: Setting
    scores: np.ndarray
    score: Estimate | None
    std: float | None
    solved: int
    lost: int
    judged: int
    solve_step: float | None
    area: Estimate | None
    horizon: int | None
    train_seconds: float | None
    speed: float | None
    curves: Mapping[str, Curve]


def summarize(settings: Sequence[Setting], tags: Sequence[str], main: str) -> list[Summary]:
    """Summaries of all settings.

    Args:
        tags: of which curves are made.
        main: the one whose area is taken.
    """
    horizons = {env: _horizon([s for s in settings if s.env == env]) for env in {s.env for s in settings}}
    return [_summary(setting, tags, main, horizons[setting.env]) for setting in settings]


def estimate(scores: np.ndarray) -> Estimate | None:
    """The interquartile mean of [N] scores, with its interval; None for none."""
    if not len(scores):
        return None
    interval = iqm_interval([scores])
    return Estimate(float(iqm(scores)), *(interval or (None, None)))


def curve(runs: Sequence[Run], tag: str) -> Curve | None:
    """The metric `tag` over runs; None where no run has it.

    A run has a value from its first point to its end; one that was ended by reaching its goal keeps the last one.
    """
    lines = [(run, line) for run in runs if (line := _series(run, tag)) is not None]
    if not lines:
        return None
    ends = np.array([math.inf if run.stopped_at_goal else line.steps[-1] for run, line in lines])
    ends = np.maximum(ends, [float(run.steps or 0) for run, _ in lines])
    right = max(float(max(run.steps or 0, line.steps[-1])) for run, line in lines)
    steps, values = _on_grid([line for _, line in lines], right)
    values[steps > ends[:, None]] = math.nan
    some = ~np.isnan(values).all(axis=0)
    return _over_runs(steps[some], values[:, some]) if some.any() else None


def _on_grid(lines: Sequence[Series], right: float) -> tuple[np.ndarray, np.ndarray]:
    """A grid [G] that all lines share, and their values on it, [N, G]."""
    steps = np.unique(np.concatenate([*(line.steps for line in lines), [right]]))
    if len(steps) <= MOST_POINTS:
        return steps, np.array([line.at(steps) for line in lines])
    edges = np.linspace(steps[0], right, MOST_POINTS + 1)
    return edges[1:], np.array([line.means(edges) for line in lines])


def _over_runs(steps: np.ndarray, values: np.ndarray) -> Curve:
    """values: [N, G], NaN where a run has none."""
    present = ~np.isnan(values)
    middle, mean, low, high = (np.full(len(steps), math.nan) for _ in range(4))
    patterns, which = np.unique(present, axis=1, return_inverse=True)
    for number, pattern in enumerate(patterns.T):  # runs come and go at a few steps
        columns = np.flatnonzero(which.ravel() == number)
        block = values[np.ix_(pattern, columns)]
        middle[columns], mean[columns] = iqm(block), block.mean(axis=0)
        if len(block) >= FEWEST_RUNS:
            resampled = resampled_iqm(block, resample_counts((len(block),)))
            low[columns], high[columns] = percentile_interval(resampled)
    return Curve(steps, present.sum(axis=0), middle, mean, low, high)


def _summary(setting: Setting, tags: Sequence[str], main: str, horizon: int | None) -> Summary:
    runs = setting.runs
    # A trial that was given up is no candidate, whatever those of its seeds reached that had ended by then.
    given_up = any(run.state == "pruned" for run in runs)
    scores = np.array([run.score for run in runs if run.score is not None and not given_up])
    areas = [_area(run, main, horizon) for run in runs]
    judged = [run for run in runs if run.outcome is not None]
    solve_steps = [math.inf if (step := _solve_step(run)) is None else step for run in judged]
    middle = float(np.median(solve_steps)) if judged else math.inf
    seconds = [run.metrics.train_seconds for run in runs if run.metrics.train_seconds is not None]
    speeds = [run.metrics.speed for run in runs if run.metrics.speed is not None]
    found = {tag: line for tag in tags if (line := curve(runs, tag)) is not None}
    return Summary(
        setting,
        scores,
        estimate(scores),
        float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        sum(run.outcome == "solved" for run in judged),
        sum(run.outcome == "lost" for run in judged),
        len(judged),
        middle if math.isfinite(middle) else None,
        estimate(np.array([area for area in areas if area is not None])),
        horizon,
        float(np.median(seconds)) if seconds else None,
        float(np.median(speeds)) if speeds else None,
        found,
    )


def _solve_step(run: Run) -> int | None:
    """Of the first evaluation that reached the threshold; the end of a run whose last network alone did."""
    assert run.result is not None
    if run.result.solve_step is None and run.outcome == "solved":
        return run.result.env_step
    return run.result.solve_step


def _series(run: Run, tag: str) -> Series | None:
    line = run.series(tag)
    if line is None or tag != EVALUATION or not run.stopped_at_goal or run.result is None:
        return line
    # Ended by a high return: what the same network then reached in new episodes is the fairer number to keep.
    before = line.steps < run.result.env_step
    return Series(
        np.append(line.steps[before], run.result.env_step), np.append(line.values[before], run.result.returns["mean"])
    )


def _horizon(settings: Sequence[Setting]) -> int | None:
    """The step up to which all completed runs of an environment can be compared."""
    done = [run for setting in settings for run in setting.runs if run.result is not None and run.steps]
    whole = [run.steps for run in done if not run.stopped_at_goal and run.steps]
    return min(whole) if whole else max((run.steps for run in done if run.steps), default=None)


def _area(run: Run, tag: str, horizon: int | None) -> float | None:
    """Mean return up to `horizon`; None where rows are missing. A row of training is the mean of the episodes since the
    row before it, and counts for these steps, however long they are; evaluations are points, with lines between them
    and, before the first, what that one was."""
    line = _series(run, tag)
    if line is None or run.result is None or horizon is None or run.metrics.has_gaps:
        return None
    if tag != EVALUATION:
        until = np.minimum(line.steps, horizon)
        rows = float(line.values @ np.diff(until, prepend=0.0))
        return (rows + float(line.values[-1] * (horizon - until[-1]))) / horizon
    first = min(float(line.steps[0]), float(horizon))
    rest = float(line.means(np.array([first, horizon]))[0]) * (horizon - first) if first < horizon else 0.0
    return (first * float(line.values[0]) + rest) / horizon
