"""Programs of a run that another process compiles while the run learns without them (compile_programs.py)."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace

from rltrain.engine.protocol import AgentContext
from rltrain.terminal.interrupts import children_shielded

_PATIENCE = 20.0  # seconds, on top of the half more than compiling takes that it has had by the step of changing over


class BesideCompiler:
    """A process that compiles what an agent built from `context` calls: one run's, or a population's."""

    def __init__(self, context: AgentContext, threads: int) -> None:
        self._request = pickle.dumps((replace(context, compiler=None), threads, os.getpid()))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begins, if it has not begun."""
        if self._process is not None:
            return
        command = [sys.executable, "-m", "rltrain.jobs.compile_programs"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is the run's, which saves first
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died: the run then compiles by itself
            self._process.stdin.write(self._request)
            self._process.stdin.close()

    def wait(self) -> None:
        """Until it has ended, if it was begun, but not for long: it gives way to everything, and on a machine that is
        busy with other work it would never end. What it has not compiled the run compiles itself, at its own
        priority."""
        if self._process is None:
            return
        with children_shielded("the update is compiled"), contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)
        self.close()

    def close(self) -> None:
        """Ends it."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # with its C++ compiler
            self._process.wait()
