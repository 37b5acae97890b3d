"""The folder of a sweep: the list of its jobs, what they found, and the lock of the command that runs them."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rltrain.errors import RequestError
from rltrain.storage.files import write_atomic
from rltrain.storage.locks import lock_folder
from rltrain.storage.plain_files import MOST_LIST_BYTES, json_text, read_json, write_file
from rltrain.terminal.shell import unusable

JOBS = "jobs.json"
"""{"jobs": [{"folder": ..., "config": {...}, "overrides": [...]}, ...], "notes": [...]}, written before the first job
begins. Lists of earlier versions have no overrides and no notes."""

RESULTS, RESULTS_TEXT = "sweep.json", "sweep.txt"


@dataclass(frozen=True)
class ListedJob:
    """A job of a sweep.

    Attributes:
        config: as plain data, not validated; None where only its run says it.
        overrides: as the sweeper gave them; None where they were not written down.
    """

    folder: Path
    config: Mapping[str, Any] | None
    overrides: tuple[str, ...] | None


class SweepFolder:
    """A sweep's folder. As a context manager it holds the folder's lock.

    Raises (on entering):
        RequestError: the sweep is running, or the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: BinaryIO | None = None

    def __enter__(self) -> SweepFolder:
        try:
            self._lock = lock_folder(self.path)
        except OSError as error:
            raise RequestError(unusable(self.path, error)) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def add_jobs(self, jobs: Sequence[ListedJob], notes: Sequence[str] = ()) -> None:
        """Lists further jobs, and what their readers should know of all jobs."""
        before = read_json(self.path / JOBS, MOST_LIST_BYTES)["jobs"] if (self.path / JOBS).exists() else []
        new = [
            {
                "folder": str(job.folder.relative_to(self.path)),
                "config": job.config,
                "overrides": list(job.overrides or ()),
            }
            for job in jobs
        ]
        write_atomic(self.path / JOBS, json_text({"jobs": [*before, *new], "notes": list(notes)}))

    def change_jobs(
        self, configs: Mapping[Path, Mapping[str, Any]], asked: Sequence[str], notes: Sequence[str]
    ) -> None:
        """Lists other configs for these jobs, with the overrides `asked`: what has not begun begins with them; and what
        readers should know now."""
        content = read_json(self.path / JOBS, MOST_LIST_BYTES)
        changed = []
        for job in content["jobs"]:
            if (config := configs.get(self.path / str(job["folder"]))) is not None:
                job = {**job, "config": config}
                if (before := _overrides(job)) is not None:
                    keys = {override.partition("=")[0] for override in asked}
                    kept = [override for override in before if override.lstrip("+~").partition("=")[0] not in keys]
                    job["overrides"] = [*kept, *asked]
            changed.append(job)
        if changed != content["jobs"]:
            write_atomic(self.path / JOBS, json_text({**content, "jobs": changed, "notes": list(notes)}))

    def jobs(self) -> dict[Path, ListedJob]:
        """Folder of each job -> the job, in their order.

        Raises:
            RequestError: the list is malformed, or names a folder that is not inside the sweep's.
        """
        listed = read_json(self.path / JOBS, MOST_LIST_BYTES).get("jobs") if (self.path / JOBS).exists() else []
        jobs: dict[Path, ListedJob] = {}
        for job in listed if isinstance(listed, list) else [None]:
            if not isinstance(job, dict) or not isinstance(job.get("config"), dict):
                raise RequestError(f"{self.path / JOBS}: is no list of jobs")
            name: Any = job.get("folder")
            if wrong := self.unfit(name):
                raise RequestError(f"{self.path / JOBS}: the job folder {name!r} {wrong}")
            folder = self.path / name
            if folder in jobs:
                raise RequestError(f"{self.path / JOBS}: the job folder {name!r} is listed twice")
            jobs[folder] = ListedJob(folder, job["config"], _overrides(job))
        for folder in self.begun():
            jobs.setdefault(folder, ListedJob(folder, None, None))
        return jobs

    def begun(self) -> list[Path]:
        """The folders of the jobs that have begun, in their order, as they lie in the sweep's."""
        begun = [record.parent for record in self.path.glob("*/run.json") if not record.parent.is_symlink()]
        return sorted(begun, key=_number)

    def unfit(self, name: object) -> str:
        """Why there can be no job in the folder of that name, after `the folder NAME`; nothing where there can."""
        if not isinstance(name, str):
            return "is no text"
        if not name.isprintable():
            return "holds a character that cannot be printed"
        place = self.path / name
        inside = not _loops(place) and self.path.resolve() in place.resolve().parents
        return "" if inside else "is not inside the sweep's"

    def notes(self) -> list[str]:
        """Notes for readers of the jobs' results."""
        notes = read_json(self.path / JOBS, MOST_LIST_BYTES).get("notes") if (self.path / JOBS).exists() else []
        return [str(note) for note in notes] if isinstance(notes, list) else []

    def write_results(self, results: Mapping[str, Any], text: str) -> None:
        """Writes sweep.json and, the same for people, sweep.txt.

        Raises:
            RunFailed: they cannot be written.
        """
        for name, content in ((RESULTS, json_text(results)), (RESULTS_TEXT, text)):
            write_file(self.path / name, content)


def _loops(path: Path) -> bool:
    """Whether links lead to each other: `resolve` raises up to Python 3.12, and then gives the path as it is."""
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def is_sweep(place: Path) -> bool:
    """Whether the folder is a sweep's: of ours, or of Hydra's own making."""
    return (place / JOBS).exists() or (place / "multirun.yaml").exists()


def newest_sweep(outputs: Path) -> Path | None:
    """The sweep under `outputs` whose list or results were written last; None where there is none."""
    lists = [path for path in outputs.rglob(JOBS) if path.is_file()]
    return max(lists, key=lambda path: (_written(path), str(path))).parent if lists else None


def sweep_of(job: Path) -> Path | None:
    """The sweep that a run folder, which need not exist yet, is a job of; None where it is of none.

    Raises:
        RequestError: the sweep's list of jobs is malformed.
    """
    sweep = next(filter(is_sweep, job.parents), None)
    return sweep if sweep is not None and job in SweepFolder(sweep).jobs() else None


def _written(jobs: Path) -> int:
    results = jobs.with_name(RESULTS)
    return max(path.stat().st_mtime_ns for path in (jobs, results) if path.exists())


def _overrides(job: Mapping[str, Any]) -> tuple[str, ...] | None:
    found = job.get("overrides")
    return tuple(map(str, found)) if isinstance(found, list) else None


def _number(folder: Path) -> tuple[int, str]:
    return (int(folder.name) if folder.name.isdigit() else 0, folder.name)
