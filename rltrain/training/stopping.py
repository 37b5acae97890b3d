"""Stopping on request: the first signal asks, the second one ends the process."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# One press of Ctrl-C or one `timeout 60 rltrain` may deliver its signal twice (to the process and to its group).
_ECHO_SECONDS = 0.2


class StopSignal:
    """While active, SIGINT and SIGTERM only set `requested`, so that the loop can finish its step and save.

    The first is answered with `answer` on stderr; a second signal ends the process at once with 130 or 143, after its
    worker processes. Outside the main thread, where Python can handle no signals, it does nothing.
    """

    def __init__(self, answer: str = "stopping after this step, saving; again to stop at once") -> None:
        self._answer = answer
        self._signal: int | None = None
        self._at = 0.0
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self._signal is not None

    @property
    def exit_code(self) -> int:
        """130 for SIGINT, 143 for SIGTERM; 0 where none came."""
        return 0 if self._signal is None else 128 + self._signal

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signal is None:
            self._signal, self._at = number, now
            _tell(self._answer)
        elif now - self._at > _ECHO_SECONDS:
            _end_process(128 + number)


def _tell(text: str) -> None:
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
