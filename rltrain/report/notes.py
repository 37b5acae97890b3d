"""Notes of a report: sentences that a reader must know to read its numbers rightly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rltrain.config.plain import show
from rltrain.report.comparison import best_in
from rltrain.report.contents import Contents
from rltrain.report.groups import is_no_setting
from rltrain.report.runs import CONFIRMED, SEARCHED, STUDY, TRAINING, Run
from rltrain.report.statistics import FEWEST_RUNS
from rltrain.terminal.text import counted, name_ranges

_MOST_COUNTS = 4  # of episodes, that a note names


def notes(contents: Contents) -> list[str]:
    """The notes on these runs, the gravest first."""
    return [
        *_few_seeds(contents),
        *_uncounted(contents),
        *_limited(contents),
        *_without_area(contents),
        *_ended_early(contents),
        *_extended(contents),
        *_parted(contents),
        *_mixed("versions", [run.versions for run in contents.runs], "their numbers may differ for that alone"),
        *_mixed("devices", [run.device for run in contents.runs], "their speeds cannot be compared"),
        *_picked(contents),
    ]


def damages(contents: Contents) -> list[str]:
    """The runs whose files are damaged, and what of them was skipped or is missing: one in a line."""
    return [f"{contents.name(run)}: {'; '.join(run.faults)}" for run in contents.runs if run.faults]


def _few_seeds(contents: Contents) -> Iterator[str]:
    count = len(contents.summaries)
    few = [summary for summary in contents.summaries if len(summary.scores) < FEWEST_RUNS]
    if few and count == 1:
        yield f"{counted(len(few[0].scores), 'scored seed')}: an interval needs {FEWEST_RUNS}."
    elif few:
        lack = "lacks" if len(few) == 1 else "lack"
        which = "No setting has" if len(few) == count else f"{len(few)} of {count} settings {lack}"
        yield f"{which} {FEWEST_RUNS} scored seeds: too few for an interval, or to tell settings apart."


def _uncounted(contents: Contents) -> Iterator[str]:
    if unscored := [run for run in contents.unfinished if run.config]:
        states = Counter(run.state[:40] for run in unscored)
        yield (
            f"{counted(len(unscored), 'run')} of {len(contents.runs)} left no final score "
            f"({', '.join(f'{count} {state}' for state, count in states.items())}), and no mean of scores counts "
            f"{'it' if len(unscored) == 1 else 'them'}: {_names(contents, unscored)}."
            + " Where runs fail, the scores of the others flatter their setting."
            * (len(unscored) < len(contents.runs))
        )
    if left_out := contents.groups.left_out:
        whose = _names(contents, left_out)
        yield f"Of {counted(len(left_out), 'run')} the config cannot be read, so that nothing counts them: {whose}."
    if repeated := [run for summary in contents.summaries for run in summary.setting.repeated]:
        whose = _names(contents, repeated)
        do = "repeats a seed of its setting and does" if len(repeated) == 1 else "repeat seeds of their settings and do"
        yield f"{counted(len(repeated), 'run')} {do} not count: {whose}."
    if lost := [run for run in contents.runs if run.metrics.not_finite]:
        whose = _names(contents, lost)
        yield f"Of {counted(len(lost), 'run')} some returns are not finite, and are left out of the curves: {whose}."


def _limited(contents: Contents) -> Iterator[str]:
    """Final evaluations that did not play all of their episodes to the end."""
    counts: dict[str, list[Run]] = {}
    limited = [(run, run.result) for run in contents.runs if run.result is not None and not run.result.is_whole]
    if not limited:
        return
    for run, result in limited:
        counts.setdefault(result.count_in_words, []).append(run)
    shown = [f"{words} ({_names(contents, runs)})" for words, runs in list(counts.items())[:_MOST_COUNTS]]
    if more := sum(len(runs) for runs in list(counts.values())[_MOST_COUNTS:]):
        shown.append(f"and {counted(more, 'run')} more, which runs.csv has")
    until = (
        " An episode that was cut counts with its return until then."
        if any(result.cut for _, result in limited)
        else ""
    )
    yield f"Final evaluations of {counted(len(limited), 'run')} were limited, to {'; '.join(shown)}.{until}"


def _without_area(contents: Contents) -> Iterator[str]:
    """Settings with scores whose rows have not what areas are taken of."""
    lacking = [s for s in contents.summaries if s.score is not None and contents.main not in s.curves]
    if lacking:
        has, whose = ("has", "its") if len(lacking) == 1 else ("have", "their")
        why = ", which needs an episode that ended" if contents.main == TRAINING else ""
        yield f"{counted(len(lacking), 'setting')} {has} no area: none of {whose} rows has {contents.main}{why}."


def _ended_early(contents: Contents) -> Iterator[str]:
    if count := sum(run.stopped_at_goal for run in contents.runs):
        yield (
            f"{counted(count, 'run')} ended early because stop_at_return was reached. In curves and areas such a run "
            "keeps its last value from there on: the greedy return of its last network, or its last training value."
        )


def _extended(contents: Contents) -> Iterator[str]:
    """Runs of a setting whose learning rates fell over other `total_steps` than those of the rest."""
    odd: list[Run] = []
    for summary in contents.summaries:
        extended = [run for run in summary.setting.runs if run.totals]
        # One that ended before is none of the others: it had no reason to be resumed.
        rest = [run for run in summary.setting.runs if not run.totals and not run.stopped_at_goal]
        if rest or len({run.totals for run in extended}) > 1:
            odd += extended
    if odd:
        yield (
            "Not all seeds of a setting were trained alike: resume has changed total_steps, over which learning rates"
            f" fall, of {counted(len(odd), 'run')}: {_names(contents, odd)}."
        )


def _parted(contents: Contents) -> Iterator[str]:
    """Runs that `resume` has taken out of their setting."""
    if not (parted := contents.groups.parted):
        return
    changes: dict[str, list[Run]] = {}
    for run in parted:
        changed = {key: (run.config.get(key), old) for key, old in run.before.items() if not is_no_setting(key)}
        told = [f"{key}={show(now)}, was {show(before)}" for key, (now, before) in changed.items() if now != before]
        changes.setdefault("; ".join(told), []).append(run)
    shown = [f"{_names(contents, runs)} ({change})" for change, runs in list(changes.items())[:_MOST_COUNTS]]
    if more := sum(len(runs) for runs in list(changes.values())[_MOST_COUNTS:]):
        shown.append(f"and {counted(more, 'run')} more")
    apart = "is apart from the other seeds of its setting" if len(parted) == 1 else "are apart from the other seeds"
    yield (
        f"{counted(len(parted), 'run')} {apart}, because resume has changed {'it' if len(parted) == 1 else 'them'} "
        f"alone: {', '.join(shown)}. Resumed with the same change, the others join."
    )


def _mixed(what: str, values: Sequence[str], so: str) -> Iterator[str]:
    told = Counter(value[:60] for value in values if value)
    if len(told) > 1:
        shown = "; ".join(f"{value} ({counted(count, 'run')})" for value, count in told.most_common(4))
        yield f"Runs were made with several {what}, so that {so}: {shown}."


def _picked(contents: Contents) -> Iterator[str]:
    if any(summary.setting.values.get(STUDY) == CONFIRMED for summary in contents.summaries):
        yield (
            f"{STUDY}={CONFIRMED}: what the search chose, on seeds that it had not seen. The scores of"
            f" {STUDY}={SEARCHED} were chosen by, so the best of them is likely too high."
        )
    elif any(best_in(contents.summaries, env) is not None for env in contents.envs):
        yield (
            "The best setting was picked by the scores that are shown, so its own score is likely too high: "
            "confirm it on fresh seeds."
        )


def _names(contents: Contents, runs: Sequence[Run]) -> str:
    return name_ranges([contents.name(run) for run in runs])
