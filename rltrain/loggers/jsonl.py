"""metrics.jsonl: one JSON object per log call, {"step": ..., tag: value, ...}."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rltrain.errors import RunFailed
from rltrain.storage.files import open_regular, write_atomic

_LONGEST_LINE = 1 << 20  # characters; what is longer is no row of ours


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a metrics file; a line that a killed writer left torn is skipped.

    Raises:
        OSError: it cannot be read.
    """
    with io.TextIOWrapper(open_regular(path), encoding="utf-8", errors="replace") as file:
        while line := file.readline(_LONGEST_LINE):
            try:
                row = json.loads(line) if line.endswith("\n") else None
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict) and type(row.get("step")) is int:
                yield row


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


class JsonlLogger:
    """Appends rows to a file; every row is in the file when `log` returns. A non-finite value becomes null.

    Args:
        resume_step: where the run continues from: rows of later steps are dropped first. None: a new run.

    Raises:
        RunFailed: the file cannot be written.
    """

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        self._path = path
        try:
            if resume_step is not None and path.exists():
                kept = (row for row in read_rows(path) if row["step"] <= resume_step)
                write_atomic(path, "".join(json.dumps(row) + "\n" for row in kept))
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

    def flush(self) -> None:
        pass

    def close(self, completed: bool | None = None) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _failure(self, error: OSError) -> RunFailed:
        return RunFailed(f"{self._path}: cannot be written: {error.strerror or error}")
