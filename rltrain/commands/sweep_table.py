"""Tables of a sweep's results, for a terminal and in the sweep's folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from rltrain.commands.sweep_results import JobResult, SettingResult, job_results, setting_results, to_plain
from rltrain.config.override_text import as_typed
from rltrain.config.plain import at
from rltrain.config.stored import validate_stored
from rltrain.errors import Interrupted, RequestError
from rltrain.storage.run_folder import RunFolder
from rltrain.storage.run_result import read_status
from rltrain.storage.sweep_folder import RESULTS_TEXT, SweepFolder
from rltrain.terminal.shell import rltrain_command, shown_path
from rltrain.terminal.table import MOST_ROWS, laid_out
from rltrain.terminal.text import counted, harmless, mean_and_std, number, terminal_width, wrapped
from rltrain.training.outcome import Outcome

_LOST = "lost: an evaluation reached the threshold, the last network does not"
_Row = TypeVar("_Row", JobResult, SettingResult)


def report_sweep(sweep: SweepFolder) -> str:
    """Writes sweep.json and sweep.txt, and returns what ends a sweep on the terminal: the tables and how many jobs are
    done. Where nothing has begun, as after a dry run, it writes nothing.

    Raises:
        RunFailed: the files cannot be written.
        RequestError: the list of jobs is malformed.
    """
    jobs = job_results(list(sweep.jobs().values()))
    settings, notes = setting_results(jobs), sweep.notes()
    done = f"{sum(job.status == 'completed' for job in jobs)} of {counted(len(jobs), 'job')} done"
    if all(job.status == "not begun" for job in jobs):
        return f"sweep     {counted(len(jobs), 'job')}, nothing was trained or written"
    whole = "\n\n".join([*_tables(jobs, settings, None), *notes, done])
    sweep.write_results(to_plain(jobs, settings, notes), f"{whole}\n")
    tables = _tables(jobs, settings, terminal_width())
    said = [shown_note(note) for note in notes] if tables else []
    parts = ["", "\n\n".join(tables), *said, ""] if tables else []
    report = [f"report    {rltrain_command('report', sweep.path)}"] if tables else []
    return "\n".join([*parts, f"sweep     {done}, in {shown_path(sweep.path)}", *report])


def stopped_sweep(folder: Path, exit_code: int) -> Interrupted:
    """The exception that ends a command whose sweep was stopped by a signal, once its jobs are saved."""
    lost = 0
    with suppress(RequestError):  # a malformed job says so when it is resumed
        for job, plain in _configs(folder):
            if at(plain, ["checkpoint", "replay"]) is False and read_status(RunFolder(job)) == "interrupted":
                lost += not validate_stored(plain).resumable
    but = f", but for {counted(lost, 'job')} that cannot go on (checkpoint.replay=false)" if lost else ""
    return Interrupted(exit_code, f"sweep stopped; `{resuming(folder)}` finishes it{but}")


def resuming(folder: Path) -> str:
    """The command that resumes a sweep."""
    imports = {name: None for _, plain in _configs(folder) for name in _imports(plain)}
    return rltrain_command("resume", folder, imports=list(imports))


def _imports(plain: Mapping[str, Any]) -> list[str]:
    """Each `module:name` of a config that may be malformed."""
    loggers = plain.get("loggers")
    names = [at(plain, ["env", "id"]), *(loggers if isinstance(loggers, list) else [])]
    return [name for name in names if isinstance(name, str) and ":" in name]


def _configs(folder: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Folder and config of each job; a malformed list, or job, ends it, and says so when it is resumed."""
    with suppress(RequestError):
        for job in SweepFolder(folder).jobs().values():
            yield job.folder, job.config or RunFolder(job.folder).read_config()


def shown_note(note: str) -> str:
    """As a terminal shows it; a command, which is indented, stays on one line."""
    lines = map(harmless, note.split("\n"))
    return "\n".join(line if line.startswith(" ") else wrapped(line) for line in lines)


def _tables(jobs: Sequence[JobResult], settings: Sequence[SettingResult], width: int | None) -> list[str]:
    """A line per job: what sets it apart, its steps, the step that solved it, its greedy return (mean and deviation of
    the episodes); then a line per setting, where settings have several seeds, best first: mean and deviation of the
    seeds' means. Nothing where there are no two jobs, or no job has left a result.

    Args:
        width: of the terminal, on which of more than 40 jobs only the settings are shown, or the best 40 where no
            setting has several seeds. None: all is shown.
    """
    if len(jobs) < 2 or all(job.result is None for job in jobs):
        return []
    tables = []
    most = len(jobs) if width is None else MOST_ROWS
    if len(jobs) <= most or not settings:
        shown = list(jobs) if len(jobs) <= most else _best(jobs, most)
        tables.append(_with_more(_of_jobs(shown, len(jobs), width), len(jobs) - len(shown), "jobs"))
    if settings:
        best = _best(settings, most)
        tables.append(_with_more(_of_settings(best, width), len(settings) - len(best), "settings"))
    return tables


def _best(rows: Sequence[_Row], most: int) -> list[_Row]:
    """Best first, environment by environment, since returns of two environments cannot be compared; at most `most`."""
    by_env: dict[str, list[_Row]] = {}
    for row in rows:
        by_env.setdefault(row.env, []).append(row)
    share = most if len(rows) <= most else max(1, most // len(by_env))
    return [row for group in by_env.values() for row in sorted(group, key=_mean, reverse=True)[:share]]


def _mean(row: JobResult | SettingResult) -> float:
    return row.mean


def _with_more(table: str, left_out: int, what: str) -> str:
    return f"{table}\nnot shown: {left_out} {what}, which {RESULTS_TEXT} has" if left_out else table


def _of_jobs(jobs: Sequence[JobResult], of: int, width: int | None) -> str:
    rows = []
    for job in jobs:
        outcome = ["-", "-", "no result"]
        if job.result is not None:
            greedy = mean_and_std(job.mean, job.result.returns["std"])
            outcome = [f"{job.result.env_step:,}", _solved_at(job.result.solve_step, job.outcome), greedy]
        rows.append([job.folder, as_typed(job.own), *outcome])
    title = "job" if len(jobs) == of else f"best {len(jobs)}"
    table = laid_out([title, "what differs", "steps", "solved at", "greedy return"], rows, width, optional=(2, 3))
    results = [job.result for job in jobs if job.result is not None]
    episodes = sorted({result.episodes for result in results})
    notes = [f"+- is the standard deviation over a job's {' or '.join(map(str, episodes))} episodes"]
    if limited := list(dict.fromkeys(result.count_in_words for result in results if not result.is_whole)):
        notes.append(f"final evaluations were limited: {'; '.join(limited[:3])}{'; ...' if len(limited) > 3 else ''}")
    return _with_notes(table, notes, any(job.outcome == "lost" for job in jobs), width)


def _solved_at(step: int | None, outcome: Outcome | None) -> str:
    if outcome == "lost":
        return f"{step:,}, lost"
    if outcome == "solved":
        return "at the end" if step is None else f"{step:,}"
    return "-"


def _of_settings(settings: Sequence[SettingResult], width: int | None) -> str:
    rows = []
    for setting in settings:
        count, solved, lost = len(setting.jobs), setting.count("solved"), setting.count("lost")
        greedy = "no result"
        if count:
            greedy = number(setting.mean) if setting.std is None else mean_and_std(setting.mean, setting.std)
        rows.append(
            [
                str(count) if count == setting.seeds else f"{count} of {setting.seeds}",
                as_typed(setting.overrides) or ("all jobs" if len(settings) == 1 else "the others"),
                "-" if setting.env_step is None else f"{setting.env_step:,.0f}",
                f"{solved} of {setting.seeds}{f', {lost} lost' if lost else ''}" if solved or lost else "-",
                greedy,
            ]
        )
    table = laid_out(["seeds", "mean over seeds", "steps", "solved", "greedy return"], rows, width, optional=(2, 3))
    notes = ["+- is the sample standard deviation (n - 1) over the seeds' means"]
    return _with_notes(table, notes, any(setting.count("lost") for setting in settings), width)


def _with_notes(table: str, notes: list[str], lost: bool, width: int | None) -> str:
    lines = [*notes, _LOST] if lost else notes
    return "\n".join([table, *(line if width is None else wrapped(line) for line in lines)])
