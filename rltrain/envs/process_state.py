"""The state of the process in which environments run: set for them, and restored after they change it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from rltrain.terminal.interrupts import RUN_SIGNALS
from rltrain.terminal.shell import need_variable


@contextmanager
def process_kept() -> Iterator[None]:
    """Puts back, at the end, the working directory and the handlers of a run's signals: environments that are made and
    closed inside may have taken others. So the next ones find what the first found.
    """
    folder = _working_directory()
    in_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in RUN_SIGNALS} if in_main else {}
    try:
        yield
    finally:
        if folder is not None:
            with suppress(OSError):  # removed meanwhile
                os.chdir(folder)
        for number, handler in handlers.items():
            if handler is not None:  # that of a C library cannot be put back
                signal.signal(number, handler)


@contextmanager
def variables_set(variables: Mapping[str, str]) -> Iterator[None]:
    """While active, these environment variables hold, `hydra.job.env_set` of a job; then those of before again."""
    before = {name: os.environ.get(name) for name in variables}
    for name, wanted in variables.items():
        if before[name] != wanted:
            need_variable(name, wanted)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # the last environment removed its own
        return None
