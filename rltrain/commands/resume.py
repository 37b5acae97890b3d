"""`rltrain resume [RUN_OR_SWEEP] [key=value ...]`: continues from the newest whole checkpoint."""

from __future__ import annotations

from pathlib import Path

from rltrain.commands.evaluate import find_run
from rltrain.config.stored import changed, parse_value, require_trusted
from rltrain.errors import Interrupted, RequestError, RunFailed

# What may differ without making it another experiment. Only the limits of the run must not shrink.
_HARMLESS = ("total_steps", "total_episodes", "log_period", "stop_at_return", "eval", "checkpoint", "device")


def main(args: list[str]) -> int:
    names = [arg for arg in args if "=" not in arg]
    overrides = [arg for arg in args if "=" in arg]
    if len(names) > 1 or any(name.startswith("-") for name in names):
        raise RequestError(f"{' '.join(names)}: resume takes one folder and key=value changes")
    trust = any(parse_value(arg.partition("=")[2]) is True for arg in overrides if arg.startswith("trust="))
    overrides = [arg for arg in overrides if not arg.startswith("trust=")]
    place = find_run(names[0] if names else None)
    if (place / "run.json").exists():
        resume_run(place, overrides, trust)
        return 0
    jobs = sorted((path.parent for path in place.glob("*/run.json")), key=_job_number)
    if not jobs:
        raise RequestError(f"{place}: is neither a run nor a sweep (no run.json in it)")
    return _resume_sweep(jobs, overrides, trust)


def resume_run(folder: Path, overrides: list[str], trust: bool) -> None:
    """Continues one run; says so and returns where nothing is left to do."""
    from rltrain.training.run_folder import RunFolder

    record = RunFolder(folder).read_record()
    if record.get("status") == "completed" and not overrides:
        print(f"{folder}: completed, nothing left to do; total_steps=N extends it")
        return
    if record.get("status") == "running":
        with RunFolder(folder):
            pass  # its holder is gone, or else this has said who it is
    from rltrain.build import stored_config
    from rltrain.job import resume
    from rltrain.training.checkpoint import newest_checkpoint, read_checkpoint

    newest, skipped = newest_checkpoint(folder)
    for damaged in skipped:
        print(f"skipped the damaged checkpoint {damaged.name}")
    source = read_checkpoint(newest)
    stored = stored_config(source)
    config, differences = changed(stored, overrides, _HARMLESS)
    require_trusted(config, trust)
    for key in ("total_steps", "total_episodes"):
        before, after = getattr(stored, key), getattr(config, key)
        if before is not None and after is not None and after < before:
            raise RequestError(f"{key}={after}: a run can be extended, not cut below its {before}")
    if "replay" not in source.tensors:
        raise RequestError(
            f"{newest}: was saved without its experience (checkpoint.replay=false) and cannot be continued"
        )
    for key, value in differences.items():
        print(f"changed   {key}={value}")
    resume(config, folder, source)


def _resume_sweep(jobs: list[Path], overrides: list[str], trust: bool) -> int:
    failed: list[str] = []
    for job in jobs:
        print(f"job {job.name}")
        try:
            resume_run(job, overrides, trust)
        except Interrupted:
            raise
        except (RequestError, RunFailed) as error:
            failed.append(f"{job.name}: {error}")
    if failed:
        raise RunFailed("\n".join(["failed jobs:", *failed]))
    return 0


def _job_number(folder: Path) -> tuple[int, str]:
    return (int(folder.name) if folder.name.isdigit() else 0, folder.name)
