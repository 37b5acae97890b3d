"""The end of a process whose work is done, though an environment has left something that would keep it alive."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rltrain.terminal.output import answers, errors, warn

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

GRACE_SECONDS = 5.0
"""For what is left to end by itself."""


def ends_soon(exit_code: int) -> None:
    """Called last in a process: it ends with `exit_code`, at the latest some seconds after its last line.

    The interpreter waits for threads that are no daemons, and for processes that `multiprocessing` started: for ever,
    where an environment forgot to end its own. What is registered with `atexit` is called in any case.
    """
    if _threads() or _children():
        _later(GRACE_SECONDS, lambda: _end(exit_code))
        _later(2 * GRACE_SECONDS, lambda: os._exit(exit_code) if _threads() else None)  # atexit waits for one too


def _end(exit_code: int) -> None:
    threads, children = _threads(), _children()
    if not threads and not children:
        return
    names = [*(f"thread {thread.name}" for thread in threads), *(f"process {child.name}" for child in children)]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    warn(logging.getLogger("rltrain"), f"{names[0]}{more}: left running by an environment, and ended now")
    for child in children:
        child.kill()
    if threads:
        _flush()
        atexit._run_exitfuncs()
        _flush()
        os._exit(exit_code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, answers(), errors()):
        if stream is not None:  # an environment may have put None there
            stream.flush()


def _threads() -> list[threading.Thread]:
    main = threading.main_thread()
    return [thread for thread in threading.enumerate() if thread is not main and not thread.daemon]


def _children() -> list[BaseProcess]:
    multiprocessing = sys.modules.get("multiprocessing")
    return [] if multiprocessing is None else [c for c in multiprocessing.active_children() if not c.daemon]


def _later(seconds: float, action: Callable[[], None]) -> None:
    """Begins the thread that waits now: an interpreter that ends begins none."""

    def wait() -> None:
        time.sleep(seconds)
        action()

    threading.Thread(target=wait, daemon=True).start()
