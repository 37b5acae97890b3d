"""Contents of a report: its runs, their settings, the summaries and the comparison, before anything is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rltrain.config.spelling import closest
from rltrain.errors import RequestError
from rltrain.loggers.jsonl import read_rows
from rltrain.report.comparison import Aggregate, Improvement, aggregate, best_first, envs_of, improvements
from rltrain.report.groups import Groups, group_runs
from rltrain.report.runs import DIAGNOSTICS, EVALUATION, TRAINING, Run, read_runs
from rltrain.report.summary import Summary, summarize
from rltrain.terminal.text import counted

_RUNS_READ, _ROWS_READ = 20, 2000


@dataclass(frozen=True)
class Contents:
    """Everything that a report says.

    Attributes:
        places, origins: the folders that were asked for, and their names.
        runs: all of them, also those that are in no setting.
        summaries: environment by environment, best first.
        main: the metric of the learning curves and their areas.
        tags: those of the learning curves, `main` first.
        diagnostics: those that tell why learning fails.
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
    diagnostics: tuple[str, ...]
    variants: tuple[str, ...]
    improvements: tuple[Improvement, ...]
    aggregate: Aggregate | None

    @property
    def envs(self) -> list[str]:
        """Ids, in the order of the settings."""
        return envs_of(self.summaries)

    def of_env(self, env: str) -> list[Summary]:
        """The settings of one environment."""
        return [summary for summary in self.summaries if summary.setting.env == env]

    @property
    def algo(self) -> str:
        """`dqn on `, where all settings have one algorithm: then none of them names it."""
        algos = {summary.setting.runs[0].config.get("algo.name") for summary in self.summaries}
        return f"{algos.pop()} on " if len(algos) == 1 and None not in algos else ""

    def title(self, env: str) -> str:
        """Algorithm and environment, and how many seeds each of its settings has where that is one number."""
        counts = [len(summary.setting.runs) for summary in self.of_env(env)]
        each = " each" if len(counts) > 1 else ""
        name = f"{self.algo}{env}"
        return f"{name}, {counted(counts[0], 'seed')}{each}" if len(set(counts)) == 1 else name

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
        raise RequestError(_no_metric(metric, runs))
    groups = group_runs(runs, origins)
    main = metric or _main(runs)
    curves = (main,) if metric is not None else tuple(sorted((EVALUATION, TRAINING), key=lambda tag: tag != main))
    summaries = summarize(groups.settings, tuple(dict.fromkeys([*curves, *DIAGNOSTICS])), main)
    variants = best_first(summaries)
    envs = envs_of(summaries)
    ordered = sorted(summaries, key=lambda s: (envs.index(s.setting.env), *_rank(s), variants.index(s.setting.variant)))
    return Contents(
        places=tuple(places),
        origins=tuple(origins),
        runs=tuple(runs),
        groups=groups,
        summaries=tuple(ordered),
        main=main,
        tags=tuple(tag for tag in curves if any(tag in summary.curves for summary in summaries)),
        diagnostics=tuple(tag for tag in DIAGNOSTICS if any(tag in summary.curves for summary in summaries)),
        variants=tuple(variants),
        improvements=tuple(improvements(summaries, variants)),
        aggregate=aggregate(summaries),
    )


def _no_metric(metric: str, runs: Sequence[Run]) -> str:
    """Error text for a metric that no run has: the closest tag, or the closest name behind its slash, and all tags."""
    tags: set[str] = set()
    for path in (run.folder / "metrics.jsonl" for run in runs[:_RUNS_READ]):
        if path.is_file():
            tags.update(*islice(read_rows(path), _ROWS_READ))
    tags.discard("step")
    names = {tag.rpartition("/")[2]: tag for tag in sorted(tags)}
    matches = closest(metric, tags) or [names[name] for name in closest(metric, names)]
    guess = f"; did you mean {matches[0]}?" if matches else ""
    known = f"\nmetrics: {', '.join(sorted(tags))}" if tags else ""
    return f"metric={metric}: no run has it in its metrics.jsonl{guess}{known}"


def _rank(summary: Summary) -> tuple[float]:
    return (float("inf") if summary.score is None else -summary.score.value,)


def _main(runs: Sequence[Run]) -> str:
    done = [run for run in runs if run.result is not None] or runs
    lines = [(run, run.series(EVALUATION)) for run in done]
    # One point makes no curve, unless the run ended there because it had reached its goal.
    have = all(line is not None and (len(line.steps) > 1 or run.stopped_at_goal) for run, line in lines)
    return EVALUATION if have and any(line is not None and len(line.steps) > 1 for _, line in lines) else TRAINING
