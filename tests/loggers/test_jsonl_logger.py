"""metrics.jsonl: exact, one row per step, whole after a kill and a resume."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import numpy as np
import pytest

from rltrain.errors import RunFailed
from rltrain.loggers.jsonl import JsonlLogger, read_rows


def write(path: Path, steps: range, resume_step: int | None = None) -> None:
    logger = JsonlLogger(path, resume_step)
    for step in steps:
        logger.log(step, {"train/td_loss": step / 7})
    logger.close()


def test_rows_are_exact_json_and_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    logger = JsonlLogger(path)
    logger.log(np.int64(5), {"a/b": 0.1 + 0.2, "n": np.float32(0.5), "nan": float("nan"), "inf": np.inf})
    expected = {"step": 5, "a/b": 0.30000000000000004, "n": 0.5, "nan": None, "inf": None}
    assert [json.loads(line) for line in path.read_text().splitlines()] == [expected]
    assert list(read_rows(path)) == [expected]
    logger.flush()
    logger.close()
    logger.close()


def test_a_resumed_file_has_each_step_once_and_no_torn_line(tmp_path: Path) -> None:
    once, resumed = tmp_path / "once.jsonl", tmp_path / "resumed.jsonl"
    write(once, range(100))
    write(resumed, range(70))
    with open(resumed, "a") as file:
        file.write('{"step": 40, "torn')
    assert [row["step"] for row in read_rows(resumed)] == list(range(70))
    write(resumed, range(50, 100), resume_step=49)
    assert resumed.read_bytes() == once.read_bytes()


def test_a_torn_line_that_reads_as_a_whole_row_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 12}'[:-1] + "}")  # of {"step": 12, ...}: no newline, no row
    write(path, range(2, 4), resume_step=20)
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3]


def test_garbage_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'\xff\n[]\n{"step": "x"}\n{"step": true}\n' + b"[" * 100_000 + b'\n{"step": 3}\n\n')
    assert list(read_rows(path)) == [{"step": 3}]


def test_a_resume_without_a_file_begins_one(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", range(50, 52), resume_step=49)
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [50, 51]


def test_a_new_run_never_appends_to_another(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", range(2))
    with pytest.raises(RunFailed, match=r"metrics\.jsonl"):
        write(tmp_path / "metrics.jsonl", range(2))


def log_many(logger: JsonlLogger, count: int) -> None:
    for step in range(count):
        logger.log(step, {"tag": 1.0})


def test_a_full_disk_names_the_file_and_leaves_whole_rows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    logger = JsonlLogger(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(RunFailed) as caught:
            log_many(logger, 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    logger.close()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [row["step"] for row in read_rows(path)] == list(range(len(list(read_rows(path)))))
    write(path, range(10, 12), resume_step=9)
    assert [row["step"] for row in read_rows(path)] == list(range(12))
