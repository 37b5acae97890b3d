"""Programs of a run that another process compiles while the run learns without them (compile_programs.py)."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from typing import IO

from rltrain.engine.protocol import AgentContext
from rltrain.machine import available_cores
from rltrain.terminal.interrupts import children_shielded
from rltrain.terminal.output import warn

_log = logging.getLogger(__name__)
_LATE = 0.5
_PATIENCE = 20.0  # seconds, on top of the half more than compiling takes that it has had by the step of changing over


class BesideCompiler:
    """A process that compiles what an agent built from `context` calls: one run's, or a population's.

    It gives way to the run, and to all else that the machine does. Not so where populations side by side have no core
    to spare: giving way to them it would wait until they wait for it. There it takes a share of the cores from them,
    and begins late, since many end before they need it.
    """

    def __init__(self, context: AgentContext, threads: int) -> None:
        self._gives_way = available_cores() > threads
        self._request = pickle.dumps((replace(context, compiler=None), threads, os.getpid(), self._gives_way))
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def start(self, done: float) -> None:
        """Begins, if it has not begun: where it takes time from the run, once half of the uncompiled steps are made."""
        if self._process is not None or (done < _LATE and not self._gives_way):
            return
        command = [sys.executable, "-m", "rltrain.jobs.compile_programs"]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,  # a Ctrl-C is the run's, which saves first
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died: the run then compiles by itself
            self._process.stdin.write(self._request)
            self._process.stdin.close()

    def wait(self) -> None:
        """Until it has ended, if it was begun. But not for long where it gives way: on a machine that is busy with
        other work it would never end. What it has not compiled the run compiles itself, at its own priority."""
        if self._process is None:
            return
        with children_shielded("the update is compiled"), contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE if self._gives_way else None)
        if self._process.poll():
            self._tell_failure(self._process.returncode)
        self.close()

    def close(self) -> None:
        """Ends it."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # with its C++ compiler
            self._process.wait()
        if self._errors is not None:
            self._errors.close()

    def _tell_failure(self, code: int) -> None:
        assert self._errors is not None
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        last = said.rpartition("\n")[2] or f"the process ended with code {code}"
        warn(_log, f"compiling beside the run failed, so the run compiles by itself: {last}")
        _log.info("errors of the process that compiles:\n%s", said)
