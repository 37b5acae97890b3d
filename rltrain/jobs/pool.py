"""Populations side by side: one process per core, or per GPU, each with members of its own.

Not threads of one process: those wait for each other many times per update, and long where another program has one of
the cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from rltrain.compute.device import free_memory, run_device
from rltrain.config.algorithms import card_of
from rltrain.config.plain import to_plain
from rltrain.config.population import MOST_MEMBERS
from rltrain.config.schema import RunConfig
from rltrain.envs.probe import probe
from rltrain.errors import Interrupted, Pruned, RequestError, RunFailed, how_ended
from rltrain.jobs.job import train_population
from rltrain.jobs.training import Job, JobOutcome
from rltrain.machine import TASK_CORES, available_cores
from rltrain.storage.run_folder import RunFolder
from rltrain.terminal.interrupts import signals_later
from rltrain.terminal.output import answers_file
from rltrain.training.stopping import StopSignal

_MEMBERS_PER_PROCESS = 4  # fewer do not earn a process's start
# The path goes along because a plug-in may lie where only the parent looks.
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from rltrain.jobs.worker import serve; serve()"


def places(config: RunConfig) -> int:
    """How many populations can train at the same time: one per GPU, or per core that the threads leave."""
    device = run_device(config)
    if device.type == "cuda":
        import torch

        return torch.cuda.device_count() if config.device.index == 0 else 1
    threads = 1 if config.device.threads == "auto" else config.device.threads
    return max(1, available_cores() // threads)


def members_of_each(config: RunConfig, members: int, bundle: int = 1) -> int:
    """How many of `members` jobs like this one should train in one process.

    Args:
        bundle: every so many jobs stay in one process: an even share is rounded up to whole bundles.
    """
    parts = max(1, min(places(config), members // _MEMBERS_PER_PROCESS))
    share = bundle * -(-members // (parts * bundle))
    return max(1, min(share, fitting_members(config) // parts, MOST_MEMBERS))


def fitting_members(config: RunConfig) -> int:
    """How many runs of this config fit into half of the free memory, judged by their experience."""
    observation, action = probe(config.env)
    needed = card_of(config.algo).experience_bytes(config.algo, config.num_envs, observation, action)
    return max(1, free_memory(run_device(config)) // 2 // needed)


def train_populations(populations: Sequence[Sequence[Job]]) -> list[list[JobOutcome]]:
    """Trains each population as one program, several at a time; the outcomes of all jobs of each.

    Raises:
        RequestError: the request cannot be carried out here, or a folder is in use.
        Interrupted: a signal stopped them, after saving.
    """
    if len(populations) == 1:
        return [train_population(populations[0])]
    return _Pool(populations).run()


@dataclass
class _Process:
    number: int  # of its population
    place: int
    process: subprocess.Popen[bytes]
    connection: Connection


class _Pool:
    def __init__(self, populations: Sequence[Sequence[Job]]) -> None:
        self._populations = populations
        self._kinds = [run_device(jobs[0].config).type for jobs in populations]
        self._outcomes: dict[int, list[JobOutcome]] = {}
        self._running: list[_Process] = []
        self._cores = 1  # of each process
        self._stop = StopSignal(listener=self._forward, at_once=self._kill)

    def run(self) -> list[list[JobOutcome]]:
        with self._stop:
            try:
                self._run()
            finally:
                self._kill()
        if self._stop.requested:
            raise Interrupted(self._stop.exit_code)
        outcomes = [self._outcomes[number] for number in range(len(self._populations))]
        refusals = [outcome for found in outcomes for outcome in found if isinstance(outcome, RequestError)]
        if len(refusals) == sum(map(len, outcomes)):
            raise refusals[0]  # nothing was trained
        return outcomes

    def _run(self) -> None:
        waiting = list(range(len(self._populations)))
        free = self._free_places()
        at_once = sum(min(len(places), self._kinds.count(kind)) for kind, places in free.items())
        self._cores = max(1, available_cores() // at_once)
        while self._running or (waiting and not self._stop.requested):
            while not self._stop.requested and (ready := [n for n in waiting if free[self._kinds[n]]]):
                waiting.remove(ready[0])
                with signals_later():
                    self._running.append(self._start(ready[0], free[self._kinds[ready[0]]].pop(0)))
            for connection in wait([process.connection for process in self._running], timeout=1.0):
                ended = next(process for process in self._running if process.connection is connection)
                self._running.remove(ended)
                free[self._kinds[ended.number]].append(ended.place)
                self._outcomes[ended.number] = self._read(ended)

    def _free_places(self) -> dict[str, list[int]]:
        """Numbers of the places on each kind of device: as many as every population there leaves."""
        fewest: dict[str, int] = {}
        for kind, jobs in zip(self._kinds, self._populations, strict=True):
            count = places(jobs[0].config)
            fewest[kind] = min(count, fewest.get(kind, count))
        return {kind: list(range(count)) for kind, count in fewest.items()}

    def _start(self, number: int, place: int) -> _Process:
        jobs = self._populations[number]
        ours, theirs = Pipe()
        shared_out = (
            self._kinds[number] == "cuda" and jobs[0].config.device.index == 0
        )  # another index asks for that GPU
        visible = {"CUDA_VISIBLE_DEVICES": _gpu(place)} if shared_out else {}
        process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, **visible, TASK_CORES: str(self._cores), **jobs[0].variables},
            stdout=answers_file(),
            start_new_session=True,  # a signal to our group reaches it once, from us
        )
        theirs.close()
        with suppress(OSError):  # it ended at once; reading says so
            ours.send((sys.argv, [_to_plain(job) for job in jobs]))
        return _Process(number, place, process, ours)

    def _read(self, ended: _Process) -> list[JobOutcome]:
        jobs = self._populations[ended.number]
        try:
            answer = ended.connection.recv()
        except (EOFError, OSError):
            failure = RunFailed(f"the process that trained it died ({how_ended(ended.process.wait())})")
            for job in jobs:
                # Not failed: what was saved together continues together.
                with suppress(RunFailed, RequestError):
                    RunFolder(job.folder).write_record(status="interrupted", reason=str(failure))
            return [failure] * len(jobs)
        finally:
            ended.connection.close()
        ended.process.wait()
        kinds = {"request": RequestError, "failed": RunFailed, "pruned": Pruned}
        return [mean if error is None else kinds[error[0]](error[1]) for mean, error in answer]

    def _forward(self, number: int) -> None:
        for process in self._running:
            process.process.send_signal(number)  # does nothing to one that has ended

    def _kill(self) -> None:
        for process in self._running:
            process.process.kill()


def _gpu(place: int) -> str:
    """The name of a GPU for a process that shall see no other."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[place] if visible else str(place)


def _to_plain(job: Job) -> dict[str, Any]:
    return {
        "config": to_plain(job.config),
        "folder": str(job.folder),
        "source": None if job.source is None else str(job.source),
        "changes": job.changes,
        "own": job.own,
        "pruning": job.pruning,
    }
