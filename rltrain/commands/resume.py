"""`rltrain resume [RUN_OR_SWEEP] [key=value ...]`: continues from the newest whole checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rltrain.commands.evaluate import find_run, not_begun
from rltrain.commands.resume_changes import (
    asked_config,
    changed_config,
    lifting_change,
    made_by,
    refuse_less,
    with_earlier_changes,
)
from rltrain.config.schema import RunConfig
from rltrain.config.stored import Differences, as_settings, parse_value, record_changes, validate_stored
from rltrain.config.validate import show, to_plain
from rltrain.errors import Interrupted, RequestError, RunFailed
from rltrain.terminal.output import say
from rltrain.terminal.text import rltrain_command, shown_path

if TYPE_CHECKING:
    from rltrain.config.launchers import Launcher
    from rltrain.storage.checkpoint import Checkpoint
    from rltrain.storage.sweep_folder import ListedJob, SweepFolder


def main(args: list[str]) -> int:
    """Continues a run, or the unfinished jobs of a sweep; returns the exit code.

    Raises:
        RequestError, RunFailed, Interrupted: see rltrain.cli.
    """
    args = as_settings(args, ["trust"])
    names = [arg for arg in args if "=" not in arg or Path(arg).is_dir()]
    overrides = [arg for arg in args if arg not in names]
    if len(names) > 1 or any(name.startswith("-") for name in names):
        raise RequestError(f"{' '.join(names)}: resume takes one folder and key=value changes")
    trust = any(parse_value(arg.partition("=")[2]) is True for arg in overrides if arg.startswith("trust="))
    task = next((arg.partition("=")[2] for arg in overrides if arg.startswith("task=")), None)
    overrides = [arg for arg in overrides if not arg.startswith(("trust=", "task="))]
    from rltrain.storage.study_folder import is_study, study_of
    from rltrain.storage.sweep_folder import is_sweep, sweep_of

    place = find_run(names[0] if names else None, saved=False)
    if task is not None:
        return resume_task(place, task, overrides, trust)
    if not names and (study := study_of(place)) is not None:
        say(f"one run of a search: {shown_path(study)} goes on")
        place = study
    elif not names and (sweep := sweep_of(place)) is not None:
        alone = f"`{rltrain_command('resume', place, *(['trust=true'] if trust else []))}` resumes the job alone"
        say(f"one job of a sweep: {shown_path(sweep)} is resumed ({alone})")
        return _resume_sweep(sweep, overrides, trust)
    if (place / "run.json").exists():
        resume_run(place, overrides, trust)
        return 0
    if is_study(place):
        from rltrain.commands.tune import join

        return join(place, overrides, trust)
    if waits := not_begun(place):
        raise RequestError(f"{shown_path(place)}: {waits}")
    if not is_sweep(place):
        raise RequestError(f"{shown_path(place)}: is neither a run (run.json) nor a sweep (jobs.json)")
    return _resume_sweep(place, overrides, trust)


def resume_run(folder: Path, overrides: list[str], trust: bool) -> None:
    """Continues one run; says so and returns where nothing is left to do."""
    from rltrain.storage.run_folder import RunFolder

    run = RunFolder(folder)
    status = run.read_record().get("status")
    if status == "completed" and not overrides:
        _tell_completed(folder, {folder: None})
        return
    if status == "running":
        with run:
            pass  # its holder is gone, or else this has said who it is
    from rltrain.jobs.job import resume
    from rltrain.policy.source import stored_config
    from rltrain.storage.checkpoint import has_checkpoint, newest_checkpoint, read_checkpoint

    if status in ("running", "failed") and not has_checkpoint(folder):
        say(f"{shown_path(folder)}: ended before its first checkpoint, begins anew")
        _begin(run.read_config(), folder, overrides, trust)
        return
    newest = newest_checkpoint(folder)
    source = read_checkpoint(newest)
    config, differences = changed_config(stored_config(source), folder, made_by(source), overrides, trust)
    if status == "completed" and (ended := _already_ended(config, source, differences)):
        say(f"{shown_path(folder)}: {ended}")
        return
    _tell(differences)
    if "replay" not in source.tensors:
        raise RequestError(
            f"{newest}: was saved without its experience (checkpoint.replay=false) and cannot be continued"
        )
    resume(config, folder, source, record_changes(source.step, differences))


def resume_task(place: Path, number: str, overrides: list[str], trust: bool) -> int:
    """`rltrain resume SWEEP task=N`: finishes the jobs of one task of a sweep on a cluster, here."""
    from rltrain.storage.sweep_folder import SweepFolder
    from rltrain.storage.task_folder import TaskFolder, read_tasks

    listed = read_tasks(place)
    task = next((task for task in (listed.tasks if listed else ()) if str(task.number) == number), None)
    if task is None:
        raise RequestError(f"task={number}: {shown_path(place)} has no such task")
    sweep = SweepFolder(place)
    with TaskFolder(place, task.number).locked():
        wanted = {place / job for job in task.jobs}
        jobs = {folder: job for folder, job in sweep.jobs().items() if folder in wanted}
        _raise_for(_finish_here(sweep, jobs, overrides, trust))
    return 0


def _resume_sweep(place: Path, overrides: list[str], trust: bool) -> int:
    from rltrain.commands.cluster import split_launcher
    from rltrain.commands.sweep_table import report_sweep
    from rltrain.storage.sweep_folder import SweepFolder

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
    from rltrain.storage.sweep_folder import is_completed, stopped_sweep

    jobs = sweep.jobs()
    done = not overrides and all(map(is_completed, jobs))
    # Where nothing will run, what the folder says of a launcher needs neither consent nor the launcher's package.
    launcher = asked_launcher(sweep.path, of_launcher, trust) if of_launcher or not done else None
    if done:
        _tell_completed(sweep.path, {folder: job.config for folder, job in jobs.items()})
        return []
    _list_changes(sweep, {folder: job.config for folder, job in jobs.items()}, overrides, trust)
    if launcher is not None:
        return _finish_on_cluster(sweep, jobs, launcher, overrides, trust)
    try:
        return _finish_here(sweep, jobs, overrides, trust)
    except Interrupted as error:
        raise stopped_sweep(sweep.path, error.exit_code) from error


def _finish_on_cluster(
    sweep: SweepFolder, jobs: Mapping[Path, ListedJob], launcher: Launcher, overrides: list[str], trust: bool
) -> list[str]:
    from rltrain.commands.cluster import train_on_cluster
    from rltrain.storage.run_folder import RunFolder
    from rltrain.storage.run_result import read_status
    from rltrain.storage.sweep_folder import is_completed

    left = [job for job in jobs.values() if overrides or not is_completed(job.folder)]
    configs = {
        job.folder: validate_stored(RunFolder(job.folder).read_config() if job.config is None else job.config)
        for job in left
    }
    env_id = next((config.imports for config in configs.values() if config.imports), "")
    words = [*overrides, *(["trust=true"] if trust else [])]
    lost = train_on_cluster(sweep.path, configs, launcher, words, env_id)
    runs = [RunFolder(folder) for folder in configs]
    failed = {run.path: str(run.read_record().get("reason")) for run in runs if read_status(run) == "failed"}
    return [f"{folder.relative_to(sweep.path)}: {reason}" for folder, reason in {**lost, **failed}.items()]


def _finish_here(sweep: SweepFolder, listed: Mapping[Path, ListedJob], overrides: list[str], trust: bool) -> list[str]:
    """Continues jobs in this process and its workers; a job that another process trains is left alone."""
    from rltrain.commands.resume_population import held_jobs
    from rltrain.storage.sweep_folder import is_completed

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
            if plain is None or (folder / "run.json").exists():
                resume_run(folder, overrides, trust)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                _begin(plain, folder, overrides, trust)
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
    from rltrain.storage.sweep_folder import is_completed

    configs = {}
    for folder, plain in jobs.items():
        if plain is None or (not overrides and is_completed(folder)):
            continue
        try:
            before = with_earlier_changes(validate_stored(plain), folder, 0)
        except RequestError:  # its files are damaged: the job itself says so, and stops no other
            continue
        try:
            config, differences = asked_config(before, overrides, trust)
            if "total_steps" in differences:
                from rltrain.storage.checkpoint import newest_step

                refuse_less({"total_steps": config.total_steps}, {"total_steps": newest_step(folder)}, folder)
        except RequestError as error:
            raise RequestError(f"job {folder.relative_to(sweep.path)}: {error}") from error
        configs[folder] = to_plain(config)
    if overrides:
        sweep.change_jobs(configs, overrides)


def _what_differs(jobs: Mapping[Path, ListedJob]) -> dict[Path, str]:
    """The overrides of each job that not all have; of jobs whose overrides nobody wrote down nothing."""
    from rltrain.config.override_text import as_typed, own_overrides

    known = [job.overrides for job in jobs.values() if job.overrides is not None]
    if len(known) < len(jobs):
        return dict.fromkeys(jobs, "")
    return dict(zip(jobs, map(as_typed, own_overrides(known)), strict=True))


def _resume_populations(
    jobs: Mapping[Path, Mapping[str, Any] | None], own: Mapping[Path, str], overrides: list[str], trust: bool
) -> list[tuple[Path, str]]:
    """Continues the jobs that belong together; the folder of each, and why it failed (nothing: it did not)."""
    from rltrain.commands.resume_population import populations_of

    told: list[str] = []

    def change(stored: RunConfig, folder: Path, source: Checkpoint | None) -> tuple[RunConfig, list[dict[str, Any]]]:
        made = made_by(source)
        config, differences = changed_config(stored, folder, made, overrides, trust)
        if not told:
            _tell(differences)
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


def _begin(plain: Mapping[str, Any], folder: Path, overrides: list[str], trust: bool) -> None:
    """Trains a run of which nothing is left or nothing was ever there."""
    from rltrain.jobs.job import begin_again

    config, differences = changed_config(validate_stored(plain), folder, made_by(None), overrides, trust)
    _tell(differences)
    begin_again(config, folder, record_changes(0, differences))


def _tell_completed(place: Path, runs: Mapping[Path, Mapping[str, Any] | None]) -> None:
    """Says that nothing is left to do, and under which changes it would be.

    Args:
        runs: folder of each -> its config, or None where only the folder has it.
    """
    changes = sorted({lifting_change(folder, config) for folder, config in runs.items()})
    say(f"{shown_path(place)}: completed, nothing left to do; {' '.join(changes)} extends it")


def _already_ended(config: RunConfig, source: Checkpoint, differences: Differences) -> str:
    """Which limit keeps a finished run from going on under `config`, and what lets it; nothing where it would train."""
    from rltrain.training.limits import reached_limit

    state = source.state
    try:
        limit = reached_limit(config, source.step, state.get("episodes", 0), state.get("confirmed_return"))
    except TypeError:  # a foreign state: loading it says what is wrong
        return ""
    if limit is None:
        return ""
    at = f" at step {source.step:,}" if limit.key != "total_steps" else ""
    asked = [f"{key}={show(value)}" for key, (_, value) in differences.items() if key != limit.key]
    return f"already ended: {limit} was reached{at}; {' '.join([limit.lifted, *asked])} lets it go on"


def _tell(differences: Differences) -> None:
    for key, (_, value) in differences.items():
        say(f"changed   {key}={show(value)}")
