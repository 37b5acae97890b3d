"""`rltrain resume` of one run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rltrain.commands.edited_config import warn_of_edits
from rltrain.commands.resume_changes import changed_config, lifting_change, made_by, with_earlier_changes
from rltrain.config.plain import show
from rltrain.config.schema import RunConfig
from rltrain.config.stored import Differences, record_changes, validate_stored
from rltrain.errors import RequestError
from rltrain.storage.run_folder import RunFolder
from rltrain.storage.run_result import is_completed, status_of
from rltrain.terminal.output import say, warn
from rltrain.terminal.shell import shell_word, shown_path

if TYPE_CHECKING:
    from rltrain.storage.checkpoint import Checkpoint

_log = logging.getLogger(__name__)


def resume_run(folder: Path, overrides: list[str], trust: bool, alone: bool = True) -> None:
    """Continues one run; says so and returns where nothing is left to do.

    Args:
        alone: it is no job of a sweep: a progress bar may be drawn, and its learning curve is.
    """
    run = RunFolder(folder)
    status = status_of(run)
    if not run.record.exists():
        warn(_log, f"{shown_path(run.record)}: is missing; what earlier resumes changed is forgotten")
    completed = is_completed(folder)  # one that has lost its result is evaluated again
    if completed and not overrides:
        _warn_of_edits_of_completed(folder)
        tell_completed(folder, {folder: None})
        return
    if status == "running":
        with run:
            pass  # its holder is gone, or else this has said who it is
    from rltrain.policy.source import stored_config
    from rltrain.storage.checkpoint import newest_checkpoint, read_checkpoint
    from rltrain.storage.checkpoint_folders import has_saved

    if status in ("running", "failed", "interrupted") and not has_saved(folder):
        begin(run.read_config(), folder, overrides, trust, alone, "has no checkpoint: begins anew")
        return
    newest = newest_checkpoint(folder)
    source = read_checkpoint(newest, only=())  # tells in a moment what torch, needed for the tensors, would delay
    config, differences = changed_config(stored_config(source), folder, made_by(source), overrides, trust)
    if completed and (ended := _already_ended(config, source, differences)):
        say(f"{shown_path(folder)}: {ended}")
        return
    if "replay.safetensors" not in source.manifest["files"]:
        raise RequestError(
            f"{newest}: was saved without its experience (checkpoint.replay=false) and cannot be continued; "
            f"init_from={shell_word(folder)} begins another run with its network"
        )
    tell(differences, config, source.step)
    from rltrain.jobs.job import train

    changes = record_changes(source.step, differences)
    train(config, folder, alone, source=read_checkpoint(newest), changes=changes)


def _warn_of_edits_of_completed(folder: Path) -> None:
    from rltrain.storage.checkpoint_files import read_manifest
    from rltrain.storage.checkpoint_folders import step_folders

    with suppress(RequestError, KeyError, TypeError, IndexError):  # damaged files: nothing goes on with them here
        manifest = read_manifest(step_folders(folder)[-1])
        warn_of_edits(folder, with_earlier_changes(validate_stored(manifest["config"]), folder, manifest["step"]))


def begin(
    plain: Mapping[str, Any], folder: Path, overrides: list[str], trust: bool, alone: bool, why: str = ""
) -> None:
    """Trains a run of which nothing is left or nothing was ever there; `alone` as for `resume_run`. `why` is said once
    it is known that it can."""
    from rltrain.jobs.job import train

    config, differences = changed_config(validate_stored(plain), folder, made_by(None), overrides, trust)
    if why:
        say(f"{shown_path(folder)}: {why}")
    tell(differences, config, 0)
    train(config, folder, alone, changes=record_changes(0, differences))


def tell_completed(place: Path, runs: Mapping[Path, Mapping[str, Any] | None]) -> None:
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


def tell(differences: Differences, config: RunConfig, step: int) -> None:
    """Says what is changed of a stored config, one line each, and how that moves a learning rate that falls."""
    for key, (_, value) in differences.items():
        say(f"changed   {key}={show(value)}")
    if "total_steps" in differences and step and getattr(config.algo, "anneal_lr", False):
        before, after = (max(0.0, 1 - step / total) for total in differences["total_steps"])
        say(
            "          learning rates fall over total_steps: "
            f"they jump from {before:.0%} to {after:.0%} of what they began with,\n"
            "          as they do not in a run that has these total_steps from its start"
        )
