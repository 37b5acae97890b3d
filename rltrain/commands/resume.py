"""`rltrain resume [RUN_OR_SWEEP] [key=value ...]`: continues from the newest whole checkpoint."""

from __future__ import annotations

from pathlib import Path

from rltrain.commands.find import find_run, not_begun
from rltrain.config.stored import as_settings, parse_value
from rltrain.errors import RequestError
from rltrain.terminal.output import say
from rltrain.terminal.shell import rltrain_command, shown_path


def main(args: list[str]) -> int:
    """Continues a run, or the unfinished jobs of a sweep; returns the exit code.

    Raises:
        RequestError, RunFailed, Interrupted: see rltrain.cli.
    """
    args = as_settings(args, "resume", ["trust"], key_meant=_key_meant)
    names = [arg for arg in args if "=" not in arg or Path(arg).is_dir()]
    overrides = [arg for arg in args if arg not in names]
    if len(names) > 1 or any(name.startswith("-") for name in names):
        raise RequestError(f"{' '.join(names)}: resume takes one folder and key=value changes")
    trust = any(parse_value(arg.partition("=")[2]) is True for arg in overrides if arg.startswith("trust="))
    task = next((arg.partition("=")[2] for arg in overrides if arg.startswith("task=")), None)
    overrides = [arg for arg in overrides if not arg.startswith(("trust=", "task="))]
    from rltrain.commands.resume_run import resume_run
    from rltrain.commands.resume_sweep import resume_sweep, resume_task
    from rltrain.storage.checkpoint_folders import has_checkpoint
    from rltrain.storage.run_folder import newest_below
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
        return resume_sweep(sweep, overrides, trust)
    if (place / "run.json").exists() or has_checkpoint(place):
        resume_run(place, overrides, trust)
        return 0
    if is_study(place):
        from rltrain.commands.tune import join

        return join(place, overrides, trust)
    if waits := not_begun(place):
        raise RequestError(f"{shown_path(place)}: {waits}")
    if not is_sweep(place):
        begun = " yet: a start that was stopped before its run began" if (place / ".hydra").is_dir() else ""
        kinds = f"is neither a run (run.json) nor a sweep (jobs.json){begun}"
        run = next((path for path in place.parents[:2] if (path / "run.json").exists()), None)
        meant = newest_below(place) if run is None else f"; `{rltrain_command('resume', run)}` resumes its run"
        raise RequestError(f"{shown_path(place)}: {kinds}{meant}")
    return resume_sweep(place, overrides, trust)


def _key_meant(name: str) -> str:
    from rltrain.config.intended import key_meant

    return key_meant(name) or name
