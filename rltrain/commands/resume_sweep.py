"""`rltrain resume` of a sweep: job by job, as populations, or on a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rltrain.commands.resume_changes import (
    asked_config,
    changed_config,
    left_to_extend,
    made_by,
    refuse_less,
    with_earlier_changes,
)
from rltrain.commands.resume_population import held_jobs, populations_of
from rltrain.commands.resume_run import begin, resume_run, tell, tell_completed
from rltrain.commands.sweep_header import note_after
from rltrain.commands.sweep_table import report_sweep, stopped_sweep
from rltrain.config.plain import to_plain
from rltrain.config.schema import RunConfig
from rltrain.config.stored import parse_changes, record_changes, validate_stored
from rltrain.errors import Interrupted, RequestError, RunFailed
from rltrain.storage.run_folder import RunFolder
from rltrain.storage.run_result import is_completed, read_status
from rltrain.storage.sweep_folder import ListedJob, SweepFolder
from rltrain.storage.task_folder import TaskFolder, read_tasks
from rltrain.terminal.output import say
from rltrain.terminal.shell import shown_path

if TYPE_CHECKING:
    from rltrain.config.launchers import Launcher
    from rltrain.storage.checkpoint import Checkpoint


def resume_task(place: Path, number: str, overrides: list[str], trust: bool) -> int:
    """`rltrain resume SWEEP task=N`: finishes the jobs of one task of a sweep on a cluster, here."""
    listed = read_tasks(place)
    task = next((task for task in (listed.tasks if listed else ()) if str(task.number) == number), None)
    if task is None:
        raise RequestError(f"task={number}: {shown_path(place)} has no such task")
    sweep = SweepFolder(place)
    with TaskFolder(place, task.number).locked():
        wanted = {place / job for job in task.jobs}
        jobs = {folder: job for folder, job in sweep.jobs().items() if folder in wanted}
        _raise_for(_finish_here(sweep, jobs, overrides or _left_to_extend(jobs), trust))
    return 0


def resume_sweep(place: Path, overrides: list[str], trust: bool) -> int:
    """Finishes the jobs of a sweep, here or on the cluster that it was started on; returns the exit code.

    Raises:
        RunFailed: jobs failed; the others are finished.
    """
    from rltrain.commands.cluster import split_launcher

    of_launcher, overrides = split_launcher(overrides)
    with SweepFolder(place) as sweep:
        failed = _finish_jobs(sweep, overrides, trust, of_launcher)
        say(report_sweep(sweep))
    _raise_for(failed)
    return 0


def _raise_for(failed: list[str]) -> None:
    if failed:
        raise RunFailed("\n".join(["failed jobs:", *failed]))


def _finish_jobs(sweep: SweepFolder, overrides: list[str], trust: bool, of_launcher: list[str]) -> list[str]:
    """Continues what is unfinished, and what goes on under changed limits; a line for each job that failed."""
    from rltrain.commands.cluster import asked_launcher

    jobs = sweep.jobs()
    if not jobs:
        raise RequestError(
            f"{shown_path(sweep.path)}: lists no jobs: it was stopped while they were checked; give its command again"
        )
    overrides = overrides or _left_to_extend(jobs)
    done = not overrides and all(map(is_completed, jobs))
    # Where nothing will run, what the folder says of a launcher needs neither consent nor the launcher's package.
    launcher = asked_launcher(sweep.path, of_launcher, trust) if of_launcher or not done else None
    if done:
        tell_completed(sweep.path, {folder: job.config for folder, job in jobs.items()})
        return []
    _list_changes(sweep, {folder: job.config for folder, job in jobs.items()}, overrides, trust)
    if launcher is not None:
        return _finish_on_cluster(sweep, jobs, launcher, overrides, trust)
    try:
        return _finish_here(sweep, jobs, overrides, trust)
    except Interrupted as error:
        raise stopped_sweep(sweep.path, error.exit_code) from error


def _left_to_extend(jobs: Mapping[Path, ListedJob]) -> list[str]:
    """The changes of an earlier resume that completed jobs have not gone on under: a stop came before their turn."""
    completed = (folder for folder in jobs if is_completed(folder))
    return list(dict.fromkeys(change for folder in completed for change in left_to_extend(folder, jobs[folder].config)))


def _finish_on_cluster(
    sweep: SweepFolder, jobs: Mapping[Path, ListedJob], launcher: Launcher, overrides: list[str], trust: bool
) -> list[str]:
    from rltrain.commands.cluster import train_on_cluster

    left = [job for job in jobs.values() if overrides or not is_completed(job.folder)]
    configs = {
        job.folder: validate_stored(RunFolder(job.folder).read_config() if job.config is None else job.config)
        for job in left
    }
    imports = [name for config in configs.values() for name in config.imports]
    words = [*overrides, *(["trust=true"] if trust else [])]
    lost = train_on_cluster(sweep.path, configs, launcher, words, imports)
    runs = [RunFolder(folder) for folder in configs]
    failed = {run.path: str(run.read_record().get("reason")) for run in runs if read_status(run) == "failed"}
    return [f"{folder.relative_to(sweep.path)}: {reason}" for folder, reason in {**lost, **failed}.items()]


def _finish_here(sweep: SweepFolder, listed: Mapping[Path, ListedJob], overrides: list[str], trust: bool) -> list[str]:
    """Continues jobs in this process and its workers; a job that another process trains is left alone."""
    own, held = _what_differs(listed), held_jobs(listed)
    failed = [f"{folder.relative_to(sweep.path)}: {why}: left alone" for folder, why in held.items()]
    jobs = {folder: job.config for folder, job in listed.items() if folder not in held}
    for folder, reason in _resume_populations(jobs, own, overrides, trust):
        del jobs[folder]
        if reason:
            failed.append(f"{folder.relative_to(sweep.path)}: {' '.join(reason.split())}")
    for folder, plain in jobs.items():
        if not overrides and is_completed(folder):
            continue
        name = folder.relative_to(sweep.path)
        say(f"job {name!s:<5} {own[folder]}".rstrip())
        try:
            if plain is None or read_status(RunFolder(folder)) != "not begun":
                resume_run(folder, overrides, trust, alone=False)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                begin(plain, folder, overrides, trust, alone=False)
        except (RequestError, RunFailed) as error:
            failed.append(f"{name}: {' '.join(str(error).split())}")
    return failed


def _list_changes(
    sweep: SweepFolder, jobs: Mapping[Path, Mapping[str, Any] | None], overrides: list[str], trust: bool
) -> None:
    """Lists the jobs' changed configs: one that a stop keeps from beginning now begins with its own later.

    Raises:
        RequestError: one of the jobs refuses what is asked for.
    """
    from rltrain.storage.checkpoint_folders import newest_step

    configs, asked = {}, dict(parse_changes(overrides))
    for folder, plain in jobs.items():
        if plain is None or (not overrides and is_completed(folder)):
            continue
        try:
            before = with_earlier_changes(validate_stored(plain), folder, 0)
        except RequestError:  # its files are damaged: the job itself says so, and stops no other
            continue
        try:
            refuse_less(asked, {"total_steps": newest_step(folder)}, folder)
            config, _ = asked_config(before, overrides, trust)
        except RequestError as error:
            raise RequestError(f"job {folder.relative_to(sweep.path)}: {error}") from error
        configs[folder] = to_plain(config)
    if overrides:
        sweep.change_jobs(configs, overrides, [note_after(overrides, note) for note in sweep.notes()])


def _what_differs(jobs: Mapping[Path, ListedJob]) -> dict[Path, str]:
    """The overrides of each job that not all have; nothing where the list of jobs has no overrides."""
    from rltrain.config.override_text import as_typed, own_overrides

    known = [job.overrides for job in jobs.values() if job.overrides is not None]
    if len(known) < len(jobs):
        return dict.fromkeys(jobs, "")
    return dict(zip(jobs, map(as_typed, own_overrides(known)), strict=True))


def _resume_populations(
    jobs: Mapping[Path, Mapping[str, Any] | None], own: Mapping[Path, str], overrides: list[str], trust: bool
) -> list[tuple[Path, str]]:
    """Continues the jobs that belong together; the folder of each, and why it failed (nothing: it did not)."""
    told: list[str] = []

    def change(stored: RunConfig, folder: Path, source: Checkpoint | None) -> tuple[RunConfig, list[dict[str, Any]]]:
        made = made_by(source)
        config, differences = changed_config(stored, folder, made, overrides, trust)
        if not told:
            tell(differences, config, made["total_steps"])
            told.append("")
        return config, record_changes(made["total_steps"], differences)

    try:
        populations = populations_of(jobs, bool(overrides), change)
    except RequestError:
        return []  # job by job, each says what is wrong with it
    if not populations:
        return []
    for job in (job for population in populations for job in population):
        job.own = own[job.folder]
    from rltrain.jobs.pool import train_populations

    outcomes = train_populations(populations)
    return [
        (job.folder, str(outcome) if isinstance(outcome, BaseException) else "")
        for population, found in zip(populations, outcomes, strict=True)
        for job, outcome in zip(population, found, strict=True)
    ]
