"""Contents of a report: its runs, their settings, the summaries and the comparison, before anything is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rltrain.errors import RequestError
from rltrain.report.comparison import Aggregate, Improvement, aggregate, best_first, best_in, improvements
from rltrain.report.groups import Groups, group_runs
from rltrain.report.runs import EVALUATION, TRAINING, Run, read_runs
from rltrain.report.statistics import FEWEST_RUNS
from rltrain.report.summary import Summary, summarize
from rltrain.terminal.text import counted, name_ranges


@dataclass(frozen=True)
class Contents:
    """Everything that a report says.

    Attributes:
        places, origins: the folders that were asked for, and their names.
        runs: all of them, also those that are in no setting.
        summaries: environment by environment, best first.
        main: the metric of the learning curves and their areas.
        tags: those that have curves, `main` first.
        variants: best first.
        improvements: the best against each of the others.
        aggregate: None for one environment.
    """

    places: tuple[Path, ...]
    origins: tuple[str, ...]
    runs: tuple[Run, ...]
    groups: Groups
    summaries: tuple[Summary, ...]
    main: str
    tags: tuple[str, ...]
    variants: tuple[str, ...]
    improvements: tuple[Improvement, ...]
    aggregate: Aggregate | None

    @property
    def envs(self) -> list[str]:
        return list(dict.fromkeys(summary.setting.env for summary in self.summaries))

    def of_env(self, env: str) -> list[Summary]:
        return [summary for summary in self.summaries if summary.setting.env == env]

    def title(self, env: str) -> str:
        """The environment, and how many seeds each of its settings has where that is one number."""
        counts = {len(summary.setting.runs) for summary in self.of_env(env)}
        return f"{env}, {counted(counts.pop(), 'seed')}" if len(counts) == 1 else env

    def name(self, run: Run) -> str:
        """The run's folder, within the one that was asked for where that is one alone."""
        place = self.places[run.origin]
        inner = str(run.folder.relative_to(place)) if run.folder.is_relative_to(place) else str(run.folder)
        origin = self.origins[run.origin]
        if inner == ".":
            return origin
        return inner if len(self.origins) == 1 else f"{origin}/{inner}"

    @property
    def unfinished(self) -> list[Run]:
        """Runs that no score counts: without one, or without a config."""
        return [run for run in self.runs if run.result is None or not run.config]


def read_contents(places: Sequence[Path], origins: Sequence[str], metric: str | None = None) -> Contents:
    """Reads the runs in `places` and compares them.

    Args:
        origins: names of the places.
        metric: of the learning curves, any tag in metrics.jsonl; unless given, greedy evaluations where all completed
            runs have them, else training returns, and the other as well.

    Raises:
        RequestError: a place holds no run, or no run has the metric.
    """
    tags = tuple(dict.fromkeys([EVALUATION, TRAINING, *([metric] if metric is not None else [])]))
    runs = read_runs(places, tags)
    if metric is not None and all(run.series(metric) is None for run in runs):
        raise RequestError(f"metric={metric}: no run has the metric {metric} in its metrics.jsonl")
    groups = group_runs(runs, origins)
    main = metric or _main(runs)
    curves = (main,) if metric is not None else tuple(sorted((EVALUATION, TRAINING), key=lambda tag: tag != main))
    summaries = summarize(groups.settings, curves, main)
    variants = best_first(summaries)
    envs = list(dict.fromkeys(summary.setting.env for summary in summaries))
    ordered = sorted(summaries, key=lambda s: (envs.index(s.setting.env), *_rank(s), variants.index(s.setting.variant)))
    return Contents(
        places=tuple(places),
        origins=tuple(origins),
        runs=tuple(runs),
        groups=groups,
        summaries=tuple(ordered),
        main=main,
        tags=tuple(tag for tag in curves if any(tag in summary.curves for summary in summaries)),
        variants=tuple(variants),
        improvements=tuple(improvements(summaries, variants)),
        aggregate=aggregate(summaries),
    )


def notes(contents: Contents) -> list[str]:
    """Sentences that a reader must know to read the numbers rightly."""
    found = []
    settings = [summary.setting for summary in contents.summaries]
    few = [summary for summary in contents.summaries if len(summary.scores) < FEWEST_RUNS]
    if few and len(settings) == 1:
        found.append(f"{counted(len(few[0].scores), 'scored seed')}: an interval needs {FEWEST_RUNS}.")
    elif few:
        which = "No setting has" if len(few) == len(settings) else f"{len(few)} of {len(settings)} settings lack"
        found.append(f"{which} {FEWEST_RUNS} scored seeds: too few for an interval, or to tell settings apart.")
    if unscored := [run for run in contents.unfinished if run.config]:
        states = Counter(run.state[:40] for run in unscored)
        found.append(
            f"{counted(len(unscored), 'run')} of {len(contents.runs)} left no final score "
            f"({', '.join(f'{count} {state}' for state, count in states.items())}), and no mean of scores counts "
            f"{'it' if len(unscored) == 1 else 'them'}: {name_ranges([contents.name(run) for run in unscored])}. "
            "Where runs fail, the scores of the others flatter their setting."
        )
    if left_out := contents.groups.left_out:
        found.append(
            f"Of {counted(len(left_out), 'run')} the config cannot be read, so that nothing counts them: "
            f"{name_ranges([contents.name(run) for run in left_out])}."
        )
    goal = [run for run in contents.runs if run.stopped_at_goal]
    if goal:
        found.append(
            f"{counted(len(goal), 'run')} ended early because stop_at_return was reached. In curves and areas such a "
            "run keeps its last value from there on: the greedy return of its last network, or its last training value."
        )
    repeated = [run for setting in settings for run in setting.repeated]
    if repeated:
        found.append(
            f"{counted(len(repeated), 'run')} repeat a seed of the same setting and do not count: "
            f"{name_ranges([contents.name(run) for run in repeated])}."
        )
    if lost := [run for run in contents.runs if run.metrics.not_finite]:
        found.append(
            f"Of {counted(len(lost), 'run')} some returns are not finite, and are left out of the curves: "
            f"{name_ranges([contents.name(run) for run in lost])}."
        )
    found += _mixed("versions", [run.versions for run in contents.runs], "their numbers may differ for that alone")
    found += _mixed("devices", [run.device for run in contents.runs], "their speeds cannot be compared")
    if any(best_in(contents.summaries, env) is not None for env in contents.envs):
        found.append(
            "The best setting was picked by the scores that are shown, so its own score is likely too high: "
            "confirm it on fresh seeds."
        )
    return found


def _mixed(what: str, values: Sequence[str], so: str) -> list[str]:
    """A sentence on runs that were not made alike; nothing where they were."""
    told = Counter(value[:60] for value in values if value)
    if len(told) < 2:
        return []
    shown = "; ".join(f"{value} ({counted(count, 'run')})" for value, count in told.most_common(4))
    return [f"Runs were made with several {what}, so that {so}: {shown}."]


def _rank(summary: Summary) -> tuple[float]:
    return (float("inf") if summary.score is None else -summary.score.value,)


def _main(runs: Sequence[Run]) -> str:
    done = [run for run in runs if run.result is not None] or runs
    lines = [run.series(EVALUATION) for run in done]
    return EVALUATION if lines and all(line is not None and len(line.steps) > 1 for line in lines) else TRAINING
