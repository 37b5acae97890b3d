"""Tables of a report: plain data for JSON, and CSV files that pandas reads in one line."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from typing import Any

from rltrain import __version__
from rltrain.report.contents import Contents
from rltrain.report.groups import ENV, Setting, shown
from rltrain.report.notes import notes
from rltrain.report.runs import Run
from rltrain.report.statistics import CONFIDENCE, FEWEST_RUNS, RESAMPLES
from rltrain.report.summary import Estimate, Summary
from rltrain.terminal.text import harmless

Row = dict[str, Any]
_NULL = "null"


def to_plain(contents: Contents) -> dict[str, Any]:
    """The content of summary.json."""
    return {
        "rltrain": __version__,
        "folders": list(contents.origins),
        "metric": contents.main,
        "interval": {"confidence": CONFIDENCE, "resamples": RESAMPLES, "over": "runs", "fewest_runs": FEWEST_RUNS},
        "settings": [_setting_row(contents, summary) for summary in contents.summaries],
        "runs": run_rows(contents),
        "improvements": [vars(improvement) for improvement in contents.improvements],
        "aggregate": None
        if contents.aggregate is None
        else {
            "scales": {env: {"zero": zero, "one": one} for env, (zero, one) in contents.aggregate.scales.items()},
            "variants": {name: found.to_plain() for name, found in contents.aggregate.variants.items()},
        },
        "notes": notes(contents),
    }


def csv_files(contents: Contents) -> dict[str, str]:
    """File name -> text: a row for each run, for each setting, and for each point of a setting's curves. A key that is
    null has the word for it; the cell of one that the setting does not have is empty."""
    return {
        "runs.csv": _csv(run_rows(contents, _NULL)),
        "settings.csv": _csv([_setting_row(contents, summary, _NULL) for summary in contents.summaries]),
        "curves.csv": _csv(_curve_rows(contents)),
    }


def run_rows(contents: Contents, null: str | None = None) -> list[Row]:
    """A row for each run, in the order of the settings, and then those that are in none."""
    rows = []
    for setting in (summary.setting for summary in contents.summaries):
        rows += [_run_row(contents, run, setting, True, null) for run in setting.runs]
        rows += [_run_row(contents, run, setting, False, null) for run in setting.repeated]
    return rows + [_run_row(contents, run, None, False, null) for run in contents.groups.left_out]


def _run_row(contents: Contents, run: Run, setting: Setting | None, counts: bool, null: str | None) -> Row:
    result = run.result
    return {
        "run": contents.name(run),
        **_keys(contents, setting, null),
        "seed": run.seed,
        "state": run.state[:40],
        "counts": counts,
        "steps": run.steps,
        "score": run.score,
        "score_std": None if result is None else result.returns["std"],
        "episodes": None if result is None else result.episodes,
        "episodes_asked": None if result is None else result.asked,
        "episodes_cut": None if result is None else result.cut,
        "cut_at_step": result.cut_at if result is not None and result.cut else None,
        "threshold": None if result is None else result.threshold,
        "outcome": run.outcome,
        "solve_step": None if result is None else result.solve_step,
        "stopped_at_goal": run.stopped_at_goal,
        "train_seconds": run.metrics.train_seconds,
        "wall_seconds": run.wall_seconds,
        "steps_per_second": run.metrics.speed,
        "device": run.device[:40],
        "why": run.why[:300],
    }


def _setting_row(contents: Contents, summary: Summary, null: str | None = None) -> Row:
    return {
        **_keys(contents, summary.setting, null),
        "seeds": len(summary.setting.runs),
        "scored": len(summary.scores),
        **_estimate("score", summary.score),
        "score_mean": float(summary.scores.mean()) if len(summary.scores) else None,
        "score_std": summary.std,
        "solved": summary.solved,
        "lost": summary.lost,
        "judged": summary.judged,
        "solve_step": summary.solve_step,
        **_estimate("area", summary.area),
        "area_steps": summary.horizon,
        "area_metric": contents.main,
        "train_seconds": summary.train_seconds,
        "steps_per_second": summary.speed,
    }


def _curve_rows(contents: Contents) -> Iterable[Row]:
    for summary in contents.summaries:
        keys = _keys(contents, summary.setting, _NULL)
        for tag, line in summary.curves.items():
            columns = (line.steps, line.runs, line.iqm, line.mean, line.low, line.high)
            for step, runs, *values in zip(*(column.tolist() for column in columns), strict=True):
                names = ("iqm", "mean", "low", "high")
                yield {**keys, "metric": tag, "step": step, "runs": runs, **dict(zip(names, values, strict=True))}


def _keys(contents: Contents, setting: Setting | None, null: str | None) -> Row:
    """The environment and the keys that tell settings apart, as columns. `null`: a key that the setting has as null."""
    keys = [key for key in contents.groups.keys if key != ENV]
    if setting is None:
        return {"env": None, **dict.fromkeys(keys)}
    nulls = {key: null for key in keys if any(key in run.config for run in setting.runs)}
    values = {key: setting.values.get(key) for key in keys}
    return {"env": setting.env, **{k: nulls.get(k) if value is None else _value(value) for k, value in values.items()}}


def _value(value: Any) -> Any:
    number = isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
    return value if number else shown([value])[0]


def _estimate(name: str, found: Estimate | None) -> Row:
    plain = dict.fromkeys(("iqm", "low", "high")) if found is None else found.to_plain()
    return {f"{name}_{part}": value for part, value in plain.items()}


def _csv(rows: Iterable[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for number, row in enumerate(rows):
        if number == 0:
            writer.writerow(map(_cell, row))
        writer.writerow(map(_cell, row.values()))
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    return harmless(value) if isinstance(value, str) else value
