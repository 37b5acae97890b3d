"""Runs lanes in worker processes, each with a chunk of the environments: the parent's side.

Workers are fresh interpreters, not forks and not multiprocessing's children: those import the caller's main module
again, and with it perhaps torch.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from multiprocessing.connection import Connection, wait
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np

from rltrain.envs.lane_group import MAX_REPLAY_SECONDS, Finished, LaneState, LaneStep
from rltrain.envs.make import EnvMaker
from rltrain.errors import RunFailed, how_ended
from rltrain.terminal.interrupts import signals_later

_CLOSE_SECONDS = 5.0
# The path goes along because the environment's module may lie where only the parent looks.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from rltrain.envs.worker_process import serve; serve()"
)


class WorkerError(Exception):
    """The text of a traceback in a worker, as the cause of the error raised here."""

    def __str__(self) -> str:
        return "\n" + str(self.args[0])


class WorkerGroup:
    """`num_envs` environments in at most os.cpu_count() worker processes; same numbers as `Lanes`.

    Args:
        make: makes one environment.
        num_envs: how many.
        step_timeout: seconds that one step, resets included, may take; None for no limit.

    Raises:
        RequestError: an environment cannot be made in a worker.
    """

    def __init__(self, make: EnvMaker, num_envs: int, step_timeout: float | None) -> None:
        self._id = make.id
        self.failures: dict[int, RunFailed] | None = None  # never collected: a worker's other lanes have not stepped
        self._timeout = step_timeout
        self._workers: list[_Worker] = []
        bounds = np.linspace(0, num_envs, min(num_envs, os.cpu_count() or 1) + 1).astype(int).tolist()
        try:
            for first, end in pairwise(bounds):
                self._workers.append(_Worker(first, end))
            payload = cloudpickle.dumps(make)
            self._ask(None, [("make", (payload, w.first, w.end - w.first)) for w in self._workers])
        except BaseException:
            self._kill()
            raise

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        return np.concatenate(self._ask(self._timeout, [("reset", (w.part(seeds),)) for w in self._workers]))

    def step(self, actions: np.ndarray, active: np.ndarray | None, next_seeds: Sequence[int]) -> LaneStep:
        requests = [
            ("step", (w.part(actions), None if active is None else w.part(active), w.part(next_seeds)))
            for w in self._workers
        ]
        steps: list[LaneStep] = self._ask(self._timeout, requests)
        finished = [
            Finished(w.first + f.lane, f.episode_return, f.length)
            for w, step in zip(self._workers, steps, strict=True)
            for f in step.finished
        ]
        obs = np.concatenate([s.obs for s in steps])
        return LaneStep(
            obs,
            np.concatenate([s.next_obs for s in steps]) if finished else obs,
            np.concatenate([s.reward for s in steps]),
            np.concatenate([s.terminated for s in steps]),
            np.concatenate([s.truncated for s in steps]),
            finished,
            tuple(note for s in steps for note in s.notes),
        )

    def state(self) -> LaneState:
        states: list[LaneState] = self._ask(self._timeout, [("state", ())] * len(self._workers))
        return LaneState(
            np.concatenate([s.obs for s in states]),
            [r for s in states for r in s.episode_return],
            [n for s in states for n in s.episode_length],
            [a for s in states for a in s.actions],
        )

    def restore(
        self, state: LaneState, seeds: Sequence[int], next_seeds: Sequence[int]
    ) -> tuple[np.ndarray, list[bool]]:
        requests = []
        for w in self._workers:
            part = LaneState(
                w.part(state.obs), w.part(state.episode_return), w.part(state.episode_length), w.part(state.actions)
            )
            requests.append(("restore", (part, w.part(seeds), w.part(next_seeds))))
        timeout = None if self._timeout is None else self._timeout + MAX_REPLAY_SECONDS
        answers: list[tuple[np.ndarray, list[bool]]] = self._ask(timeout, requests)
        return np.concatenate([obs for obs, _ in answers]), [same for _, exact in answers for same in exact]

    def close(self) -> None:
        """Lets the workers close their environments, for a few seconds, then kills what is left."""
        for worker in self._workers:
            worker.send("close", ())
        deadline = time.monotonic() + _CLOSE_SECONDS
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        self._kill()

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers = []

    def _ask(self, timeout: float | None, requests: list[tuple[str, tuple[Any, ...]]]) -> list[Any]:
        """One request to each worker, at the same time; the answers in their order."""
        if len(self._workers) != len(requests) or not requests:
            raise RunFailed(f"{self._id}: the worker processes have ended")
        for worker, (method, args) in zip(self._workers, requests, strict=True):
            worker.send(method, args)
        deadline = None if timeout is None else time.monotonic() + timeout
        answers: dict[Connection, Any] = {}
        missing: dict[Any, _Worker] = {w.connection: w for w in self._workers}
        while missing:
            ready = wait(list(missing), None if deadline is None else max(0.0, deadline - time.monotonic()))
            if not ready:
                worker = next(iter(missing.values()))
                self._fail(f"{worker.where(self._id)} did not answer within env.step_timeout={self._timeout} s")
            for connection in ready:
                worker = missing.pop(connection)
                answers[worker.connection] = self._receive(worker)
        return self._unwrap([answers[w.connection] for w in self._workers])

    def _receive(self, worker: _Worker) -> Any:
        try:
            return worker.connection.recv()
        except (EOFError, OSError):
            where = worker.where(self._id)
            self._fail(f"the worker process of {where} died ({worker.ending()})")

    def _unwrap(self, answers: list[Any]) -> list[Any]:
        for kind, value in answers:
            if kind == "error":
                error, text = value
                self._kill()
                raise error from WorkerError(text)
        return [value for _, value in answers]

    def _fail(self, message: str) -> Any:
        self._kill()
        raise RunFailed(message)


class _Worker:
    """The parent's end of one worker process, which runs environments first..end-1."""

    def __init__(self, first: int, end: int) -> None:
        self.first, self.end = first, end
        ours, theirs = socket.socketpair()
        with ours, theirs, tempfile.TemporaryFile() as progress:
            progress.truncate(mmap.PAGESIZE)
            self._progress = mmap.mmap(progress.fileno(), mmap.PAGESIZE)
            files = (theirs.fileno(), progress.fileno())
            path = json.dumps([str(folder) for folder in sys.path])
            arguments = [sys.executable, "-c", _START, path, *map(str, files)]
            with signals_later():  # none can hit the worker before it ignores them
                self._process = subprocess.Popen(arguments, pass_fds=files, stdin=subprocess.DEVNULL)
            self.connection = Connection(ours.detach())

    def part(self, rows: Any) -> Any:
        """This worker's rows of something that has one per environment."""
        return rows[self.first : self.end]

    def send(self, method: str, args: tuple[Any, ...]) -> None:
        with suppress(OSError):  # it died: whoever waits for the answer says so
            self.connection.send((method, args))

    def where(self, id: str) -> str:
        """The environment that the worker is busy with, for messages."""
        return f"{id}: environment {self.first + int.from_bytes(self._progress[:8], 'little')}"

    def ending(self) -> str:
        try:
            code = self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            return "its socket closed"
        return how_ended(code)

    def join(self, timeout: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self.connection.close()
        self._progress.close()
