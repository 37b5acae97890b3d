"""Ctrl-C before there is anything to save."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_LINE = b"rltrain: stopped by SIGINT\n"


@contextmanager
def sigint_ends() -> Iterator[None]:
    """While active, SIGINT ends the process at once, with a line and the exit code 130.

    A KeyboardInterrupt that is raised while an extension module is imported becomes another error, or aborts.
    """
    with _handling(_end):
        yield


@contextmanager
def sigint_raises() -> Iterator[None]:
    """Inside `sigint_ends`: SIGINT raises KeyboardInterrupt again, where something is to be cleaned up."""
    with _handling(signal.default_int_handler):
        yield


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Leaves alone what is not Python's own handler or ours: an ignored SIGINT (`nohup`, a job in the background)."""
    before = signal.getsignal(signal.SIGINT)
    if before not in (signal.default_int_handler, _end) or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(number: int, frame: FrameType | None) -> None:
    try:
        os.write(2, _LINE)
    finally:
        os._exit(130)
