"""Where the checkpoints of a run lie, and how one takes the place of another.

One is written as `.writing_<name>` beside its place, then renamed. Where a folder of that name exists it is renamed to
`.previous_<name>` first; in the instant in which neither has the final name, and after a kill in it, `place_of` finds
the previous one. No name with a leading dot is ever taken for a checkpoint otherwise, and the next writer removes it.
(Linux can swap two folders in one call, but not on network file systems.)
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from rltrain.storage.files import fsync

_STEP_NAME = re.compile(r"step_(\d{8,18})")


def step_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of one step lies."""
    return run / "checkpoints" / f"step_{step:08d}"


def best_folder(run: Path) -> Path:
    """Where the checkpoint of the best evaluation lies."""
    return run / "checkpoints" / "best"


def step_folders(run: Path) -> list[Path]:
    """The checkpoints of steps, by step, whole or damaged."""
    found = {}
    parent = run / "checkpoints"
    for folder in parent.iterdir() if parent.is_dir() else ():
        name = folder.name.removeprefix(".previous_")
        if (match := _STEP_NAME.fullmatch(name)) and folder.is_dir() and not folder.is_symlink():
            found[int(match[1])] = folder.with_name(name)
    return [found[step] for step in sorted(found)]


def later(run: Path, step: int) -> list[Path]:
    """The checkpoints of steps beyond `step`, the last first, whole or damaged."""
    return [folder for folder in reversed(step_folders(run)) if _step_of(folder) > step]


def has_checkpoint(run: Path) -> bool:
    """Whether a checkpoint of some step lies there, whole or damaged."""
    return bool(step_folders(run))


def has_saved(run: Path) -> bool:
    """`has_checkpoint`, or whether there is anything else that may be one, such as a link or a copy by another name; of
    `best` alone nothing goes on."""
    parent = run / "checkpoints"
    names = [path.name for path in parent.iterdir()] if parent.is_dir() else []
    return has_checkpoint(run) or any(name != "best" and not name.startswith(".") for name in names)


def newest_step(run: Path) -> int:
    """The highest step of which a checkpoint lies there, whole or damaged; 0 where none does."""
    folders = step_folders(run)
    return _step_of(folders[-1]) if folders else 0


def prune(run: Path, keep: int) -> None:
    """Remove all but the `keep` newest step checkpoints (never `best`), and what killed writers left."""
    clean(run)
    for folder in step_folders(run)[:-keep]:
        remove(folder)


def remove(folder: Path) -> None:
    """Remove a checkpoint. Renamed first: a kill in between never leaves half of one under a checkpoint's name."""
    removed = _aside(folder, "removed")
    folder.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def clean(run: Path) -> None:
    """Remove what killed writers left, and finish the replacement that one was killed in. Needs the run's lock."""
    parent = run / "checkpoints"
    if not parent.is_dir():
        return
    for previous in parent.glob(".previous_*"):
        final = parent / previous.name.removeprefix(".previous_")
        if not final.exists():
            previous.rename(final)
    for kind in ("writing", "previous", "removed"):
        for leftover in parent.glob(f".{kind}_*"):
            shutil.rmtree(leftover, ignore_errors=True)


def writing_folder(folder: Path) -> Path:
    """Where the content of `folder` is written."""
    return _aside(folder, "writing")


def move_into_place(writing: Path, folder: Path) -> None:
    """Renames what was written to `folder`, replacing what is there."""
    previous = _aside(folder, "previous")
    if folder.exists():
        shutil.rmtree(previous, ignore_errors=True)
        folder.rename(previous)
    writing.rename(folder)
    fsync(folder.parent)
    shutil.rmtree(previous, ignore_errors=True)


def place_of(folder: Path) -> Path:
    """`folder`, or the one that it was about to replace when its writer was killed."""
    previous = _aside(folder, "previous")
    return previous if not folder.exists() and previous.exists() else folder


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step_"))


def _aside(folder: Path, kind: str) -> Path:
    return folder.with_name(f".{kind}_{folder.name}")
