"""metrics.jsonl: one JSON object per log call, {"step": ..., tag: value, ...}."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rltrain.errors import RunFailed
from rltrain.loggers.logger import NullLogger
from rltrain.storage.files import open_regular, write_atomic
from rltrain.terminal.output import warn
from rltrain.terminal.shell import shown_path, unusable

_log = logging.getLogger(__name__)
_LONGEST_LINE = 1 << 20  # bytes; what is longer is no row of ours
_TAIL = 1 << 18  # bytes; a chart whose last row lies further back is there again with its next one
_BEGINS = b'{"step": '


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a metrics file; a line that a killed writer left torn is skipped.

    Raises:
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        while line := file.readline(_LONGEST_LINE):
            yield from _parsed(line)


def _parsed(line: bytes) -> list[dict[str, Any]]:
    """The row in a line; nothing where it is none, or torn."""
    try:
        row = json.loads(line.decode(errors="replace")) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return []
    return [row] if isinstance(row, dict) and type(row.get("step")) is int else []


def last_tags(path: Path) -> set[str]:
    """The tags in the last rows of a file; none where it cannot be read."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            return {tag.decode(errors="replace") for tag in re.findall(rb'"([^"\\\n]+)": ', file.read(_TAIL))}
    except OSError:
        return set()


def read_tags(path: Path, tags: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows that `read_rows` gives, but of each only the step and these tags; {} for a line that it skips.

    A row as JsonlLogger writes it is not parsed as a whole: a report reads millions of them.

    Raises:
        OSError: it cannot be read.
    """
    names = {tag.encode(): tag for tag in tags}
    found = re.compile(b', "(' + b"|".join(map(re.escape, names)) + b')": ([^,}]+)').findall
    with open_regular(path) as file:
        while line := file.readline(_LONGEST_LINE):
            # With one brace and no backslash, what looks like a key is one of the row's.
            if line[: len(_BEGINS)] == _BEGINS and line[-2:] == b"}\n" and line.rfind(b"{") == 0 and b"\\" not in line:
                try:
                    row: dict[str, Any] = {"step": int(line[len(_BEGINS) : line.find(b",")])}
                    for name, text in found(line):
                        row[names[name]] = None if text == b"null" else float(text)
                    yield row
                    continue
                except ValueError:
                    pass
            for row in _parsed(line):
                yield {"step": row["step"], **{tag: row[tag] for tag in tags if tag in row}}
                break
            else:
                if len(line) < _LONGEST_LINE or line.endswith(b"\n"):  # the end of a line, which may be long
                    yield {}


def read_evaluations(path: Path, period: int, until: int | None = None) -> dict[int, float]:
    """The evaluations in a metrics file: number (step // period) -> greedy mean return; none where there is no file.

    Args:
        until: the last environment step that counts.
    """
    found = {}
    for row in read_rows(path) if path.exists() else ():
        value = row.get("eval/episode_return")
        if isinstance(value, int | float) and math.isfinite(value) and (until is None or row["step"] <= until):
            found[row["step"] // period] = float(value)
    return found


class JsonlLogger(NullLogger):
    """Appends rows to a file; every row is in the file when `log` returns. A non-finite value becomes null.

    Args:
        resume_step: where the run continues from: rows of later steps are dropped first. None: a new run.
        longest: the most environment steps until a run's first row; that there is none after them is said.

    Raises:
        RunFailed: the file cannot be written.
    """

    def __init__(self, path: Path, resume_step: int | None = None, longest: float = math.inf) -> None:
        self._path = path
        try:
            kept = ""
            if resume_step is not None and path.exists():
                rows = (row for row in read_rows(path) if row["step"] <= resume_step)
                kept = "".join(json.dumps(row) + "\n" for row in rows)
                write_atomic(path, kept)
            if resume_step is not None and resume_step >= longest and not kept:
                warn(_log, f"{shown_path(path)}: has no row before step {resume_step:,}, and no curve will show one")
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | (os.O_EXCL if resume_step is None else 0)
            self._descriptor: int | None = os.open(path, flags, 0o666)
        except OSError as error:
            raise self._failure(error) from error

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        row: dict[str, float | None] = {"step": int(step)}
        for tag, value in scalars.items():
            number = float(value)
            row[tag] = number if math.isfinite(number) else None
        data = (json.dumps(row) + "\n").encode()
        if self._descriptor is None:
            raise ValueError("log after close")
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise self._failure(error) from error

    def close(self, completed: bool | None = None) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _failure(self, error: OSError) -> RunFailed:
        return RunFailed(unusable(self._path, error, "written"))
