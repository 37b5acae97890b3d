"""Numbers of a setting, computed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written_runs import RECORD, result, row, write_run, write_sweep

from rltrain.report.contents import Contents, read_contents
from rltrain.report.drawings import drawings
from rltrain.report.figures import curves
from rltrain.report.notes import notes
from rltrain.report.runs import EVALUATION, OVERESTIMATION, TRAINING
from rltrain.report.summary import Curve, Summary, curve


def contents(*places: Path, metric: str | None = None) -> Contents:
    return read_contents(places, [place.name for place in places], metric)


def one(place: Path) -> Summary:
    (summary,) = contents(place).summaries
    return summary


def line(place: Path, tag: str = TRAINING) -> Curve:
    return one(place).curves[tag]


def flat(last: int, value: float) -> list[dict[str, Any]]:
    """Rows of a run whose returns are always `value`."""
    return [row(step, value, value) for step in range(100, last + 1, 100)]


def test_a_legend_names_what_is_drawn(tmp_path: Path) -> None:
    write_run(tmp_path / "a", flat(1000, 1.0), final=result(1.0), algo__gamma=0.9)
    write_run(tmp_path / "b", [row(100)], status="interrupted", algo__gamma=0.8)  # no episode has ended
    (legend,) = curves(contents(tmp_path), TRAINING).legends
    assert [text.get_text() for text in legend.get_texts()] == ["gamma=0.9", "threshold"]


def test_scores_of_four_seeds(tmp_path: Path) -> None:
    finals = [
        result(500.0, solve_step=400), result(100.0), result(480.0), result(300.0, solve_step=800),
    ]  # fmt: skip
    for seed, final in enumerate(finals):
        write_run(tmp_path / str(seed), final=final, seed=seed)
    found = one(tmp_path)
    assert found.scores.tolist() == [500, 100, 480, 300]
    assert found.score is not None and found.score.value == pytest.approx(390)  # of 300 and 480
    assert (
        found.score.low is not None
        and found.score.high is not None
        and 100 <= found.score.low < found.score.high <= 500
    )
    assert found.std == pytest.approx(np.sqrt((155**2 + 245**2 + 135**2 + 45**2) / 3))
    assert (found.solved, found.lost, found.judged) == (2, 1, 4)
    assert found.solve_step == 900  # of 400, never, 1000 (the last network alone), 800: between 800 and 1000
    assert found.train_seconds == pytest.approx(10.0) and found.speed == pytest.approx(100.0)


def test_a_setting_that_few_seeds_solve_has_no_solve_step(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(
            tmp_path / str(seed),
            final=result(500.0 if seed == 0 else 1.0, solve_step=400 if seed == 0 else None),
            seed=seed,
        )
    assert one(tmp_path).solve_step is None


def test_two_seeds_have_no_interval(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / str(seed), final=result(10.0 * seed), seed=seed)
    found = one(tmp_path)
    assert found.score is not None and (found.score.value, found.score.low, found.score.high) == (5.0, None, None)
    assert np.isnan(line(tmp_path).low).all() and line(tmp_path).iqm[-1] == 5.0
    assert notes(contents(tmp_path)) == ["2 scored seeds: an interval needs 3."]


def test_a_note_says_why_a_setting_has_no_area(tmp_path: Path) -> None:
    write_run(tmp_path / "a", flat(1000, 1.0), final=result(1.0), algo__gamma=0.9)
    write_run(tmp_path / "b", [row(1000)], final=result(1.0), algo__gamma=0.8)  # no episode has ended
    found = contents(tmp_path)
    assert sum(summary.area is None for summary in found.summaries) == 1
    told = "1 setting has no area: none of its rows has rollout/episode_return, which needs an episode that ended."
    assert told in notes(found)
    write_run(tmp_path / "c", [row(1000)], status="interrupted", algo__gamma=0.7)  # which has no final return either
    assert told in notes(contents(tmp_path))


def test_the_curve_of_equal_grids_keeps_their_steps(tmp_path: Path) -> None:
    for seed, value in enumerate((0.0, 10.0, 20.0, 90.0)):
        write_run(tmp_path / str(seed), flat(500, value), result(value, 500), seed=seed)
    found = line(tmp_path)
    assert found.steps.tolist() == [100, 200, 300, 400, 500]
    assert found.iqm == pytest.approx([15.0] * 5) and found.mean == pytest.approx([30.0] * 5)
    assert found.runs.tolist() == [4] * 5
    assert (found.low < found.iqm).all() and (found.iqm < found.high).all()


def test_unequal_grids_are_interpolated(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [row(100, 0.0), row(300, 20.0)], result(1.0, 300), seed=0)
    write_run(tmp_path / "b", [row(150, 10.0), row(200, 10.0)], result(1.0, 300), seed=1)
    found = line(tmp_path)
    assert found.steps.tolist() == [100, 150, 200, 300]
    assert found.mean == pytest.approx([0.0, 7.5, 10.0, 15.0])  # the last value holds until the run's end
    assert found.runs.tolist() == [1, 2, 2, 2]


def test_long_runs_are_means_over_cells(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [row(step, float(step)) for step in range(1, 1002)], result(1.0, 1001), seed=0)
    found = line(tmp_path)
    assert len(found.steps) == 100 and found.steps[[0, -1]].tolist() == [11.0, 1001.0]
    assert found.mean == pytest.approx(found.steps - 5.0)


def test_a_run_that_failed_leaves_the_curve_where_it_ended(tmp_path: Path) -> None:
    for seed, last in enumerate((500, 500, 500)):
        write_run(tmp_path / str(seed), flat(last, 10.0), result(10.0, last), seed=seed)
    write_run(tmp_path / "failed", flat(300, 50.0), status="failed", seed=9)
    found = line(tmp_path)
    assert found.runs.tolist() == [4, 4, 4, 3, 3]
    assert found.mean == pytest.approx([20, 20, 20, 10, 10])
    assert one(tmp_path).scores.tolist() == [10.0] * 3
    assert any("failed" in note and "1 run of 4" in note for note in notes(contents(tmp_path)))


def test_a_run_that_reached_its_goal_keeps_its_value(tmp_path: Path) -> None:
    write_run(tmp_path / "a", flat(500, 10.0), result(10.0, 500), seed=0, stop_at_return=99, total_steps=500)
    write_run(tmp_path / "b", flat(200, 100.0), result(98.0, 200), seed=1, stop_at_return=99, total_steps=500)
    found = contents(tmp_path)
    assert line(tmp_path).runs.tolist() == [2] * 5 and line(tmp_path).mean == pytest.approx([55.0] * 5)
    # Greedy: what its last network reached in new episodes, from its end on.
    assert line(tmp_path, EVALUATION).mean == pytest.approx([55.0, 54.0, 54.0, 54.0, 54.0])
    assert any("stop_at_return was reached" in note for note in notes(found))
    area = found.summaries[0].area
    assert area is not None and area.value == pytest.approx((10.0 + (100 * 100 + 99 * 100 + 98 * 300) / 500) / 2)


def test_the_limit_that_ended_a_run_is_read_where_it_is_told(tmp_path: Path) -> None:
    """Guesses are for folders of before: the final mean is of other episodes than those that ended a run."""
    goal, more = {"stop_at_return": 99, "total_steps": 500}, {"total_episodes": 50}
    by_goal, by_episodes = (
        {**result(mean, 200), "ended_by": key} for mean, key in ((98.0, "stop_at_return"), (100.0, "total_episodes"))
    )
    write_run(tmp_path / "a", flat(200, 100.0), by_goal, seed=0, **goal, **more)
    write_run(tmp_path / "b", flat(200, 100.0), by_episodes, seed=1, **goal, **more)
    assert [run.stopped_at_goal for run in contents(tmp_path).runs] == [True, False]


def test_the_area_is_the_mean_over_all_steps(tmp_path: Path) -> None:
    # Each row counts for the hundred steps before it: the mean of 100, 200, ..., 1000.
    write_run(tmp_path / "a", [row(s, float(s)) for s in range(100, 1001, 100)], result(1.0, 1000))
    area = one(tmp_path).area
    assert area is not None and area.value == pytest.approx(550.0)


def test_the_area_does_not_depend_on_how_often_is_logged(tmp_path: Path) -> None:
    """Two runs whose return is the step: their rows are the means of 100 and of 500 steps."""
    for seed, period in enumerate((100, 500)):
        rows = [row(step, step - period / 2) for step in range(period, 1001, period)]
        write_run(tmp_path / str(seed), rows, result(1.0, 1000), seed=seed, log_period=period)
    area = one(tmp_path).area
    assert area is not None and area.value == pytest.approx(500.0) and area.low is None


def test_a_run_without_some_of_its_rows_has_no_area(tmp_path: Path) -> None:
    write_run(tmp_path / "0", [row(800, 1.0), row(900, 1.0), row(1000, 1.0)], result(1.0))
    assert one(tmp_path).area is None


def test_areas_end_where_the_shortest_completed_run_does(tmp_path: Path) -> None:
    write_run(tmp_path / "a", flat(1000, 1.0), result(1.0, 1000), seed=0)
    write_run(tmp_path / "b", flat(400, 2.0), result(1.0, 400), seed=1, total_steps=400)
    write_run(tmp_path / "c", flat(100, 2.0), status="interrupted", seed=2)
    found = contents(tmp_path)
    assert {summary.horizon for summary in found.summaries} == {400}


def test_the_best_is_first_in_each_environment(tmp_path: Path) -> None:
    for env, scores in (("A", (1.0, 5.0)), ("B", (70.0, 80.0))):
        for gamma, score in zip((0.1, 0.2), scores, strict=True):
            for seed in range(3):
                changes = {"env__id": env, "algo__gamma": gamma, "seed": seed}
                write_run(tmp_path / f"{env}{gamma}{seed}", final=result(score + seed, threshold=100.0), **changes)
    found = contents(tmp_path)
    assert [(s.setting.env, s.setting.variant) for s in found.summaries] == [
        ("A", "gamma=0.2"), ("A", "gamma=0.1"), ("B", "gamma=0.2"), ("B", "gamma=0.1"),
    ]  # fmt: skip
    assert found.variants == ("gamma=0.2", "gamma=0.1")
    (improvement,) = found.improvements
    assert (improvement.better, improvement.probability, improvement.low) == ("gamma=0.2", 1.0, 1.0)
    assert found.aggregate is not None
    # 0 is the mean first training return, a tenth of the final one; 1 is the threshold.
    zero = np.mean([1, 2, 3, 5, 6, 7]) / 10
    assert found.aggregate.scales["A"] == (pytest.approx(zero), 100.0)
    assert found.aggregate.variants["gamma=0.2"].value == pytest.approx(
        np.mean(sorted((score - z) / (100 - z) for score, z in [
            *((s, zero) for s in (5, 6, 7)), *((s, np.mean([70, 71, 72, 80, 81, 82]) / 10) for s in (80, 81, 82)),
        ])[1:-1])
    )  # fmt: skip


def test_a_setting_that_fails_on_an_environment_is_the_last_there(tmp_path: Path) -> None:
    """It was ranked by the others alone, so it came first, better with a probability of 1."""
    returns = {("A", 0.1): 90.0, ("A", 0.2): 80.0, ("A", 0.3): 10.0, ("B", 0.2): 80.0, ("B", 0.3): 10.0}
    for env in "AB":
        for gamma in (0.1, 0.2, 0.3):
            for seed in range(2):
                changes = {"env__id": env, "algo__gamma": gamma, "seed": seed}
                if (env, gamma) in returns:
                    write_run(tmp_path / f"{env}{gamma}{seed}", final=result(returns[env, gamma] + seed), **changes)
                else:
                    write_run(tmp_path / f"{env}{gamma}{seed}", [row(100)], status="failed", **changes)
    found = contents(tmp_path)
    assert found.variants == ("gamma=0.2", "gamma=0.1", "gamma=0.3")
    against = {i.other: (i.probability, i.compared, i.envs) for i in found.improvements}
    assert against == {"gamma=0.1": (0.0, 1, 2), "gamma=0.3": (1.0, 2, 2)}
    (caption,) = [drawing.caption for drawing in drawings(found) if drawing.name == "probability_of_improvement"]
    assert "in which only one of both has scores are left out" in caption


def test_of_settings_that_are_level_the_larger_aggregate_is_first(tmp_path: Path) -> None:
    for env, scores in (("A", (51.0, 50.0)), ("B", (30.0, 90.0))):
        for gamma, score in zip((0.1, 0.2), scores, strict=True):
            for seed in range(3):
                changes = {"env__id": env, "algo__gamma": gamma, "seed": seed}
                write_run(tmp_path / f"{env}{gamma}{seed}", final=result(score + seed, threshold=100.0), **changes)
    assert contents(tmp_path).variants == ("gamma=0.2", "gamma=0.1")


def test_a_trial_that_was_given_up_has_no_score(tmp_path: Path) -> None:
    write_run(tmp_path / "a", final=result(9.0), seed=0)
    write_run(tmp_path / "b", [row(100, 1.0, 1.0)], status="pruned", seed=1)
    assert one(tmp_path).score is None and one(tmp_path).scores.tolist() == []


def test_one_environment_has_no_aggregate_and_one_setting_no_improvement(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / str(seed), final=result(1.0 + seed), seed=seed)
    found = contents(tmp_path)
    assert found.aggregate is None and found.improvements == ()
    assert not any("picked" in note for note in notes(found))


def test_titles_name_the_algorithm_that_all_have(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / str(seed), flat(300, 1.0), result(1.0, 300), seed=seed)
    algo, env = (one(tmp_path).setting.runs[0].config[key] for key in ("algo.name", "env.id"))
    assert contents(tmp_path).title(env) == f"{algo} on {env}, 3 seeds"
    write_run(tmp_path / "other", flat(300, 1.0), result(1.0, 300), algo__name="c51")
    assert contents(tmp_path).title(env) == env and contents(tmp_path).algo == ""


def test_any_metric_has_curves(tmp_path: Path) -> None:
    rows = [{"step": 100 * i, "train/td_loss": float(i)} for i in (1, 2)]
    write_run(tmp_path / "a", rows, result(1.0, 200))
    found = contents(tmp_path, metric="train/td_loss")
    assert found.tags == ("train/td_loss",) and found.main == "train/td_loss"
    assert found.summaries[0].curves["train/td_loss"].mean.tolist() == [1.0, 2.0]


def test_overestimation_is_the_value_less_what_was_got(tmp_path: Path) -> None:
    for seed in range(3):
        rows = [
            {"step": 100 * i, "diagnostics/value": 10.0 * i + seed, "diagnostics/discounted_return": 4.0, TRAINING: 1.0}
            for i in (1, 2)
        ]
        write_run(tmp_path / str(seed), rows, result(1.0, 200), seed=seed)
    found = contents(tmp_path)
    assert found.diagnostics == (OVERESTIMATION,) and OVERESTIMATION not in found.tags
    assert found.summaries[0].curves[OVERESTIMATION].iqm.tolist() == [7.0, 17.0]
    drawing = next(drawing for drawing in drawings(found) if drawing.name == "diagnostics")
    assert [panel.get_title() for panel in drawing.make().axes] == ["overestimation"]


def test_training_returns_are_the_metric_where_evaluations_are_missing(tmp_path: Path) -> None:
    write_run(tmp_path / "a", flat(300, 1.0), result(1.0, 300), seed=0)
    assert contents(tmp_path).main == EVALUATION
    write_run(tmp_path / "b", [row(100, 1.0), row(200, 1.0, 1.0)], result(1.0, 300), seed=1)
    assert contents(tmp_path).main == TRAINING


def test_a_run_that_reached_its_goal_at_once_takes_nothing_from_the_curves(tmp_path: Path) -> None:
    write_run(tmp_path / "a", flat(300, 1.0), result(1.0, 300), seed=0)
    goal = {**result(9.0, 100), "ended_by": "stop_at_return"}
    write_run(tmp_path / "b", [row(100, 9.0, 9.0)], goal, seed=1, stop_at_return=9.0)
    assert contents(tmp_path).main == EVALUATION


def test_jobs_that_have_not_begun_are_told(tmp_path: Path) -> None:
    jobs: dict[str, Any] = {str(n): ([f"seed={n}"], {"seed": n}, 5.0 if n < 3 else None) for n in range(5)}
    found = contents(write_sweep(tmp_path / "sweep", jobs))
    assert len(found.summaries[0].setting.runs) == 5 and found.summaries[0].scores.tolist() == [5.0] * 3
    assert [(found.name(run), run.state) for run in found.unfinished] == [("3", "not begun"), ("4", "not begun")]


def test_returns_that_are_not_finite_are_told(tmp_path: Path) -> None:
    rows = [row(100, 1.0, 1.0), {"step": 200, TRAINING: None}, {"step": 300, TRAINING: float("nan")}]
    write_run(tmp_path / "a", rows, result(1.0, 300))
    assert any("not finite" in note and note.endswith(": a.") for note in notes(contents(tmp_path)))


def test_runs_that_were_not_made_alike_are_told(tmp_path: Path) -> None:
    for seed in range(3):
        run = write_run(tmp_path / str(seed), final=result(1.0), seed=seed)
        assert not any("several" in note for note in notes(contents(tmp_path)))
    (run / "run.json").write_text(json.dumps({"status": "completed", **RECORD, "device": "cuda:0"}))
    assert [note for note in notes(contents(tmp_path)) if "several" in note] == [
        "Runs were made with several devices, so that their speeds cannot be compared: cpu (2 runs); cuda:0 (1 run)."
    ]
    (run / "run.json").write_text(json.dumps({"status": "completed", **RECORD, "versions": {"torch": "3"}}))
    assert any("several versions" in note and "torch 3 (1 run)" in note for note in notes(contents(tmp_path)))


def test_runs_that_repeat_a_seed_are_told(tmp_path: Path) -> None:
    for name in "abc":
        write_run(tmp_path / name, final=result(1.0), seed=3)
        told = [note for note in notes(contents(tmp_path)) if "repeat" in note]
        assert (
            told[:1]
            == {
                "a": [],
                "b": ["1 run repeats a seed of its setting and does not count: b."],
                "c": ["2 runs repeat seeds of their settings and do not count: b, c."],
            }[name]
        )


def test_nothing_at_all_can_be_summarized(tmp_path: Path) -> None:
    write_run(tmp_path / "a", status="failed")
    found = contents(tmp_path)
    assert (found.tags, found.summaries[0].score, found.summaries[0].area) == ((), None, None)


def test_a_curve_needs_a_series() -> None:
    assert curve([], TRAINING) is None
