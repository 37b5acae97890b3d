"""A task on its node: the process that trains its jobs, and what stops it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rltrain.storage.task_folder import TaskFolder

STOPPED = {128 + number: number.name for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)}
"""Exit code of a task that was stopped, after which it saves -> the signal. Its scheduler may run it again."""

_POLL = 0.2  # seconds; also how soon Ray's request to stop is seen
_START = """\
import sys
from rltrain.terminal.interrupts import stops_with
stops_with(int(sys.argv.pop(1)))
sys.argv[0] = "rltrain"
from rltrain.cli import main
sys.exit(main())
"""


@dataclass
class Runner:
    """Starts `rltrain WORDS` on the node that it is called on, and waits for its end; goes there pickled.

    The process is one of its own, so that stopping it is what stopping a run is everywhere: SIGTERM, after which it
    saves. It stops as well when this one is gone, however that ended.

    Attributes:
        sweep: its folder, on a disk that the nodes share.
        env: variables that the process needs.
    """

    sweep: str
    number: int
    words: tuple[str, ...]
    folder: str
    env: Mapping[str, str]
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_process": None}

    def __call__(self) -> int:
        """Runs the task; returns its exit code."""
        task = TaskFolder(Path(self.sweep), self.number)
        task.make()
        task.write_end(None)
        reader, writer = os.pipe()
        try:
            with task.open_log() as log, _not_inherited():
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _START, str(reader), *self.words],
                    pass_fds=[reader], cwd=self.folder, env={**os.environ, **self.env}, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            with _handling_sigterm(self._stop):
                self._wait()
        except BaseException:  # of a scheduler that ends the task
            self._stop()
            self._wait()
            raise
        finally:
            os.close(writer)
            os.close(reader)
        ended = self._process.wait()
        code = ended if ended >= 0 else 128 - ended  # as a shell says it
        task.write_end(code)
        return code

    def checkpoint(self) -> Any:
        """Stops the process, which saves: submitit calls it before Slurm takes the node away; returns what goes on."""
        from submitit.helpers import DelayedSubmission

        self._stop()
        self._wait()
        return DelayedSubmission(self)

    def _stop(self) -> None:
        if self._process is not None and not self._has_ended():
            self._process.send_signal(signal.SIGTERM)

    def _wait(self) -> None:
        while not self._has_ended():
            time.sleep(_POLL)

    def _has_ended(self) -> bool:
        # Not poll(): a signal's handler may look in the middle of it.
        process = self._process
        if process is None or process.returncode is not None:
            return True
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


@contextmanager
def _not_inherited() -> Iterator[None]:
    """Slurm's warning, SIGUSR2, may go to all processes of a task: those that are started inside never get it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _handling_sigterm(stop: Any) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
