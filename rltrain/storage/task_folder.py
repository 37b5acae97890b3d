"""Tasks of a sweep on a cluster: jobs that one process on one node trains. Their list, and the folder of each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rltrain.errors import RequestError
from rltrain.storage.files import holder_of, write_atomic
from rltrain.storage.locks import lock_patiently
from rltrain.storage.plain_files import MOST_LIST_BYTES, json_text, read_json
from rltrain.terminal.shell import unusable

TASKS = "tasks"
"""The folder of all tasks, in the sweep's; `tasks.json` in it lists them."""
LIST, LOG, ENDED = "tasks.json", "log.txt", "ended.json"
_PATIENCE = 120.0  # seconds: one that was told to stop is still saving


@dataclass
class Task:
    """A task.

    Attributes:
        jobs: their folders' names in the sweep's.
        id: of its last submission, as the scheduler calls it; empty where it has none.
    """

    number: int
    jobs: tuple[str, ...]
    id: str = ""


@dataclass(frozen=True)
class TaskList:
    """The content of tasks.json: the launcher with its keys, and the tasks."""

    launcher: Mapping[str, Any]
    tasks: tuple[Task, ...]


class TaskFolder:
    """The folder of a task."""

    def __init__(self, sweep: Path, number: int) -> None:
        self.path = sweep / TASKS / str(number)
        self.log = self.path / LOG

    def make(self) -> None:
        """Makes it.

        Raises:
            RequestError: a link is in its place, or it cannot be made.
        """
        for folder in (self.path.parent, self.path):
            try:
                folder.mkdir(exist_ok=True)
            except OSError as error:
                raise RequestError(unusable(folder, error, "made")) from error
            if folder.is_symlink():
                raise RequestError(f"{folder}: is a link; a sweep writes into no folder but its own")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The lock of the process that trains the task's jobs; waits for an earlier one that still saves.

        Raises:
            RequestError: another process trains them, or the folder cannot be used.
        """
        self.make()
        with lock_patiently(self.path, _PATIENCE):
            yield

    @property
    def holder(self) -> str:
        """The process that trains its jobs, as `process 12 on HOST`; empty where none does."""
        return holder_of(self.path)

    def open_log(self) -> BinaryIO:
        """Opens the log to append to it."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        return open(os.open(self.log, flags, 0o666), "ab", buffering=0)

    def write_end(self, code: int | None) -> None:
        """Keeps the exit code of the task; None: it runs, or will again."""
        if code is None:
            (self.path / ENDED).unlink(missing_ok=True)
        else:
            write_atomic(self.path / ENDED, json_text({"exit_code": code}))

    def read_end(self) -> int | None:
        """The exit code of the task; None where it has not ended by itself."""
        try:
            code = read_json(self.path / ENDED).get("exit_code")
        except RequestError:
            return None
        return code if type(code) is int else None


def last_line(log: Path) -> str:
    """The last line of a log that says something, cut to 300 characters; nothing where there is no log."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def read_tasks(sweep: Path) -> TaskList | None:
    """The tasks of a sweep; None where it never had some.

    Raises:
        RequestError: the list is malformed.
    """
    path = sweep / TASKS / LIST
    if not path.exists():
        return None
    plain = read_json(path, MOST_LIST_BYTES)
    launcher, entries = plain.get("launcher"), plain.get("tasks")
    if not isinstance(launcher, dict) or not isinstance(entries, list):
        raise RequestError(f"{path}: is no list of tasks")
    tasks = []
    for number, entry in enumerate(entries):
        jobs, id = (entry.get("jobs"), entry.get("id")) if isinstance(entry, dict) else (None, None)
        if not isinstance(jobs, list) or not all(isinstance(job, str) for job in jobs) or not isinstance(id, str):
            raise RequestError(f"{path}: is no list of tasks")
        tasks.append(Task(number, tuple(jobs), id))
    return TaskList(launcher, tuple(tasks))


def write_tasks(sweep: Path, launcher: Mapping[str, Any], tasks: Sequence[Task]) -> None:
    """Writes the list of a sweep's tasks.

    Raises:
        OSError: it cannot be written.
    """
    entries = [{"jobs": list(task.jobs), "id": task.id} for task in tasks]
    write_atomic(sweep / TASKS / LIST, json_text({"launcher": dict(launcher), "tasks": entries}))
