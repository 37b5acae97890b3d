"""The folder of one run: its files' names, its record, its log and the lock that keeps a second writer out."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from rltrain.errors import RequestError
from rltrain.storage.files import first_link
from rltrain.storage.locks import lock_folder
from rltrain.storage.plain_files import json_text, plain_yaml, read_json, read_plain_yaml, write_file
from rltrain.terminal.shell import shown_path, unusable

STUDY = "study.yaml"
"""The file by which a folder is a study's, whose trials are runs below it."""


class RunFolder:
    """A run folder. As a context manager it holds the folder's lock and writes the log.

    Raises (on entering):
        RequestError: another process holds it, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.record = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.videos = path / "videos"
        self.checkpoints = path / "checkpoints"
        self.result = path / "result.json"
        self.evaluation = path / "evaluation.json"
        self.learning_curve = path / "learning_curve.png"
        self.log = path / "run.log"
        self._lock: BinaryIO | None = None
        self._handler: logging.Handler | None = None

    def __enter__(self) -> RunFolder:
        try:
            for folder in (self.path, *([self.checkpoints] if self.checkpoints.is_dir() else [])):
                if link := first_link(folder):
                    raise RequestError(f"{link}: is a link; a run writes into no folder but its own")
            self._lock = lock_folder(self.path)
            self._handler = _LogFile(self.log, encoding="utf-8")
        except OSError as error:
            self._release()
            raise RequestError(unusable(self.path, error)) from error
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger("rltrain").addHandler(self._handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the lock back, before the context ends."""
        if self._handler is not None:
            logging.getLogger("rltrain").removeHandler(self._handler)
            with contextlib.suppress(OSError):  # a full disk: what could be written was
                self._handler.close()
            self._handler = None
        self._release()

    def write_record(self, **changes: Any) -> dict[str, Any]:
        """Merge `changes` (status, seed, device, versions, git, timings, argv, ...) into run.json; returns it whole."""
        record = {**(self.read_record() if self.record.exists() else {}), **changes}
        write_file(self.record, json_text(record))
        return record

    def read_record(self) -> dict[str, Any]:
        """run.json.

        Raises:
            RequestError: missing or damaged.
        """
        return read_json(self.record)

    def write_config(self, plain: Mapping[str, Any]) -> None:
        """Writes config.yaml.

        Raises:
            RunFailed: it cannot be written; so do the other writing methods.
        """
        write_file(self.config, plain_yaml(plain))

    def read_config(self) -> dict[str, Any]:
        """config.yaml as plain data. Interpolations stay text, tags and aliases are refused.

        Raises:
            RequestError: missing or no plain YAML mapping.
        """
        return read_plain_yaml(self.config)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Writes result.json: the last network's greedy episodes."""
        write_file(self.result, json_text(result))

    def read_result(self) -> dict[str, Any]:
        """result.json.

        Raises:
            RequestError: missing or damaged.
        """
        return read_json(self.result)

    def write_evaluation(self, result: Mapping[str, Any]) -> None:
        """Writes evaluation.json, in the form of result.json with the checkpoint and the seed."""
        write_file(self.evaluation, json_text(result))

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def folder_named(path: object) -> Path:
    """The path of a folder as a program gives it, a text or a path-like object.

    Raises:
        RequestError: it is something else.
    """
    if not isinstance(path, str | os.PathLike):
        raise RequestError(f"{path!r}: is no path; a folder is given as a text or a pathlib.Path")
    return Path(path)


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say nothing: on a full disk the standard handler prints a traceback for every record."""


def newest_run(outputs: Path, saved: bool = False) -> Path:
    """The run under `outputs` whose record was written last.

    Args:
        saved: of those that have a checkpoint and are no trials of a search, if there are any.

    Raises:
        RequestError: there is none.
    """
    records = [path for path in outputs.rglob("run.json") if path.is_file()]
    if not records:
        raise RequestError(f"{shown_path(outputs)}: holds no run; give the folder of one")
    if saved:
        records = [
            path for path in records if not any((parent / STUDY).is_file() for parent in path.parents)
        ] or records
    return _newest(records, saved)


def no_run(place: Path) -> str:
    """Why a folder is no run's, and which run may be meant."""
    return f"is no run folder: it has no config.yaml{newest_below(place)}"


def newest_below(place: Path) -> str:
    """The end of a message about a folder that is no run's: the newest run below it; empty where there is none."""
    records = [path for path in place.rglob("run.json") if path.is_file() and path.parent != place]
    return f"; the newest run below it: {shown_path(_newest(records, saved=True))}" if records else ""


def _newest(records: Sequence[Path], saved: bool) -> Path:
    if saved:
        records = [path for path in records if any(path.parent.glob("checkpoints/*/manifest.json"))] or records
    return max(records, key=lambda path: (path.stat().st_mtime_ns, str(path))).parent


@functools.cache
def versions() -> dict[str, str]:
    """Versions of the packages that decide a run's numbers."""
    found = {"python": platform.python_version()}
    for name in ("rltrain", "torch", "numpy", "gymnasium"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def git_state(folder: Path) -> dict[str, Any] | None:
    """{"commit", "dirty"} of the work tree that `folder` lies in; None where there is none, or no git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5, env=environment)
    return done.stdout.strip()
