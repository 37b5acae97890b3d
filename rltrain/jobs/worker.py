"""One population in a process of its own: the worker's side of `jobs/pool.py`."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rltrain.terminal.ending import ends_soon
from rltrain.terminal.interrupts import RUN_SIGNALS, stops_with
from rltrain.terminal.output import own_output
from rltrain.terminal.shell import command_given_here


def serve() -> None:
    """Trains the jobs that the parent sends after its command line, and answers with (mean, None) or (None, (kind of
    error, reason)) for each.

    Signals are blocked when it starts. Those that come before the training can answer them wait for it; those that come
    after it do nothing.
    """
    for number in RUN_SIGNALS:
        signal.signal(number, lambda *_: None)
    connection = Connection(int(sys.argv[2]))
    sys.argv, jobs = connection.recv()  # run.json tells the user's own command line
    stops_with(connection.fileno())
    with own_output(whole_process=True), command_given_here():
        answer = _train(jobs)
    with suppress(OSError):  # the parent is gone
        connection.send(answer)
    ends_soon(0)


def _train(jobs: list[dict[str, Any]]) -> list[tuple[float | None, tuple[str, str] | None]]:
    from rltrain.config.folders import import_plugins
    from rltrain.config.validate import validate
    from rltrain.errors import Interrupted, Pruned, RequestError
    from rltrain.jobs.job import train_population
    from rltrain.jobs.training import Job

    def member(job: dict[str, Any]) -> Job:
        source = None if job["source"] is None else Path(job["source"])
        config, folder = validate(job["config"]), Path(job["folder"])
        return Job(config, folder, source, job["changes"], job["own"], pruning=job["pruning"])

    try:
        import_plugins()
        outcomes = train_population([member(job) for job in jobs], in_pool=True)
    except RequestError as error:
        return [(None, ("request", str(error)))] * len(jobs)
    except Interrupted as error:
        return [(None, ("failed", str(error)))] * len(jobs)
    kinds = ["pruned" if isinstance(outcome, Pruned) else "failed" for outcome in outcomes]
    return [
        (None, (kind, str(outcome))) if isinstance(outcome, BaseException) else (outcome, None)
        for kind, outcome in zip(kinds, outcomes, strict=True)
    ]
