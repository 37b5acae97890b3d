"""Glossary of a report: what its numbers mean, with what these runs tell of it."""

from __future__ import annotations

from rltrain.report.contents import Contents
from rltrain.report.statistics import CONFIDENCE, FEWEST_RUNS, RESAMPLES
from rltrain.report.summary import MOST_POINTS
from rltrain.terminal.table import NOTHING

SOURCE = (
    "The statistics are those of Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice, "
    "NeurIPS 2021."
)


def glossary(contents: Contents) -> dict[str, str]:
    """Word -> its meaning."""
    results = [run.result for run in contents.runs if run.result is not None]
    episodes = sorted({(result.episodes, result.asked) for result in results}, key=lambda e: (e[0] != e[1], e))
    count = " or ".join(str(n) if n == asked else f"{n} of {asked}" for n, asked in episodes[:3]) or "100"
    horizons = {s.setting.env: s.horizon for s in contents.summaries if s.horizon is not None}
    until = ", ".join(f"{env} {steps:,}" for env, steps in horizons.items()) or "no run is completed"
    return {
        "Final return": f"mean undiscounted return of a seed's last network over {count} greedy episodes"
        + (", some of them cut." if any(result.cut for result in results) else "."),
        "IQM": "interquartile mean over seeds: the lowest and the highest quarter (rounded down) are left out.",
        "Interval": f"{CONFIDENCE:.0%} percentile bootstrap of {RESAMPLES:,} resamples over the n seeds of a setting "
        "(over environments: stratified). Runs are resampled, never episodes. There is none for fewer than "
        f"{FEWEST_RUNS} seeds, and for few it is too narrow: the true uncertainty is larger.",
        "mean ± sd": "over seeds, with the sample's standard deviation (n - 1).",
        "Solved": f"the final return reaches the environment's threshold ({_thresholds(contents)}). Lost: an "
        "evaluation during training reached it, and the last network does not.",
        "Solve step": "median over seeds of the environment step of the first evaluation that reached the threshold. "
        f"A seed that never did counts as infinite; {NOTHING} is an infinite median.",
        "Curves": "each run is linear between its logged points; the last one holds until the run's end, where it "
        f"leaves the curve. Where the runs have more than {MOST_POINTS} points, each is the mean since the one before.",
        "Area": f"mean of {contents.main} over environment steps, until the last that all completed runs made "
        f"({until}); before its first value a run counts as that one.",
        "Train time, steps/s": "medians over seeds, in training alone, without evaluations. Runs that were trained as "
        "one program, or side by side, share their machine.",
    }


def _thresholds(contents: Contents) -> str:
    known = {
        summary.setting.env: run.result.threshold
        for summary in contents.summaries
        for run in summary.setting.runs
        if run.result is not None and run.result.threshold is not None
    }
    return ", ".join(f"{env} {threshold:g}" for env, threshold in known.items()) or "none of these has one"
