"""Figures over swept numbers, and TensorBoard's curves over seeds."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from written_runs import result, row, write_run, write_sweep

from rltrain.cli import main
from rltrain.report.contents import Contents, read_contents
from rltrain.report.drawing import PALETTE, labels, styled
from rltrain.report.drawings import drawings
from rltrain.report.figures import chances, curves, final_scores
from rltrain.report.swept import heat_maps, is_grid, legible_ticks, slices, swept_numbers


def swept(tmp_path: Path, settings: list[dict[str, Any]], seeds: int = 1) -> Contents:
    """Of settings, whose scores are their numbers in the list."""
    for number, (changes, seed) in enumerate(product(settings, range(seeds))):
        write_run(tmp_path / str(number), final=result(float(number // seeds)), seed=seed, **changes)
    return read_contents([tmp_path], ["x"])


def names(contents: Contents) -> list[str]:
    return [drawing.name for drawing in drawings(contents)]


def test_two_numbers_make_a_heat_map_with_the_best_framed(tmp_path: Path) -> None:
    pairs = [
        {"algo__gamma": gamma, "algo__optimizer__lr": rate} for gamma in (0.9, 0.99) for rate in (0.1, 0.01, 0.001)
    ]
    contents = swept(tmp_path, pairs[:5])  # one pair was not tried
    assert is_grid(contents) and "heat_map" in names(contents) and "slices" not in names(contents)
    with styled():
        panel = heat_maps(contents).axes[0]
    cells = panel.collections[0].get_array()
    assert cells is not None
    assert np.ma.filled(cells, -1).tolist() == [[2, 1, 0], [-1, 4, 3]]  # rows: gamma, columns: lr, both rising
    (frame,) = [patch for patch in panel.patches if isinstance(patch, Rectangle)]
    assert frame.get_xy() == (0.5, 0.5)
    assert [text.get_text() for text in panel.texts] == ["2.00", "1.00", "0.00", "4.00", "3.00"]


def test_a_colour_is_one_return_in_all_heat_maps_of_an_environment(tmp_path: Path) -> None:
    pairs = [{"algo__gamma": gamma, "algo__optimizer__lr": rate} for gamma in (0.9, 0.99) for rate in (0.1, 0.01)]
    contents = swept(tmp_path, [{**pair, "algo__name": name} for name in ("a", "b") for pair in pairs])
    with styled():
        maps = [panel.collections[0] for panel in heat_maps(contents).axes if panel.get_title(loc="left")]
    assert [colours.get_clim() for colours in maps] == [(0, 7), (0, 7)]


def test_long_names_stay_within_the_figure(tmp_path: Path) -> None:
    long = {"algo__gamma": 0.123456, "algo__optimizer__lr": 0.123456, "total_steps": 123456, "num_envs": 123456}
    contents = swept(tmp_path, [{}, *({key: value} for key, value in long.items()), long])
    with styled():
        figure = chances(contents)
        figure.draw_without_rendering()
    (panel,) = figure.axes
    assert figure.bbox.x0 <= panel.xaxis.label.get_window_extent().x0
    assert panel.xaxis.label.get_window_extent().x1 <= figure.bbox.x1


def test_one_number_makes_a_slice(tmp_path: Path) -> None:
    contents = swept(tmp_path, [{"algo__gamma": g, "algo__name": a} for a in "ab" for g in (0.99, 0.9)], seeds=3)
    assert swept_numbers(contents) == ["algo.gamma"] and "slices" in names(contents)
    with styled():
        (panel,) = slices(contents).axes
    lines = {str(line.get_label()): line.get_xydata() for line in panel.lines}
    assert np.asarray(lines["algo=b"]).tolist() == [[0.9, 3], [0.99, 2]]
    (best,) = panel.texts
    assert (best.get_text(), best.xy) == ("best", (0.9, 3.0))  # type: ignore[attr-defined]


def test_legends_hide_no_line_and_no_other_panel(tmp_path: Path) -> None:
    places = [(algo, rate, gamma) for algo in ("a", "b" * 60) for rate in (0.1, 0.2, 0.5) for gamma in (0.9, 0.99)]
    settings = [{"algo__name": a, "algo__optimizer__lr": r, "algo__gamma": g} for a, r, g in places]
    contents = swept(tmp_path, [{**s, "env__id": env} for env in ("CartPole-v1", "Acrobot-v1") for s in settings[:9]])
    with styled():
        figure = slices(contents)
        figure.draw_without_rendering()
    boxes = [panel.get_window_extent() for panel in figure.axes]
    legends = [legend.get_window_extent() for panel in figure.axes if (legend := panel.get_legend()) is not None]
    assert len(boxes) == len(legends) == 4
    assert not any(legend.overlaps(box) for legend in legends for box in boxes)
    assert all(legend.y0 >= 0 and box.height > 130 for legend, box in zip(legends, boxes, strict=True))


def test_numbers_of_a_random_search_make_slices(tmp_path: Path) -> None:
    contents = swept(tmp_path, [{"algo__gamma": 1 - 0.1**n, "algo__optimizer__lr": 0.1**n} for n in range(1, 12)])
    # lr follows from gamma; had both been typed, both would be shown.
    assert not is_grid(contents) and swept_numbers(contents) == ["algo.gamma"]


def test_labels_of_an_axis_do_not_lie_on_each_other() -> None:
    assert legible_ticks([1, 2, 3, 4, 5, 6, 7, 8]) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert legible_ticks([0.000909, 0.00118, 0.00134, 0.00884]) == [0.00134, 0.00884]
    assert legible_ticks([1e-4, 1e-3, 1.1e-3, 1e-2]) == [1e-4, 1.1e-3, 1e-2]  # logarithmic
    assert legible_ticks([3]) == [3]


def test_words_flags_and_lists_are_no_swept_numbers(tmp_path: Path) -> None:
    contents = swept(tmp_path, [{"network__hidden": [8]}, {"network__hidden": [9]}, {"algo__double": True}])
    assert swept_numbers(contents) == [] and "slices" not in names(contents)


def test_a_number_that_comes_with_the_algorithm_is_not_swept(tmp_path: Path) -> None:
    """As in two sweeps that are reported together, each with total_steps of its own."""
    for name, steps in (("dqn", 1000), ("ppo", 2000)):
        jobs: dict[str, Any] = {
            str(rate): (
                [f"algo={name}", f"total_steps={steps}", f"algo.optimizer.lr={rate}"],
                {"algo__name": name, "total_steps": steps, "algo__optimizer__lr": rate},
                rate,
            )
            for rate in (0.1, 0.2)
        }
        write_sweep(tmp_path / name, jobs)
    contents = read_contents([tmp_path / "dqn", tmp_path / "ppo"], ["dqn", "ppo"])
    assert contents.groups.keys == ("algo.name", "total_steps", "algo.optimizer.lr")
    assert swept_numbers(contents) == ["algo.optimizer.lr"]
    with styled():
        (panel,) = slices(contents).axes
    assert panel.get_xlabel() == "lr"


def test_a_number_of_which_one_value_has_scores_is_not_swept(tmp_path: Path) -> None:
    write_run(tmp_path / "failed", [row(100, 1.0)], status="failed", algo__gamma=0.5, algo__optimizer__lr=1.0)
    contents = swept(tmp_path, [{"algo__optimizer__lr": rate} for rate in (0.1, 0.2)])
    assert contents.groups.keys == ("algo.gamma", "algo.optimizer.lr")
    assert swept_numbers(contents) == ["algo.optimizer.lr"]


def test_tensorboard_shows_the_curves_over_seeds(tmp_path: Path) -> None:
    jobs: dict[str, Any] = {str(seed): ([f"seed={seed}"], {"seed": seed}, 10.0 * seed) for seed in range(3)}
    sweep = write_sweep(tmp_path / "sweep", jobs)
    assert main(["report", str(sweep), "metric=eval/episode_return"]) == 0
    (run,) = (sweep / "report" / "tensorboard").iterdir()
    assert run.name == "000 all runs"
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    last = {tag: events.Scalars(tag)[-1] for tag in events.Tags()["scalars"]}
    assert {tag: (event.step, event.value) for tag, event in last.items()} == {
        "eval/episode_return": (1000, 10.0), "eval/episode_return_mean": (1000, 10.0),
        "eval/episode_return_low": (1000, 0.0), "eval/episode_return_high": (1000, 20.0),
    }  # fmt: skip
    assert events.Tags()["tensors"] == ["custom_scalars__config__"]
    assert last["eval/episode_return"].wall_time == 1e9 + 20  # when the runs ended: the same bytes each time


def test_settings_whose_names_begin_alike_are_told_apart() -> None:
    common = "train_period=4 eval.period=2000 compile=false"
    names = [f"{common} target_update=hard", f"{common} target_update=soft", f"{common} target_update=soft lr=0.1"]
    found = labels(names)
    assert [text.split() for text in found] == [name.split() for name in names], "in one order, on several lines"
    assert max(len(line) for text in found for line in text.split("\n")) <= 44
    assert labels(["a=1 b=2", "a=1 b=3"]) == ["a=1 b=2", "a=1 b=3"]


def test_names_that_are_too_long_lose_what_they_share_or_are_numbered() -> None:
    common = " ".join(f"key_{number}=a_long_value" for number in range(10))
    assert labels([f"{common} lr={rate}" for rate in (1, 2)]) == ["lr=1", "lr=2"]
    found = labels([f"{common[::step]} lr={rate}" for step in (1, -1) for rate in (1, 2)])
    assert len(set(found)) == 4 and [text[:3] for text in found] == ["#1 ", "#2 ", "#3 ", "#4 "]
    assert all(text.count("\n") == 2 and max(map(len, text.split("\n"))) <= 44 for text in found)


def test_curves_that_are_tied_show_beside_each_other(tmp_path: Path) -> None:
    """Of three settings that end at 500 the second and the third, which the best hides, are wider there alone;
    a fourth meets the third in one point."""
    ends = {0.9: (10, 500, 500, 500), 0.8: (5, 500, 500, 500), 0.7: (0, 400, 500, 500), 0.6: (0, 100, 200, 200)}
    for number, (gamma, returns) in enumerate(ends.items()):
        rows = [row(300 * place, None, float(value)) for place, value in enumerate(returns)]
        write_run(tmp_path / str(number), rows, final=result(float(returns[-1] - number), 900), algo__gamma=gamma)
    contents = read_contents([tmp_path], ["x"])
    with styled():
        (panel,) = curves(contents, "eval/episode_return").axes
    wide = {line.get_color(): line for line in panel.lines if line.get_linewidth() > 2}
    assert list(wide) == [PALETTE[1], PALETTE[2]]
    second, third = wide.values()
    assert third.get_linewidth() > second.get_linewidth() and third.get_zorder() < second.get_zorder() < 3
    assert [np.isnan(np.asarray(line.get_ydata(), float)).tolist() for line in (second, third)] == [
        [True, False, False, False], [True, True, False, False],
    ]  # fmt: skip


def test_each_setting_has_one_name_in_all_figures(tmp_path: Path) -> None:
    pairs = {"algo__gamma": (0.123456, 0.234567), "total_steps": (123456, 234567), "num_envs": (123456, 234567)}
    contents = swept(tmp_path, [dict(zip(pairs, values, strict=True)) for values in product(*pairs.values())])
    rows = [text.get_text() for text in final_scores(contents).axes[0].get_yticklabels()]
    (legend,) = curves(contents, contents.main).legends
    assert [text.split() for text in rows] == [variant.split() for variant in contents.variants]
    assert len(set(rows)) == 8 and [text.get_text() for text in legend.get_texts()][:7] == rows[:7]
    assert [text.get_text() for text in chances(contents).axes[0].get_yticklabels()] == rows[1:]
