"""metrics.jsonl: exact, one row per step, whole after a kill and a resume."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import numpy as np
import pytest

from rltrain.errors import RunFailed
from rltrain.loggers.jsonl import JsonlLogger, read_rows, read_tags


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


def test_a_run_goes_on_without_its_earlier_rows_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path := tmp_path / "metrics.jsonl").write_text('{"torn')
    JsonlLogger(path, 99, longest=100).close()  # the first row may come after this
    assert capsys.readouterr().err == ""
    JsonlLogger(path, 100, longest=100).close()
    assert "metrics.jsonl: has no row before step 100" in capsys.readouterr().err
    write(path, range(90), 0)
    JsonlLogger(path, 101, longest=100).close()
    assert capsys.readouterr().err == ""


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


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 1, "a": 1.5, "b": -2e-05, "c": 3}',
        '{"step": 1, "b": null, "a": 0.0}',
        '{"step": 1}',
        '{"step": 1.0, "a": 1.0}',
        '{"step": true, "a": 1.0}',
        '{"a": 1.0, "step": 1}',
        '{ "step" : 1 , "a" : 1.0 }',
        '{"step":1,"a":1.0}',
        '{"step": 1, "a": 1.0, "a": 2.0}',
        '{"step": 1, "a": "2.0"}',
        '{"step": 1, "a": "x, \\"b\\": 7"}',
        '{"step": 1, "x": "y, \\"a\\": 7"}',
        '{"step": 1, "x": {"y": 0, "a": 7}}',
        '{"step": 1, "x": [{"y": 0, "a": 7}], "a": 8}',
        '{"step": 1, "a": [1, 2]}',
        '{"step": 1, "a": true}',
        '{"step": 1, "a": 1.0',
        '{"step": , "a": 1.0}',
        "null",
    ],
)
def test_tags_are_those_of_the_parsed_row(line: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{line}\n" + '{"step": 2, "a": 5.0, "x/y": 1.0}\n{"step": 3, "a": 6')
    rows = [{tag: row[tag] for tag in ("step", "a", "b") if tag in row} for row in read_rows(path)]
    found = list(read_tags(path, ["a", "b"]))
    assert [row for row in found if row] == rows
    assert rows[-1] == {"step": 2, "a": 5.0} and found[-1] == {} and len(found) == 3
    assert list(read_tags(path, ["x/y"]))[1] == {"step": 2, "x/y": 1.0}
