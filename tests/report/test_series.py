"""Series of metrics files, ours and others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from written_runs import row

import rltrain.report.series as series
from rltrain.report.series import Series, read_metrics

TAG = "rollout/episode_return"


def read(path: Path, text: str) -> series.Metrics:
    path.write_text(text)
    return read_metrics(path, [TAG])


def lines(*rows: object) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in rows)


def test_the_integral_of_a_line_with_corners() -> None:
    line = Series(np.array([10.0, 20.0, 40.0]), np.array([0.0, 10.0, 10.0]))
    # 10..20 rises from 0 to 10; then 10 for ever.
    assert line.means(np.array([10.0, 20.0, 30.0, 100.0])) == pytest.approx([5.0, 10.0, 10.0])
    assert line.means(np.array([15.0, 25.0])) == pytest.approx([(7.5 * 5 + 50) / 10])
    assert np.isnan(line.means(np.array([5.0, 15.0]))).all()  # before the first point nothing is known
    assert line.at(np.array([5.0, 15.0, 50.0])) == pytest.approx([np.nan, 5.0, 10.0], nan_ok=True)


def test_rows_without_the_value_are_left_out(tmp_path: Path) -> None:
    found = read(tmp_path / "m", lines(row(100, 1.0), {"step": 200}, {"step": 300, TAG: None}, row(400, 2.0)))
    assert found.series[TAG].steps.tolist() == [100, 400]
    assert found.last_step == 400


def test_train_seconds_are_summed_over_rows(tmp_path: Path) -> None:
    found = read(tmp_path / "m", lines(row(100, 1.0, speed=50.0), row(300, 1.0, speed=100.0), row(400, 1.0, speed=0.0)))
    assert found.train_seconds == pytest.approx(2.0 + 2.0)


def test_a_speed_is_that_since_the_row_before_that_has_one(tmp_path: Path) -> None:
    evaluations = [{"step": step, "eval/episode_return": 1.0} for step in (50, 150, 250, 450)]
    timed = [row(100, 1.0, speed=50.0), row(200, 1.0, speed=0.0), row(400, 1.0, speed=100.0)]
    found = read(tmp_path / "m", lines(*sorted([*evaluations, *timed], key=lambda each: each["step"])))
    assert found.train_seconds == pytest.approx(100 / 50 + 200 / 100)
    assert found.speed == pytest.approx(300 / 4.0)  # of the steps that are timed


@pytest.mark.parametrize(
    "text",
    [
        '{"step": 300, "rollout/episode_return": 9',  # torn
        '{"step": 300, "rollout/episode_return": NaN}\n',
        '{"step": 300, "rollout/episode_return": Infinity}\n',
        '{"step": 300, "rollout/episode_return": 1e308}\n',
        '{"step": 300, "rollout/episode_return": ' + "9" * 400 + "}\n",
        '{"step": 300, "rollout/episode_return": "9"}\n',
        '{"step": 300, "rollout/episode_return": true}\n',
        '{"step": 300, "rollout/episode_return": [9]}\n',
        '{"step": -1, "rollout/episode_return": 9}\n',
        '{"step": 1e3, "rollout/episode_return": 9}\n',
        '{"step": 99999999999999999999, "rollout/episode_return": 9}\n',
        "[300, 9]\n",
        "[" * 5000 + "\n",
        "\x00\xff\n",
    ],
)
def test_what_is_no_row_of_ours_is_left_out(text: str, tmp_path: Path) -> None:
    found = read(tmp_path / "m", lines(row(100, 1.0), row(200, 2.0)) + text)
    assert found.series[TAG].values.tolist() == [1.0, 2.0]


def test_rows_out_of_order_are_put_in_order_and_the_later_of_two_holds(tmp_path: Path) -> None:
    found = read(tmp_path / "m", lines(row(300, 3.0), row(100, 1.0), row(300, 4.0), row(200, 2.0)))
    assert found.series[TAG].steps.tolist() == [100, 200, 300]
    assert found.series[TAG].values.tolist() == [1.0, 2.0, 4.0]


def test_what_a_file_of_ours_does_not_have_is_told(tmp_path: Path) -> None:
    rows = [row(step, 1.0) for step in range(100, 1100, 100)]
    path = tmp_path / "m"

    def faults(text: str) -> tuple[str, ...]:
        path.write_text(text)
        return read_metrics(path, [TAG], longest=101, end=1000).faults

    assert faults(lines(*rows)) == ()
    assert faults(lines(*rows[:4], row(400, 5.0), *rows[4:])) == ("1 row out of order",)
    assert faults(lines(*rows, row(1100, 1.0), {"loss": 3})) == (
        "1 line skipped (no row, or torn)", "1 row skipped (beyond the last step, 1,000)",
    )  # fmt: skip
    assert faults(lines(*rows[2:4], *rows[6:])) == ("rows missing from step 0 to 300 and in 1 other gap",)
    assert faults(lines(*rows[:8])) == ("rows missing from step 800 to the last, 1,000",)
    assert faults(lines(*rows) + "x" * (5 << 20) + "\n") == ("1 line skipped (no row, or torn)",)
    assert faults("") == ("rows missing from step 0 to the last, 1,000",)


def test_points_of_long_series_are_means_of_neighbouring_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "MOST_POINTS", 4)
    found = read(tmp_path / "m", lines(*(row(100 * i, float(i)) for i in range(1, 10)))).series[TAG]
    assert found.steps.tolist() == [250, 650, 900]
    assert found.values.tolist() == [2.5, 6.5, 9.0]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m")
    with pytest.raises(OSError, match="not a regular file"):
        read_metrics(tmp_path / "m", [TAG])
    with pytest.raises(OSError):
        read_metrics(tmp_path / "none", [TAG])
