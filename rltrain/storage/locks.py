"""Locks of folders, which keep a second writer out."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path
from typing import BinaryIO

from rltrain.errors import RequestError
from rltrain.storage.files import LOCK, holder_in
from rltrain.terminal.shell import unusable


def lock_folder(folder: Path) -> BinaryIO:
    """Locks a folder for this process, until the returned file is closed or the process ends, however it does.

    Raises:
        RequestError: another process holds it.
        OSError: it cannot be written.
    """
    # The kernel drops the lock with its holder. The file stays: removing it would let two processes hold locks on two
    # files of one name.
    lock = open(folder / LOCK, "a+b", opener=_open_no_link)  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = holder_in(lock)
        lock.close()
        raise RequestError(f"{folder}: in use by {holder}") from error
    except OSError:
        lock.close()
        raise
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    lock.flush()
    return lock


def lock_patiently(folder: Path, seconds: float) -> BinaryIO:
    """`lock_folder`, waiting for another process that holds it.

    Raises:
        RequestError: it is still held after `seconds`, or the folder cannot be written.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return lock_folder(folder)
        except RequestError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        except OSError as error:
            raise RequestError(unusable(folder, error)) from error


def _open_no_link(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW, 0o666)
