"""Stopping and saving on request: the first signal asks, the second one ends the process."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Protocol

from rltrain.terminal.interrupts import ECHO_SECONDS, RUN_SIGNALS, handler_of, may_end_process

WHILE_EVALUATING = "stopping; the episodes that have ended count; again to stop at once"
"""The answer of a StopSignal where nothing is trained, or no more: there is nothing to save."""
_SIGINT, _SIGTERM = int(signal.SIGINT), int(signal.SIGTERM)
_TAKEN_BACK_PERIOD = 1024
"""Looks at a StopSignal."""


class StopRequest(Protocol):
    """The requests to stop or save that a training loop checks once per step."""

    @property
    def requested(self) -> bool:
        """Whether to stop."""
        ...

    def take_save_request(self) -> bool:
        """Whether a checkpoint was requested since the last call."""
        ...


class StopSignal:
    """While active, SIGINT, SIGTERM and SIGHUP only set `requested`, so that the loop can finish its step and save.

    A second signal ends the process at once with 130 or 143, after its worker processes; in a process of a caller a
    second SIGINT raises KeyboardInterrupt instead, the handlers before restored. A SIGHUP is neither the first
    nor the second of them: a terminal that is closed may send several, and shows no answer. Where it was ignored
    (`nohup`) it stays so. SIGUSR1 asks for a checkpoint, after which training goes on. Signals that were blocked until
    now are let through. Outside the main thread, where Python can handle no signals, it does nothing.

    Environments may install handlers of their own, whenever they are made, reset or stepped: a look at `requested`
    takes the signals back, those that C code took now and then.

    Args:
        answer: what is said on stderr at the first signal, an attribute too; empty: nothing is, at no signal.
        saves: whether there is something to save, an attribute too: if not, SIGUSR1 does nothing.
        listener: called with every signal that counts.
        at_once: called before a second signal ends the process, or raises.
    """

    def __init__(
        self,
        answer: str = "stopping after this step, saving; again to stop at once",
        saves: bool = True,
        listener: Callable[[int], None] = lambda number: None,
        at_once: Callable[[], None] = lambda: None,
    ) -> None:
        self.answer, self.saves, self._listener, self._at_once = answer, saves, listener, at_once
        self._signal: int | None = None
        self._at = 0.0
        self._save_requested = False
        self._before: dict[int, Any] = {}
        self._handler = self._handle  # one object, to be told from any other
        self._looks = 0

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        looks = self._looks = (self._looks + 1) % _TAKEN_BACK_PERIOD
        if looks == 1 or handler_of(_SIGTERM) is not self._handler or handler_of(_SIGINT) is not self._handler:
            self._take()
        return self._signal is not None

    @property
    def came(self) -> bool:
        """Whether a signal came until now; no look."""
        return self._signal is not None

    @property
    def exit_code(self) -> int:
        """130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP; 0 where none came."""
        return 0 if self._signal is None else 128 + self._signal

    def take_save_request(self) -> bool:
        """Whether SIGUSR1 came since this was called last."""
        taken, self._save_requested = self._save_requested, False
        return taken

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in RUN_SIGNALS}
            if self._before[signal.SIGHUP] == signal.SIG_IGN:
                del self._before[signal.SIGHUP]
            self._take()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, RUN_SIGNALS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()
        self._before.clear()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _take(self) -> None:
        for number in self._before:
            signal.signal(number, self._handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == signal.SIGUSR1:
            if self.saves and not self._save_requested:
                self._save_requested = True
                _tell(self.answer and "saving a checkpoint after this step")
                self._listener(number)
        elif self._signal is None or (self._signal == signal.SIGHUP != number):
            self._signal, self._at = number, now
            _tell(self.answer)
            self._listener(number)
        elif number != signal.SIGHUP and now - self._at > ECHO_SECONDS:
            try:
                self._at_once()
            finally:
                if may_end_process(number):
                    _end_process(128 + number)
                self._restore()
            raise KeyboardInterrupt


def _tell(text: str) -> None:
    if not text:
        return
    # Not through sys.stderr: the signal may have come in the middle of a print, whose buffer cannot be entered twice.
    with contextlib.suppress(OSError):
        line_break = "\n" if os.isatty(2) else ""  # after ^C, and a progress bar
        os.write(2, f"{line_break}{text}\n".encode())


def _end_process(exit_code: int) -> None:
    multiprocessing = sys.modules.get("multiprocessing")
    try:
        for process in multiprocessing.active_children() if multiprocessing else ():
            process.kill()
    finally:
        os._exit(exit_code)
