"""Runs lanes in worker processes: the worker's side.

A worker leaves stopping and saving to its parent. It ignores a run's signals, which also reach it when they
go to the process group, and ends when its parent's end of the socket closes, however the parent ended.
"""

from __future__ import annotations

import logging
import mmap
import os
import signal
import sys
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from rltrain.envs.lanes import Lanes
from rltrain.envs.make import EnvMaker
from rltrain.errors import RequestError, RunFailed, one_line
from rltrain.terminal.interrupts import RUN_SIGNALS, handler_of, signals_ignored, when_closed

_SIGINT, _SIGTERM, _IGNORED = int(signal.SIGINT), int(signal.SIGTERM), int(signal.SIG_IGN)


def serve() -> None:
    """Answers requests until the parent says close or is gone; argv[2:4] are the socket and the progress file."""
    signals_ignored()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, RUN_SIGNALS)
    logging.getLogger("rltrain").addHandler(logging.NullHandler())  # the parent has logged the same
    logging.getLogger("rltrain").propagate = False
    connection_file, progress_file = int(sys.argv[2]), int(sys.argv[3])
    progress = mmap.mmap(progress_file, mmap.PAGESIZE)
    os.close(progress_file)
    when_closed(connection_file, lambda: os._exit(1))  # even while an environment hangs
    with suppress(EOFError, OSError):  # the parent is gone
        _answer(Connection(connection_file), progress)


def _answer(connection: Connection, progress: mmap.mmap) -> None:
    lanes: Lanes | None = None
    while True:
        method, args = connection.recv()
        answer: tuple[str, Any]
        try:
            if method == "make":
                payload, first, count = args
                lanes = _make(payload, first, count, progress)
                answer = ("ok", None)
            else:
                answer = ("ok", getattr(lanes, method)(*args))
        except (RequestError, RunFailed) as error:
            answer = ("error", (error, traceback.format_exc()))
        except Exception as error:
            answer = ("error", (RunFailed(f"a worker process failed: {one_line(error)}"), traceback.format_exc()))
        if method == "make" or handler_of(_SIGTERM) != _IGNORED or handler_of(_SIGINT) != _IGNORED:
            signals_ignored()  # which an environment's own handlers had taken
        connection.send(answer)
        if method == "close":
            return


def _make(payload: bytes, first: int, count: int, progress: mmap.mmap) -> Lanes:
    try:
        make: EnvMaker = cloudpickle.loads(payload)
    except Exception as error:
        raise RequestError(f"the environment cannot be taken to a worker process: {one_line(error)}") from error
    return Lanes([make() for _ in range(count)], first, make.id, progress)
