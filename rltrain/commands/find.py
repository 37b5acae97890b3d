"""Which run or checkpoint a command means, and what it is told where there is none."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rltrain.config.plain import show
from rltrain.config.schema import AUTO_SAVE_STEPS
from rltrain.errors import RequestError
from rltrain.terminal.output import say
from rltrain.terminal.shell import command_folder, no_folder, rltrain_command, shown_path, unusable

if TYPE_CHECKING:
    from rltrain.storage.run_folder import RunFolder


def find_run(name: str | None, announce: bool = True, saved: bool = True) -> Path:
    """The folder that the user means, absolute: the one named, or the newest run under outputs/, which is then said;
    where `saved`, the newest that has a checkpoint.

    Raises:
        RequestError: there is none.
    """
    if name is not None:
        if not name.strip():
            raise RequestError(f"{name!r}: names no folder")
        place = command_folder() / name
        if not place.is_dir():
            raise RequestError(f"{name}: {_no_folder(place)}")
        if not os.access(place, os.R_OK | os.X_OK):
            raise RequestError(unusable(place, PermissionError(errno.EACCES, os.strerror(errno.EACCES)), "read"))
        return place
    from rltrain.storage.run_folder import newest_run

    run = newest_run(command_folder() / "outputs", saved)
    if announce:
        say(f"newest run: {shown_path(run)}")
    return run


def _no_folder(place: Path) -> str:
    if not place.exists():
        return not_begun(place) or no_folder(place)
    known = any((place.parent / name).exists() for name in ("run.json", "manifest.json"))
    return f"is a file; its folder is {shown_path(place.parent)}" if known else no_folder(place)


def not_begun(place: Path) -> str:
    """Error text for a sweep's job that has no run yet; empty for any other folder."""
    from rltrain.storage.checkpoint_folders import has_checkpoint
    from rltrain.storage.sweep_folder import sweep_of

    begun = (place / "run.json").exists() or has_checkpoint(place)
    sweep = None if begun else sweep_of(place)
    return "" if sweep is None else f"is a job that has not begun; `{rltrain_command('resume', sweep)}` begins it"


def _not_saved(run: RunFolder) -> str:
    """Why a run has no checkpoint yet; nothing where none can be expected."""
    from rltrain.storage.files import holder_of

    status = run.read_record().get("status")
    if status == "running" and (holder := holder_of(run.path)):
        period = run.read_config().get("checkpoint", {}).get("period")
        steps = AUTO_SAVE_STEPS if period == "auto" else period
        first = "when it ends" if steps is None else f"first at step {steps:,}"
        first += " or after a minute" if period == "auto" else ""
        shown = f" (checkpoint.period{'=null' if period is None else ''})"
        return f"has not saved yet: it is running, and saves {first}{shown}; SIGUSR1 to {holder} saves now"
    if status in ("running", "failed", "interrupted"):
        again = rltrain_command("resume", run.path)
        return f"has no checkpoint; `{again}` begins it anew"
    return ""


def source_in(place: Path, asked: Any = None, command: str = "") -> Path:
    """The run or checkpoint to load where `asked` is last, best or None, which is last.

    Args:
        command: the one that asks, for the line that loads another checkpoint.

    Raises:
        RequestError: a sweep, a study, or without the checkpoint that is asked for.
    """
    from rltrain.storage.run_folder import RunFolder
    from rltrain.storage.study_folder import no_checkpoint

    if asked not in (None, "last", "best"):
        raise RequestError(f"checkpoint={show(asked)}: must be last or best{_step_meant(place, asked, command)}")
    _refuse_several(place)
    run = RunFolder(place)
    is_checkpoint, is_run, best = (place / "manifest.json").exists(), run.config.exists(), asked == "best"
    if is_checkpoint and asked:
        raise RequestError(f"checkpoint={asked}: is one of a run's, and {shown_path(place)} is a checkpoint itself")
    if not is_checkpoint and (waits := not_begun(place)):
        raise RequestError(f"{shown_path(place)}: {waits}")
    saved = {path.name for path in (place / "checkpoints").glob("*") if path.name[:9] not in (".writing_", ".removed_")}
    if not (is_checkpoint or (is_run and best) or saved - {"best"}):
        why = _not_saved(run) if is_run and run.record.exists() else ""
        if saved:
            why += "; checkpoint=best is there" if why else "holds no checkpoint but its best: checkpoint=best"
        if (place.parent / "run.json").exists():
            why = f"is no checkpoint; its run is {shown_path(place.parent)}"
        raise RequestError(f"{shown_path(place)}: {why or no_checkpoint(place)}")
    if not best:
        return place
    from rltrain.policy.source import best_of

    return best_of(place)


def _step_meant(place: Path, asked: Any, command: str) -> str:
    """The end of a message: how to write the checkpoint of a step, which is named by its folder."""
    from rltrain.storage.checkpoint_folders import step_folders

    if (step := re.fullmatch(r"(?:step_)?(\d+)", str(asked))) is None:
        return ""
    folders = step_folders(place)
    for folder in folders:
        if int(folder.name.removeprefix("step_")) == int(step[1]):
            return f"; that of a step: `{rltrain_command(command, folder)}`"
    there = f"; the newest: {', '.join(folder.name for folder in folders[-3:])}" if folders else ""
    return f"; that of a step is a folder: `rltrain {command} RUN/checkpoints/step_...`{there}"


def _refuse_several(place: Path) -> None:
    from rltrain.storage.study_folder import is_study
    from rltrain.storage.sweep_folder import is_sweep

    kind = "sweep" if is_sweep(place) else "study" if is_study(place) else ""
    if kind:
        first = min([*place.glob("*/run.json"), *place.glob("*/*/run.json")], default=None)
        such = f", such as {shown_path(first.parent)}" if first else ""
        raise RequestError(f"{shown_path(place)}: is a {kind}; name one of its runs{such}")
