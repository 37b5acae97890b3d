"""The folder of a sweep: the list of its jobs, and the lock of whoever runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from rltrain.errors import Interrupted, RequestError
from rltrain.files import write_atomic
from rltrain.text import shell_word
from rltrain.training.run_folder import RunFolder, json_text, lock_folder, read_json

JOBS = "jobs.json"
"""{"jobs": [{"folder": ..., "config": {...}}, ...]}, written before the first of them begins."""


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
            raise RequestError(f"{self.path}: the sweep's folder cannot be used: {error.strerror or error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def add_jobs(self, jobs: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Lists further jobs: the folder of each, relative to the sweep's, and its resolved config as plain data."""
        before = read_json(self.path / JOBS)["jobs"] if (self.path / JOBS).exists() else []
        listed = [*before, *({"folder": folder, "config": config} for folder, config in jobs)]
        write_atomic(self.path / JOBS, json_text({"jobs": listed}))

    def change_jobs(self, configs: Mapping[Path, Mapping[str, Any]]) -> None:
        """Lists other configs for these jobs: what has not begun yet begins with them."""
        listed = read_json(self.path / JOBS)["jobs"]
        changed = [{**job, "config": configs.get(self.path / str(job["folder"]), job["config"])} for job in listed]
        if changed != listed:
            write_atomic(self.path / JOBS, json_text({"jobs": changed}))

    def jobs(self) -> dict[Path, dict[str, Any] | None]:
        """Folder of each job, in their order -> its config, not yet validated (None: only its run says it).

        Raises:
            RequestError: the list is malformed, or names a folder that is not inside the sweep's.
        """
        listed = read_json(self.path / JOBS).get("jobs") if (self.path / JOBS).exists() else []
        jobs: dict[Path, dict[str, Any] | None] = {}
        for job in listed if isinstance(listed, list) else [None]:
            if not isinstance(job, dict) or not isinstance(job.get("config"), dict):
                raise RequestError(f"{self.path / JOBS}: is no list of jobs")
            folder = self.path / str(job.get("folder"))
            if self.path.resolve() not in folder.resolve().parents:
                raise RequestError(
                    f"{self.path / JOBS}: the job folder {job.get('folder')!r} is not inside the sweep's"
                )
            jobs[folder] = job["config"]
        begun = [record.parent for record in self.path.glob("*/run.json") if not record.parent.is_symlink()]
        return {**jobs, **{folder: None for folder in sorted(begun, key=_number) if folder not in jobs}}


def is_sweep(place: Path) -> bool:
    """Whether the folder is a sweep's: of ours, or of Hydra's own making."""
    return (place / JOBS).exists() or (place / "multirun.yaml").exists()


def sweep_of(job: Path) -> Path | None:
    """The sweep that a run folder, which need not exist yet, is a job of; None where it is of none.

    Raises:
        RequestError: the sweep's list of jobs is malformed.
    """
    sweep = next(filter(is_sweep, job.parents), None)
    return sweep if sweep is not None and job in SweepFolder(sweep).jobs() else None


def is_unfinished(sweep: Path) -> bool:
    """Whether one of its jobs is not completed.

    Raises:
        RequestError: its list of jobs or a record is malformed.
    """
    runs = [RunFolder(folder) for folder in SweepFolder(sweep).jobs()]
    return any(not run.record.exists() or run.read_record().get("status") != "completed" for run in runs)


def stopped_sweep(folder: Path, exit_code: int) -> Interrupted:
    """What ends the command whose sweep a signal stopped, once its jobs are saved."""
    return Interrupted(exit_code, f"sweep stopped; `rltrain resume {shell_word(folder)}` finishes it")


def _number(folder: Path) -> tuple[int, str]:
    return (int(folder.name) if folder.name.isdigit() else 0, folder.name)
