"""Writing files so that a crash, a kill or a full disk never leaves a torn one under its final name, and who holds a
folder."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

LOCK = ".lock"
"""The file that a process locks to be a folder's only writer; it holds the process's name."""


def fsync(path: Path) -> None:
    """Make a file's content, or the names in a folder (creations, renames), survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def first_link(folder: Path) -> Path | None:
    """A symbolic link in `folder`, through which writing into it would change what lies elsewhere."""
    return next((Path(entry.path) for entry in os.scandir(folder) if entry.is_symlink()), None)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace `path` by a file holding `data`: readers see the old content or the new one, never a part.

    Raises:
        OSError: with `filename` set; `path` then holds what it held before.
    """
    temporary = path.with_name(f".writing_{path.name}.{os.getpid()}")
    with _named(path):
        _remove_leftovers(path)
        temporary.unlink(missing_ok=True)  # a leftover, or somebody's link to a file of ours
        try:
            with open(temporary, "xb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    if _together is None:
        _put_in_place({path: temporary})
    else:
        _together[path] = temporary


def _remove_leftovers(path: Path) -> None:
    """Removes what processes that were killed while they wrote `path` have left; another may be writing it now."""
    for left in path.parent.glob(f".writing_{glob.escape(path.name)}.*"):
        with suppress(OSError):
            if time.time() - left.lstat().st_mtime > _LEFTOVER_SECONDS:
                left.unlink()


_LEFTOVER_SECONDS = 3600.0
_together: dict[Path, Path] | None = None
"""Final name -> temporary one of the files that wait for the end of `written_together`."""


@contextmanager
def written_together() -> Iterator[None]:
    """Files that `write_atomic` writes inside get their names at the end, also where an error ends it.

    A disk then commits all of them at once: of a file for each of a hundred runs, each takes a fifth of the time.

    Raises:
        OSError: with `filename` set; what has not got its name yet is what it was before.
    """
    global _together
    waiting: dict[Path, Path] = {}
    _together = waiting
    try:
        yield
    finally:
        _together = None
        _put_in_place(waiting)


def _put_in_place(temporaries: Mapping[Path, Path]) -> None:
    """Gives files their final names, all of them once the contents of all are on the disk."""
    try:
        for path, temporary in temporaries.items():
            with _named(path):
                fsync(temporary)
        for path, temporary in temporaries.items():
            with _named(path):
                os.replace(temporary, path)
    except OSError:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)
        raise
    for folder in dict.fromkeys(path.parent for path in temporaries):
        fsync(folder)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Says of an error that it came of writing `path`."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        del error.filename2  # a None would be printed
        raise


def open_regular(path: Path) -> BinaryIO:
    """Opens a file for reading; what is none, such as a pipe whose other end never writes, is not waited for.

    Raises:
        OSError: it cannot be opened, or is not a regular file; with `filename` and `strerror`.
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def holder_of(folder: Path) -> str:
    """The process that has locked a folder, as `process 12 on HOST`; empty where none has."""
    try:
        with open(folder / LOCK, "rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return holder_in(lock)
    except OSError:
        pass
    return ""


def holder_in(lock: BinaryIO) -> str:
    """The process that a lock's file names."""
    lock.seek(0)
    return lock.read(200).decode(errors="replace").strip() or "another process"
