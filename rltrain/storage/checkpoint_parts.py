"""A large ring of experience in a checkpoint: several files, of which only those that changed are written.

Between two saves a ring of a million transitions takes up a few thousand new ones. So its rows lie in parts, files of
a fixed range of rows each, and a part in which nothing was written since the last checkpoint becomes a hard link to
that checkpoint's file. Every checkpoint is whole by itself; a damaged part is damaged in all that share it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rltrain.errors import CheckpointError
from rltrain.storage.checkpoint_files import read_tensors, write_tensors
from rltrain.types import Ring

if TYPE_CHECKING:
    from torch import Tensor

PART_BYTES = 4 << 20
"""A ring that may grow larger lies in parts of about this size."""
MOST_PARTS = 256
"""A ring of more than that many parts has larger ones."""


@dataclass
class _Saved:
    """A ring as it was saved last; `identities`: of each file, as it was when it had been written."""

    folder: Path
    written: int
    entries: dict[str, Any] = field(default_factory=dict)
    identities: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def offer(self, name: str, target: Path) -> dict[str, Any] | None:
        """Makes `target` another name of the part, and returns its size and SHA-256; None where it is not there as it
        was, or the file system has no such links."""
        source = self.folder / name
        with contextlib.suppress(OSError):
            if name in self.entries and _identity(source) == self.identities[name]:
                os.link(source, target, follow_symlinks=False)
                return dict(self.entries[name])
        return None


@dataclass
class PartWriter:
    """Remembers what the last checkpoint of one run holds. One per run and process: the first save writes all."""

    _last: dict[str, _Saved] = field(default_factory=dict)
    _new: dict[str, _Saved] = field(default_factory=dict)

    def write(self, folder: Path, final: Path, stem: str, rows: Mapping[str, Tensor], ring: Ring) -> dict[str, Any]:
        """Writes the parts of a ring into `folder`, which will become `final`; name -> size and SHA-256.

        Args:
            rows: the ring's tensors, each [size, ...].

        Raises:
            OSError: the disk is full or refuses.
        """
        size, per_part = len(next(iter(rows.values()))), rows_per_part(rows, ring)
        last, saved = self._last.get(stem), _Saved(final, ring.written)
        for number, start in enumerate(range(0, size, per_part)):
            name, end = f"{stem}_{number:04d}.safetensors", min(start + per_part, size)
            entry = None
            if last is not None and not _changed(ring, last.written, start, end):
                entry = last.offer(name, folder / name)
            if entry is None:
                entry = write_tensors(folder / name, {key: values[start:end] for key, values in rows.items()})
            saved.entries[name], saved.identities[name] = entry, _identity(folder / name)
        self._new[stem] = saved
        return saved.entries

    def commit(self) -> None:
        """The checkpoint whose parts were written last has its name."""
        self._last, self._new = self._new, {}


def in_parts(rows: Mapping[str, Tensor], ring: Ring) -> bool:
    """Whether the ring is large enough to lie in parts."""
    return bool(rows) and ring.capacity * _row_bytes(rows) > PART_BYTES


def rows_per_part(rows: Mapping[str, Tensor], ring: Ring) -> int:
    """How many rows a part holds, the last one perhaps fewer."""
    return max(1, PART_BYTES // _row_bytes(rows), -(-ring.capacity // MOST_PARTS))


def read_parts(folder: Path, names: list[str], entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
    """The tensors of all parts, joined along their first axis.

    Raises:
        CheckpointError: as `read_tensors`, or they do not belong together.
    """
    import torch

    parts = [read_tensors(folder / name, entries[name]) for name in names]
    joined = {}
    for key in list(parts[0]) if parts else ():
        if any(key not in part for part in parts):
            raise CheckpointError(f"{folder / names[0]}: its tensors are not those of the other parts")
        try:
            joined[key] = torch.cat([part.pop(key) for part in parts])  # popped: two copies of one tensor at most
        except (RuntimeError, TypeError) as error:
            raise CheckpointError(f"{folder / names[0]}: the parts of {key} do not fit together") from error
    return joined


def _row_bytes(rows: Mapping[str, Tensor]) -> int:
    return max(1, sum(tensor[:1].numel() * tensor.element_size() for tensor in rows.values()))


def _changed(ring: Ring, before: int, start: int, end: int) -> bool:
    """Whether one of the rows start..end-1 was written since `before` rows had been written."""
    new = ring.written - before
    if not 0 <= new < ring.capacity:
        return True
    first = before % ring.capacity
    until, wrapped = first + new, first + new - ring.capacity
    return (first < end and start < until) or start < wrapped


def _identity(path: Path) -> tuple[int, ...]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
