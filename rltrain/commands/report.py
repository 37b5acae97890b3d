"""`rltrain report [DIR ...] [metric=TAG] [out=FOLDER] [--json]`: curves and tables over seeds, for runs and sweeps."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rltrain.commands.find import find_run, not_begun
from rltrain.config.stored import parse_words
from rltrain.errors import RequestError
from rltrain.report.words import PAGE, cells
from rltrain.terminal.output import errors, say
from rltrain.terminal.shell import command_folder, no_folder, shown_path, unusable
from rltrain.terminal.table import laid_out
from rltrain.terminal.text import harmless, terminal_width, wrapped

if TYPE_CHECKING:
    from rltrain.report.contents import Contents
    from rltrain.report.runs import Run
    from rltrain.report.summary import Summary

DEFAULTS = {"out": None, "metric": None, "json": False}
_MOST_ROWS, _MOST_NAMED = 40, 10


def main(args: list[str]) -> int:
    """Writes the report and prints its table; returns the exit code.

    Raises:
        RequestError: see rltrain.cli.
        OSError: the report cannot be written.
    """
    names, options = parse_words("report", args, DEFAULTS)
    metric = options["metric"]
    if metric is not None and (not isinstance(metric, str) or not metric.strip()):
        raise RequestError(f"metric={metric}: must be the tag of a metric, such as rollout/episode_return")
    places = _places(names, announce=not options["json"])
    out = _out(options["out"], places)
    from rltrain.report.contents import read_contents
    from rltrain.report.tables import to_plain
    from rltrain.report.writing import write_report

    contents = read_contents(places, _called(places), metric)
    _warn_of_damage(contents)
    try:
        page = write_report(contents, out)
    except OSError as error:
        if options["out"] is not None:
            raise
        raise RequestError(f"{unusable(out, error, 'written')}; out=FOLDER writes elsewhere") from error
    if options["json"]:
        say(json.dumps({**to_plain(contents), "page": str(page)}, indent=2, allow_nan=False))
    else:
        say(f"{in_words(contents)}\n\nreport    {shown_path(page)}")
    return 0


def in_words(contents: Contents) -> str:
    """The table of settings, best first, and what must be known to read it."""
    from rltrain.report.notes import notes
    from rltrain.report.statistics import CONFIDENCE

    shown = contents.summaries[:_MOST_ROWS]
    rows = [_row(contents, summary) for summary in shown]
    titles = ["seeds", "setting", "final return", "solved", "solve step", "area", "steps/s"]
    lines = [laid_out(titles, rows, terminal_width(), optional=(6, 5, 4))] if rows else []
    if len(contents.summaries) > len(shown):
        lines.append(f"not shown: {len(contents.summaries) - len(shown)} settings, which settings.csv has")
    scored = any(summary.score for summary in contents.summaries)
    meaning = f"[{CONFIDENCE:.0%} interval, bootstrap over seeds] of the last network's greedy return"
    if lines and "area" in lines[0].partition("\n")[0].split():  # a narrow terminal has no room for it
        over = f"of the mean {contents.main} over the steps that all completed runs made"
        meaning = f"final return, area: interquartile means over seeds {meaning}, and {over}"
    else:
        meaning = f"final return: interquartile mean over seeds {meaning}"
    named = [_unfinished(contents, run) for run in contents.unfinished[:_MOST_NAMED]]
    if more := len(contents.unfinished) - len(named):
        named.append(f"and {more} more, which the page names")
    said = [*([meaning] if scored else []), *notes(contents), *named]
    return "\n".join([*lines, *(wrapped(harmless(line)) for line in said)])


def _row(contents: Contents, summary: Summary) -> list[str]:
    env = f"{summary.setting.env}  " if len(contents.envs) > 1 else ""
    seeds, *numbers = cells(summary)
    return [seeds, f"{env}{summary.setting.variant}", *numbers]


def _unfinished(contents: Contents, run: Run) -> str:
    """Which run left no final score, how far it came and why."""
    steps = "" if run.steps is None else f" at step {run.steps:,}"
    reason = run.reason or "".join(run.faults[:1])
    why = f": {reason}" if reason and not reason.startswith(run.state) else ""
    return f"{contents.name(run)}: {run.state[:40]}{steps}{why}"


def _warn_of_damage(contents: Contents) -> None:
    from rltrain.report.notes import damages

    lines = damages(contents)
    more = [f"and {len(lines) - _MOST_NAMED} more runs, which the page names"] if len(lines) > _MOST_NAMED else []
    for line in [*lines[:_MOST_NAMED], *more]:
        print(wrapped(f"warning   {harmless(line)}"), file=errors())


def _places(names: Sequence[str], announce: bool) -> list[Path]:
    """The folders that are meant, absolute: those named, each once; the newest sweep or study, or the newest run."""
    if names:
        places = list(dict.fromkeys(Path(os.path.normpath(find_run(name))) for name in names))
        for place in places:
            if waits := not_begun(place):
                raise RequestError(f"{shown_path(place)}: {waits}")
        return places
    from rltrain.storage.study_folder import study_of
    from rltrain.storage.sweep_folder import newest_sweep

    if (sweep := newest_sweep(command_folder() / "outputs")) is None:
        return [find_run(None, announce)]
    study = study_of(sweep)
    if announce:
        say(f"newest {'sweep' if study is None else 'study'}: {shown_path(study or sweep)}")
    return [study or sweep]


def _called(places: Sequence[Path]) -> list[str]:
    """Short names of the places: the last parts of their paths, as many as tell them apart."""
    paths = [place.resolve() for place in places]
    longest = max(len(path.parts) for path in paths)
    for count in range(1, longest):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return list(map(str, paths))


def _out(given: Any, places: Sequence[Path]) -> Path:
    """The folder that is written: new, empty, or that of an earlier report.

    Raises:
        RequestError: it holds something else, or is no folder.
    """
    if given is not None:
        out = command_folder() / str(given)
    elif len(places) == 1:
        out = places[0] / "report"
    else:
        out = command_folder() / "outputs" / "reports" / time.strftime("%Y-%m-%d_%H-%M-%S")
    shown = shown_path(out)
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise RequestError(f"{shown}: is {'a link' if out.is_symlink() else 'a file'}; out=FOLDER writes elsewhere")
    if out.exists() and any(out.iterdir()) and not (out / PAGE).is_file():
        raise RequestError(f"{shown}: holds other files than a report; out=FOLDER writes elsewhere")
    if given is not None and (fault := no_folder(out.parent)):
        raise RequestError(f"out={given}: {shown_path(out.parent)}: {fault}")
    return out
