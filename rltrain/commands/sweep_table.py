"""What a sweep found, job by job and over the seeds of each setting, as a table for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from rltrain.config.override_text import as_typed, own_overrides
from rltrain.errors import RequestError
from rltrain.text import mean_and_std, terminal_width
from rltrain.training.run_folder import RunFolder

_MOST_ROWS = 40
_GAP = "  "


@dataclass(frozen=True)
class SweptJob:
    """A job of a sweep: its folder, and its overrides as the sweeper gave them."""

    folder: Path
    overrides: Sequence[str]


def sweep_table(jobs: Sequence[SweptJob]) -> str:
    """A line per job: what sets it apart, its steps, the step that solved it, its greedy return (mean and deviation of
    the episodes); then a line per setting, where settings have several seeds: mean and deviation of the seeds' means.

    Of more than 40 jobs only the settings, or the 40 jobs of the highest return where no setting has several seeds.
    Nothing where there are no two jobs, or no job has left a result.
    """
    results = [_result(job.folder) for job in jobs]
    if len(jobs) < 2 or not any(results):
        return ""
    own = own_overrides([job.overrides for job in jobs])
    settings = _settings(own)
    parts = []
    if len(jobs) <= _MOST_ROWS or not settings:
        parts.append(_of_jobs([job.folder.name for job in jobs], own, results))
    if settings:
        parts.append(_of_settings(settings, results))
    return "\n\n".join(parts)


def _settings(own: Sequence[Sequence[str]]) -> dict[tuple[str, ...], list[int]]:
    """The numbers of the jobs that differ in their seeds alone, by what else they have; none where each has one."""
    found: dict[tuple[str, ...], list[int]] = {}
    for number, overrides in enumerate(own):
        setting = tuple(override for override in overrides if not override.startswith("seed="))
        found.setdefault(setting, []).append(number)
    return found if any(len(numbers) > 1 for numbers in found.values()) else {}


def _of_jobs(names: Sequence[str], own: Sequence[Sequence[str]], results: Sequence[dict[str, Any] | None]) -> str:
    numbers = list(range(len(names)))
    title = "job"
    if len(names) > _MOST_ROWS:
        numbers.sort(key=lambda number: _mean(results[number]), reverse=True)
        numbers, title = numbers[:_MOST_ROWS], f"best {_MOST_ROWS}"
    rows = []
    for number in numbers:
        result = results[number]
        if result is None:
            outcome = ["-", "-", "no result"]
        else:
            solved, found = result["solve_step"], result["episode_return"]
            step = "-" if solved is None else f"{solved:,}"
            outcome = [f"{result['env_step']:,}", step, mean_and_std(found["mean"], found["std"])]
        rows.append([names[number], as_typed(own[number]), *outcome])
    return _laid_out([title, "what differs", "steps", "solved at", "greedy return"], rows)


def _mean(result: dict[str, Any] | None) -> float:
    return -math.inf if result is None else float(result["episode_return"]["mean"])


def _of_settings(settings: dict[tuple[str, ...], list[int]], results: Sequence[dict[str, Any] | None]) -> str:
    rows = []
    for setting, numbers in settings.items():
        found = [result for number in numbers if (result := results[number]) is not None]
        means = [_mean(result) for result in found]
        solved = sum(result["solve_step"] is not None for result in found)
        rows.append(
            [
                str(len(found)),
                as_typed(setting) or "all jobs",
                f"{fmean(result['env_step'] for result in found):,.0f}" if found else "-",
                f"{solved} of {len(found)}" if solved else "-",
                mean_and_std(fmean(means), pstdev(means)) if found else "no result",
            ]
        )
    return _laid_out(["seeds", "mean over seeds", "steps", "solved", "greedy return"], rows)


def _laid_out(titles: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their texts, but the second no wider than the terminal leaves; the fourth only where it says
    something."""
    lines = [titles, *rows]
    if all(row[3] == "-" for row in rows):
        lines = [[*line[:3], line[4]] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    others = sum(widths) - widths[1] + len(_GAP) * (len(widths) - 1)
    widths[1] = min(widths[1], max(len(titles[1]), terminal_width() - others))
    shown = []
    for line in lines:
        cells = [_cut(line[1], widths[1]) if place == 1 else text for place, text in enumerate(line)]
        left = [text.ljust(width) for text, width in zip(cells[:2], widths[:2], strict=True)]
        right = [text.rjust(width) for text, width in zip(cells[2:], widths[2:], strict=True)]
        shown.append(_GAP.join([*left, *right]).rstrip())
    return "\n".join(shown)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _result(folder: Path) -> dict[str, Any] | None:
    """result.json; None where the job has left none."""
    run = RunFolder(folder)
    if not run.result.exists():
        return None
    try:
        return run.read_result()
    except RequestError:
        return None
