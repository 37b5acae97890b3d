"""Waiting for the tasks of a sweep, and submitting again those that died."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rltrain.cluster.runner import STOPPED, Runner
from rltrain.cluster.scheduler import Look, Scheduler
from rltrain.errors import Interrupted
from rltrain.storage.checkpoint_folders import newest_step
from rltrain.storage.run_folder import RunFolder
from rltrain.storage.run_result import read_status
from rltrain.storage.task_folder import Task, TaskFolder, last_line
from rltrain.terminal.output import say
from rltrain.terminal.table import MOST_ROWS
from rltrain.terminal.text import counted, counted_names, wrapped
from rltrain.training.stopping import StopSignal

_SHORTEST, _LONGEST, _STEP = 1.0, 30.0, 0.1  # seconds between two questions to the scheduler; of a nap
_RAN = (0, 1)  # exit codes: its jobs ended, or some of them failed by themselves
_FINISHED = ("completed", "failed", "pruned")


@dataclass
class Watched:
    """A task that is waited for.

    Attributes:
        tries: those that count: not one that was stopped, and had got further.
        reached: steps that its jobs had saved together when it was last stopped.
    """

    task: Task
    look: Look
    tries: int = 0
    reached: int = 0
    gone: bool = False  # seen without a process once; its last files may take a moment to be seen from here


class TaskLoop:
    """Submits the tasks that are not in the cluster yet, waits until all have ended, and submits again those that died.

    Args:
        live: those that are in the cluster, from an earlier command.
        changed: called when a task has got an id.
        again: the command that goes on with the sweep.
    """

    def __init__(
        self, sweep: Path, scheduler: Scheduler, runner: Callable[[Task], Runner], retries: int,
        changed: Callable[[], None], again: str,
    ) -> None:  # fmt: skip
        self._sweep, self._scheduler, self._runner, self._retries = sweep, scheduler, runner, retries
        self._changed, self._again = changed, again
        self._open: list[Watched] = []
        self._given_up: dict[int, str] = {}
        self._jobs = self._tasks = self._done = 0
        self._told = ""

    def run(self, new: Sequence[Task], live: Sequence[Task]) -> dict[int, str]:
        """Number of each task that did not finish its jobs -> why.

        Raises:
            Interrupted: a signal stopped the wait.
            RequestError: the cluster refuses the tasks.
        """
        self._tasks, self._jobs = len(new) + len(live), sum(len(task.jobs) for task in (*new, *live))
        self._open = [Watched(task, Look("queued"), tries=1) for task in live]
        with StopSignal("", saves=False) as stop:
            self._submit([Watched(task, Look("queued")) for task in new])
            self._tell()
            pause = _SHORTEST
            while self._open:
                self._nap(pause, stop)
                if stop.requested:
                    ids = [watched.task.id for watched in self._open]
                    raise Interrupted(stop.exit_code, self._scheduler.leave(ids, self._again))
                pause = _SHORTEST if self._look() else min(_LONGEST, 1.2 * pause)
        return self._given_up

    def _nap(self, seconds: float, stop: StopSignal) -> None:
        until = time.monotonic() + seconds
        while not stop.requested and time.monotonic() < until:
            time.sleep(_STEP)

    def _submit(self, watched: list[Watched]) -> None:
        if not watched:
            return
        for one in watched:
            folder = TaskFolder(self._sweep, one.task.number)
            folder.make()
            folder.write_end(None)
        ids = self._scheduler.submit([self._runner(one.task) for one in watched])
        for one, id in zip(watched, ids, strict=True):
            one.task.id, one.look, one.tries = id, Look("queued"), one.tries + 1
            one.gone = False
        self._open += [one for one in watched if one not in self._open]
        self._changed()

    def _look(self) -> bool:
        """Asks how the tasks are; whether something has changed."""
        found = self._scheduler.look([one.task.id for one in self._open])
        before, died = self._told, []
        for one in list(self._open):
            folder = TaskFolder(self._sweep, one.task.number)
            look, code = found.get(one.task.id, one.look), folder.read_end()
            ended = code is not None and code not in STOPPED
            if look.state in ("queued", "running") and not ended:
                holder = folder.holder.rpartition(" on ")[2]
                self._notice(one, Look("running", look.word or holder) if holder else look)
                continue
            if not ended and not one.gone:
                one.gone = True
                continue
            self._open.remove(one)
            if self._whole(one.task, code):
                self._done += len(one.task.jobs)
                self._say(one, "ended")
            elif look.state == "cancelled":
                self._give_up(one, f"was cancelled; its jobs are saved, and `{self._again}` finishes them")
            elif code in STOPPED and self._got_further(one):
                one.tries -= 1
                self._say(one, f"stopped by {STOPPED[code]}, saved; is submitted again")
                died.append(one)
            elif one.tries > self._retries:
                self._give_up(one, f"died {counted(one.tries, 'time')}: {self._reason(one, look, code)}")
            else:
                self._say(one, f"died: {self._reason(one, look, code)}; is submitted again")
                died.append(one)
        self._submit(died)
        self._tell()
        return self._told != before or any(one.gone for one in self._open)

    def _whole(self, task: Task, code: int | None) -> bool:
        """Whether a task has run to its end, and each of its jobs too, if only to fail."""
        return code in _RAN and all(read_status(RunFolder(self._sweep / job)) in _FINISHED for job in task.jobs)

    def _got_further(self, one: Watched) -> bool:
        """Whether the jobs of a task that was stopped have saved more than when it was last stopped."""
        before, one.reached = one.reached, sum(newest_step(self._sweep / job) for job in one.task.jobs)
        return one.reached > before

    def _reason(self, one: Watched, look: Look, code: int | None) -> str:
        folder = TaskFolder(self._sweep, one.task.number)
        if code in STOPPED:
            return f"stopped by {STOPPED[code]} before it got further"
        if code is not None:
            killed = f"killed by signal {code - 128}" if code > 128 else f"exit code {code}"
            return ": ".join(filter(None, [killed, last_line(folder.log)]))
        if folder.log.exists():
            return "; ".join(filter(None, [look.word, last_line(folder.log)]))
        return f"{look.word or 'its process is gone'}; it left no log: do the nodes see the sweep's folder by its path?"

    def _notice(self, one: Watched, look: Look) -> None:
        if look.state == "running" and one.look.state != "running":
            self._say(one, f"runs on {look.word}" if look.word else "runs")
        if self._scheduler.requeues or one.look.state != "running":
            one.look = look

    def _give_up(self, one: Watched, reason: str) -> None:
        self._given_up[one.task.number] = reason
        self._say(one, reason)

    def _say(self, one: Watched, text: str) -> None:
        if self._tasks <= MOST_ROWS or one.task.number in self._given_up:
            jobs = counted_names("job", one.task.jobs)
            say(wrapped(f"task {one.task.number:<4} {text} ({jobs})"))

    def _tell(self) -> None:
        running = sum(one.look.state == "running" for one in self._open)
        ended = self._tasks - len(self._open) - len(self._given_up)
        lost = f", {len(self._given_up)} given up" if self._given_up else ""
        line = f"{len(self._open) - running} queued, {running} running, {ended} ended{lost}"
        line = f"tasks     {line}; {self._done:,} of {counted(self._jobs, 'job')} done"
        if line != self._told:
            self._told = line
            say(line)
