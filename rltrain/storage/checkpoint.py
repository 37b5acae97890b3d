"""A checkpoint is a folder of plain data that is there whole or not at all.

    manifest.json            format, versions, step, what the caller adds, size and SHA-256 of every file and of itself
    <stem>.safetensors       tensors: network, optimizer, replay, ...
    <stem>_0000.safetensors  parts of a large one, see checkpoint_parts
    state.json               counters, generators, schedules (see plain_data)

Each file is fsynced before the folder takes its place (checkpoint_folders).
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rltrain.errors import CheckpointError, RunFailed
from rltrain.storage import plain_data
from rltrain.storage.checkpoint_files import (
    FILE_NAME,
    FORMAT,
    MANIFEST,
    RESERVED_KEYS,
    STATE,
    digest_of_manifest,
    open_verified,
    read_manifest,
    read_state,
    read_tensors,
    write_tensors,
    write_text,
)
from rltrain.storage.checkpoint_folders import later, move_into_place, place_of, remove, step_folders, writing_folder
from rltrain.storage.checkpoint_parts import PartWriter, in_parts, read_parts
from rltrain.storage.files import fsync
from rltrain.storage.study_folder import no_checkpoint
from rltrain.terminal.output import warn
from rltrain.terminal.shell import no_folder, shown_path, unusable
from rltrain.types import Ring

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory; the tensors are on the CPU."""

    manifest: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]
    folder: Path

    @property
    def step(self) -> int:
        """The environment step at which it was made."""
        return int(self.manifest["step"])


def write_checkpoint(
    folder: Path,
    *,
    step: int,
    manifest: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    rings: Mapping[str, Ring] | None = None,
    parts: PartWriter | None = None,
) -> Path:
    """Write `folder` whole, replacing what was there; one writer at a time (the run's lock sees to that).

    Args:
        manifest: what else the manifest shall say (config, spaces, versions, ...): plain data.
        tensors: file stem -> name -> tensor.
        state: plain data, see plain_data.
        rings: file stem -> how some of its tensors' rows lie.
        parts: the run's own; without it all is written anew, in one file per stem.

    Returns:
        `folder`.

    Raises:
        RunFailed: the disk is full or refuses; whatever was at `folder` is untouched.
        ValueError, TypeError: the content is no plain data, or not finite.
    """
    if taken := RESERVED_KEYS & manifest.keys():
        raise ValueError(f"the manifest's keys {sorted(taken)} are reserved")
    if odd := [stem for stem in tensors if not FILE_NAME.fullmatch(f"{stem}.safetensors")]:
        raise ValueError(f"{odd[0]!r} is no file stem")
    texts = {STATE: plain_data.encode(state), MANIFEST: plain_data.encode({**manifest, "format": FORMAT, "step": step})}
    writing = writing_folder(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir()
        _write_files(writing, folder, tensors, texts, rings if rings and parts else {}, parts or PartWriter())
        move_into_place(writing, folder)
        if parts is not None and rings:
            parts.commit()
    except OSError as error:
        shutil.rmtree(writing, ignore_errors=True)
        raise RunFailed(unusable(folder, error, "written")) from error
    except BaseException:
        shutil.rmtree(writing, ignore_errors=True)
        raise
    return folder


def read_checkpoint(folder: Path, only: Collection[str] | None = None) -> Checkpoint:
    """Read and verify a checkpoint. Nothing is parsed before its hash was found right, nothing is ever executed.

    Args:
        only: the stems of the tensor files to read; the others are neither read nor verified. None: all.

    Raises:
        CheckpointError: missing, foreign, damaged; one line that names the file.
    """
    while True:
        place = place_of(folder)
        identity = _identity(place)
        try:
            return _read(place, only)
        except CheckpointError:
            # A run that is still training may have replaced the folder under our hands.
            if _identity(place_of(folder)) == identity:
                raise


def verify_checkpoint(folder: Path, only: Collection[str] | None = None) -> None:
    """Compare files with their SHA-256 without loading them.

    Args:
        only: as of `read_checkpoint`.

    Raises:
        CheckpointError: missing, foreign, damaged.
    """
    place = place_of(folder)
    manifest = read_manifest(place)
    parts, stems = _parts_and_stems(place, manifest, only)
    wanted = [name for stem in stems for name in (f"{stem}.safetensors", *parts.get(stem, ()))]
    for name in (STATE, *wanted):
        with open_verified(place / name, manifest["files"][name]):
            pass


def newest_checkpoint(run: Path, only: Collection[str] | None = None) -> Path:
    """The whole checkpoint of the highest step. Warns of each one of a higher step that is skipped, and why.

    Args:
        only: as of `read_checkpoint`: damage to the other files makes no difference.

    Raises:
        CheckpointError: there is none.
    """
    faults: list[CheckpointError] = []
    for folder in reversed(step_folders(run)):
        if fault := _fault(folder, only):
            faults.append(fault)
            continue
        _warn_of_skipped(faults, folder)
        return folder
    reason = f"; {faults[0]}" if faults else ""
    raise CheckpointError(f"{shown_path(run)}: {no_folder(run) or no_checkpoint(run)}{reason}")


def warn_of_damaged(run: Path, taken: Path) -> None:
    """Warns of each damaged checkpoint of a higher step than that of `taken`, from which the run goes on."""
    folders = step_folders(run)
    newer = reversed(folders[folders.index(taken) + 1 :])
    _warn_of_skipped([fault for folder in newer if (fault := _fault(folder))], taken)


def remove_later(run: Path, step: int) -> None:
    """Removes the whole checkpoints beyond the step that a run goes back to: it makes them void, as it does its rows.

    A damaged one, from which nothing goes on, stays until the run is saved again.
    """
    for folder in later(run, step):
        if _fault(folder) is None:
            remove(folder)
            fsync(folder.parent)


def _fault(folder: Path, only: Collection[str] | None = None) -> CheckpointError | None:
    try:
        verify_checkpoint(folder, only)
    except CheckpointError as error:
        return error
    return None


def _warn_of_skipped(faults: list[CheckpointError], taken: Path) -> None:
    for fault in faults:
        warn(_log, f"skipped a checkpoint: {fault}; {taken.name} is taken")


def _write_files(
    folder: Path,
    final: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    texts: Mapping[str, str],
    rings: Mapping[str, Ring],
    writer: PartWriter,
) -> None:
    files: dict[str, Any] = {}
    parts: dict[str, list[str]] = {}
    for stem, group in tensors.items():
        ring = rings.get(stem)
        rows = {} if ring is None else {name: group[name] for name in ring.names}
        if ring is not None and in_parts(rows, ring):
            written = writer.write(folder, final, stem, rows, ring)
            files |= written
            parts[stem] = list(written)
            group = {name: tensor for name, tensor in group.items() if name not in rows}
        files[f"{stem}.safetensors"] = write_tensors(folder / f"{stem}.safetensors", group)
    files[STATE] = write_text(folder / STATE, texts[STATE])
    content = {**json.loads(texts[MANIFEST]), "files": files, "parts": parts}
    content["sha256"] = digest_of_manifest(content)
    write_text(folder / MANIFEST, json.dumps(content, indent=1))
    for path in folder.iterdir():  # once all are written: a disk commits them in one go
        fsync(path)
    fsync(folder)


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _read(folder: Path, only: Collection[str] | None) -> Checkpoint:
    manifest = read_manifest(folder)
    files = manifest["files"]
    parts, wanted = _parts_and_stems(folder, manifest, only)
    tensors = {stem: read_tensors(folder / f"{stem}.safetensors", files[f"{stem}.safetensors"]) for stem in wanted}
    for stem in wanted:
        tensors[stem] |= read_parts(folder, parts.get(stem, []), files)
    state = read_state(folder / STATE, files[STATE])
    if read_manifest(folder) != manifest:  # between the check of a file and its use
        raise CheckpointError(f"{folder}: the checkpoint was replaced while it was read")
    return Checkpoint(manifest=manifest, tensors=tensors, state=state, folder=folder)


def _parts_and_stems(
    folder: Path, manifest: Mapping[str, Any], only: Collection[str] | None
) -> tuple[dict[str, list[str]], Collection[str]]:
    """The parts of each stem that has some, and the stems that are wanted."""
    parts = {stem: list(names) for stem, names in manifest.get("parts", {}).items()}
    others = {STATE, *(name for names in parts.values() for name in names)}
    stems = [name.removesuffix(".safetensors") for name in manifest["files"] if name not in others]
    if lacking := sorted(set(only or ()) - set(stems)):
        raise CheckpointError(f"{folder / MANIFEST}: the checkpoint has no {lacking[0]}.safetensors")
    return parts, stems if only is None else only
