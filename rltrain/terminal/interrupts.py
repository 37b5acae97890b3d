"""Signals outside a training loop: before there is anything to save, and while other programs work for us."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from _signal import getsignal as handler_of  # type: ignore[import-not-found]  # signal.getsignal takes 3 us, not 0.04
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any

RUN_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""The signals that a run handles: stop, stop, stop (its terminal has been closed), save."""
ECHO_SECONDS = 0.2
"""One press of Ctrl-C or one `timeout 60 rltrain` may deliver its signal twice (to the process and to its group)."""
__all__ = [
    "ECHO_SECONDS", "RUN_SIGNALS", "children_shielded", "handler_of", "may_end_process", "process_of_caller",
    "sigint_ends", "sigint_raises", "signals_ignored", "signals_later", "sigusr1_ignored", "stops_with", "when_closed",
]  # fmt: skip
_words = "stopped by SIGINT"
_of_caller = False


@contextmanager
def process_of_caller() -> Iterator[None]:
    """While active, this process is not the command line's but a program's or a notebook's: no SIGINT ends it."""
    global _of_caller
    before, _of_caller = _of_caller, True
    try:
        yield
    finally:
        _of_caller = before


def may_end_process(number: int) -> bool:
    """Whether that signal, where it comes again, ends the process; if not, it raises KeyboardInterrupt."""
    return number != signal.SIGINT or not _of_caller


@contextmanager
def sigint_ends(words: str | None = None) -> Iterator[None]:
    """While active, SIGINT ends the process at once, with a line and the exit code 130.

    A KeyboardInterrupt that is raised while an extension module is imported becomes another error, or aborts. Nothing
    changes in a caller's process.

    Args:
        words: of the line; unless given, those of the context around this one.
    """
    global _words
    before, _words = _words, words or _words
    try:
        with nullcontext() if _of_caller else _handling(_end):
            yield
    finally:
        _words = before


@contextmanager
def sigint_raises() -> Iterator[None]:
    """Inside `sigint_ends`: SIGINT raises KeyboardInterrupt again, where something is to be cleaned up."""
    with _handling(signal.default_int_handler):
        yield


@contextmanager
def sigusr1_ignored(for_good: bool = False) -> Iterator[None]:
    """While active, SIGUSR1, which by itself would end the process, does nothing: there is nothing to save yet.

    Args:
        for_good: nor after it: the process ends, and has saved all.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        yield
    finally:
        if not for_good:
            signal.signal(signal.SIGUSR1, signal.SIG_DFL if before is None else before)


@contextmanager
def signals_later() -> Iterator[None]:
    """While active, a run's signals wait. They stay blocked in a process that is started inside, until that can answer
    them; and none reaches this process before it knows of the other, to which it may pass them on."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, RUN_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def signals_ignored() -> None:
    """From now on this process leaves a run's signals to its parent."""
    for number in RUN_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def stops_with(file: int) -> None:
    """From now on this process saves and ends when the other end of the pipe `file` is closed: when the process that
    holds it has ended, however it did."""
    when_closed(file, lambda: os.kill(os.getpid(), signal.SIGTERM))


def when_closed(file: int, then: Callable[[], None]) -> None:
    """From now on a thread waits for the other end of the pipe or socket `file` to be closed, and calls `then`."""
    os.set_inheritable(file, False)

    def watch() -> None:
        watcher = select.poll()
        watcher.register(file, 0)  # only the other end's closing wakes it
        watcher.poll()
        then()

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def children_shielded(doing: str) -> Iterator[None]:
    """Processes that are started inside never get a run's signals, which Ctrl-C sends to the whole process group; this
    process still does. Its own handlers run once `doing` is over; until then a second SIGINT or SIGTERM ends it,
    if it may.

    Blocked signals stay blocked in children, so this thread blocks them, and another one takes them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    taker = threading.Thread(target=_take_signals, args=(reader, doing), daemon=True)
    taker.start()
    with signals_later():
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            os.close(writer)  # ends the taker
            taker.join()


def _take_signals(reader: int, doing: str) -> None:
    first = None
    with open(reader, "rb", buffering=0) as numbers:
        while number := numbers.read(1):
            now = time.monotonic()
            if number[0] not in (signal.SIGINT, signal.SIGTERM):
                continue
            if first is None:
                first = now
                with contextlib.suppress(OSError):
                    again = "; again to stop at once" if may_end_process(signal.SIGINT) else ""
                    os.write(2, f"stopping after {doing}{again}\n".encode())
            elif now - first > ECHO_SECONDS and may_end_process(number[0]):
                os._exit(128 + number[0])


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
        os.write(2, f"rltrain: {_words}\n".encode(errors="replace"))
    finally:
        os._exit(130)
