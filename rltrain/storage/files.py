"""Writing files so that a crash, a kill or a full disk never leaves a torn one under its final name, and who holds a
folder."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import BinaryIO

LOCK = ".lock"
"""The file that a process locks to be a folder's only writer; it holds the process's name."""


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` (creations, renames) survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
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
    temporary = path.with_name(f".writing_{path.name}")
    try:
        temporary.unlink(missing_ok=True)  # a leftover, or a link of a stranger's to a file of ours
        with open(temporary, "xb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        error.filename, error.filename2 = str(path), None
        raise
    fsync_folder(path.parent)


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
