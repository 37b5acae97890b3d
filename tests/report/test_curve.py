"""The learning curve: its numbers, and that nothing in a run folder breaks it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rltrain.loggers.jsonl import read_rows
from rltrain.report import curve
from rltrain.report.curve import learning_curve, moving_average, plot_learning_curve


def make_run(path: Path, rows: int) -> Path:
    path.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    with open(path / "metrics.jsonl", "w") as file:
        for step in range(100, 100 * rows + 1, 100):
            row = {"step": step, "rollout/episode_return": float(random.normal(step / 100, 30)), "train/td_loss": 1.0}
            if step % 1000 == 0:
                row |= {"eval/episode_return": step / 100, "eval/episode_return_std": 20.0}
            file.write(json.dumps(row) + "\n")
    (path / "config.yaml").write_text("algo: {name: dqn}\nenv: {id: CartPole-v1}\nseed: 3\n")
    (path / "result.json").write_text('{"threshold": 475.0}')
    return path


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))


def test_moving_average_equals_brute_force() -> None:
    values = np.array([3.0, -1.0, 4.0, 1.0, -5.0, 9.0])
    for window in (1, 3, 10):
        expected = [np.mean(values[max(0, end - window) : end]) for end in range(1, 7)]
        np.testing.assert_allclose(moving_average(values, window), expected, rtol=1e-12)
    assert moving_average(values, 3)[2] == 2.0


def has_colour(picture: np.ndarray, colour: str) -> bool:
    wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return bool((np.abs(picture.astype(int) - wanted).max(axis=2) < 12).sum() > 200)


def test_the_picture_shows_training_evaluation_and_threshold(tmp_path: Path) -> None:
    path = plot_learning_curve(make_run(tmp_path, 500))
    assert path == tmp_path / "learning_curve.png"
    whole = pixels(path)
    assert whole.shape[0] > 540 and whole.shape[1:] == (960, 3)
    assert all(has_colour(whole, colour) for colour in (curve._BLUE, curve._ORANGE, curve._GREY))
    (tmp_path / "result.json").unlink()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("eval/episode_return", None)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert not has_colour(pixels(plot_learning_curve(tmp_path)), curve._ORANGE)


def bands(run: Path) -> np.ndarray:
    """The heights of the corners of what is filled."""
    (axes,) = learning_curve(run).axes
    return np.concatenate([path.vertices[:, 1] for band in axes.collections for path in band.get_paths()])


def write_rows(run: Path, rows: list[dict[str, float]], result: dict[str, object] | None = None) -> None:
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "result.json").write_text(json.dumps(result or {}))


@pytest.mark.parametrize(
    ("env", "low", "high"),
    [
        ("{id: Unknown-v0}", -10.0, 510.0),
        ("{id: CartPole-v1}", 0.0, 500.0),
        ("{id: CartPole-v1, kwargs: {sutton_barto_reward: true}}", -10.0, 510.0),
        ("{id: CartPole-v1, max_episode_steps: 1000}", -10.0, 510.0),
    ],
)
def test_the_spread_is_cut_where_no_episode_can_return_more(tmp_path: Path, env: str, low: float, high: float) -> None:
    rows: list[dict[str, float]] = [
        {"step": 1, "rollout/episode_return": 9.0, "eval/episode_return": 30.0, "eval/episode_return_std": 40.0},
        {"step": 2, "rollout/episode_return": 60.0, "eval/episode_return": 495.0, "eval/episode_return_std": 15.0},
        {"step": 3, "rollout/episode_return": 40.0, "eval/episode_return": 300.0, "eval/episode_return_std": 50.0},
    ]
    write_rows(tmp_path, rows)
    (tmp_path / "config.yaml").write_text(f"env: {env}\n")
    heights = bands(tmp_path)
    assert (heights.min(), heights.max()) == (low, high)
    assert {250.0, 350.0, 480.0, 70.0} <= set(heights), "what lies within is as wide as it was measured"
    (axes,) = learning_curve(tmp_path).axes
    bottom, top = axes.get_ylim()
    assert bottom < low and high < top


def test_the_legend_says_what_each_curve_is_the_mean_of(tmp_path: Path) -> None:
    make_run(tmp_path, 500)
    (tmp_path / "config.yaml").write_text("log_period: 1000\neval: {episodes: 20}\n")
    (axes,) = learning_curve(tmp_path).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "training, each point the mean of 1,000 steps",
        "training, moving average of 50 points",
        "greedy evaluation, mean of 20 episodes",
        "± their standard deviation",
        "threshold 475",
    ]


@pytest.mark.parametrize("rows", [1, 500])
def test_the_legend_hides_nothing(tmp_path: Path, rows: int) -> None:
    """It lay where it hid the least, which may be the mark of the last network."""
    make_run(tmp_path, rows)
    (tmp_path / "config.yaml").write_text("log_period: 1000000\neval: {episodes: 1000}\n")
    final = {"env_step": 100 * rows, "episodes": 1000, "episodes_asked": 1000, "episode_return": {"mean": 480.0}}
    (tmp_path / "result.json").write_text(json.dumps({"threshold": 475.0, **final}))
    figure = learning_curve(tmp_path)
    figure.canvas.draw()
    (axes,) = figure.axes
    legend, below = axes.get_legend().get_window_extent(), axes.xaxis.label.get_window_extent()
    assert legend.y1 < below.y0 and below.y1 < axes.bbox.y0, "it lies under the words at the axis"
    assert legend.x0 >= 0 and legend.y0 >= 0 and legend.x1 <= figure.bbox.x1, "and inside the picture"
    assert axes.bbox.height == pytest.approx(0.81 * 540), "the curves keep their room"


def test_the_last_network_is_marked_and_steps_begin_at_0(tmp_path: Path) -> None:
    final: dict[str, object] = {"env_step": 900, "episodes": 100, "episode_return": {"mean": -13.0}}
    write_rows(tmp_path, [{"step": 900, "train/td_loss": 1.0}], final)
    (axes,) = learning_curve(tmp_path).axes
    (mark,) = axes.lines
    assert (mark.get_xydata().tolist(), mark.get_marker()) == ([[900.0, -13.0]], "D")
    assert mark.get_label() == "last network, mean of 100 greedy episodes" and axes.get_xlim()[0] == 0
    write_rows(tmp_path, [{"step": 1000, "train/td_loss": 1.0}], final)  # it goes on
    assert not learning_curve(tmp_path).axes[0].lines


def test_the_legend_promises_no_more_episodes_than_were_played(tmp_path: Path) -> None:
    write_rows(tmp_path, [{"step": 1, "eval/episode_return": 30.0}], {"episodes": 3, "episodes_asked": 100})
    (tmp_path / "config.yaml").write_text("eval: {episodes: 20}\n")
    (axes,) = learning_curve(tmp_path).axes
    assert axes.get_legend().get_texts()[0].get_text() == "greedy evaluation, mean of up to 20 episodes"


@pytest.mark.parametrize("rows", [1, 2])
def test_a_curve_of_one_point_is_a_mark(tmp_path: Path, rows: int) -> None:
    write_rows(tmp_path, [{"step": row, "rollout/episode_return": 5.0 * row} for row in range(1, rows + 1)])
    (training,) = learning_curve(tmp_path).axes[0].lines
    assert (training.get_marker() == "o") == (rows == 1)


@pytest.mark.parametrize("rows", [2, 19, 20])
def test_the_only_line_of_training_is_drawn_in_full_strength(tmp_path: Path, rows: int) -> None:
    write_rows(tmp_path, [{"step": row, "rollout/episode_return": 5.0 * row} for row in range(1, rows + 1)])
    training = learning_curve(tmp_path).axes[0].lines
    assert [line.get_alpha() for line in training] == ([None] if rows < 20 else [0.3, None])
    assert training[-1].get_linewidth() >= 1.6


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ("name", ["training, each point the mean of 333 steps", "greedy evaluation, mean of 20 episodes"]),
        ("log_period", ["training", "greedy evaluation, mean of 20 episodes"]),
        ("eval.episodes", ["training, each point the mean of 333 steps", "greedy evaluation"]),
    ],
)
def test_the_legend_does_not_tell_of_earlier_points_what_resume_has_changed(
    tmp_path: Path, changed: str, words: list[str]
) -> None:
    write_rows(tmp_path, [{"step": s, "rollout/episode_return": s, "eval/episode_return": s} for s in (1000, 1333)])
    (tmp_path / "config.yaml").write_text("log_period: 333\neval: {episodes: 20}\n")
    change = {"step": 1000, "key": changed, "from": 1000, "to": 333}
    (tmp_path / "run.json").write_text(json.dumps({"status": "completed", "changes": [change]}))
    (axes,) = learning_curve(tmp_path).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == words


def test_a_long_run_is_read_once_and_drawn_with_few_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counted(path: Path) -> Iterator[dict[str, Any]]:
        for row in read_rows(path):
            read.append(row["step"])
            yield row

    monkeypatch.setattr(curve, "read_rows", counted)
    (axes,) = learning_curve(make_run(tmp_path, 20_000)).axes
    assert read == list(range(100, 2_000_001, 100))
    points = {line.get_label().split(",")[0]: len(line.get_xdata()) for line in axes.lines}
    assert points == {"training": 4000, "greedy evaluation": 2000, "threshold 475": 2}


def test_it_is_drawn_without_pyplot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)  # other tests' packages may have imported it
    plot_learning_curve(make_run(tmp_path, 10))
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize(
    "rows",
    [
        "",
        '{"step": 5, "train/td_loss": 1.0}\n',
        '{"step": 5, "rollout/episode_return": 3.0}\n',
        '{"step": 5, "rollout/episode_return": null, "eval/episode_return": 2.0}\n{"step": 9, "rollout/epi',
        '{"step": 5, "rollout/episode_return": "x", "eval/episode_return": NaN}\n',
        '{"step": 5, "eval/episode_return": 1}\n{"step": 6, "eval/episode_return": 1, "eval/episode_return_std": 1}\n'
        '{"step": 7, "eval/episode_return": 1, "eval/episode_return_std": 1}\n',
    ],
)
def test_sparse_and_torn_metrics_are_drawn(tmp_path: Path, rows: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(rows)
    (tmp_path / "config.yaml").write_text("seed: !!python/name:os.system\n")
    (tmp_path / "result.json").write_text("[" * 100_000)
    assert pixels(plot_learning_curve(tmp_path)).shape[1:] == (960, 3)
    assert not list(tmp_path.glob(".writing*"))
