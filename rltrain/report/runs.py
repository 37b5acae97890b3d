"""Runs of a report, as their folders, which may be untrusted, tell of them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rltrain.config.plain import leaves, show
from rltrain.config.stored import ADDED_KEYS, earlier_totals
from rltrain.errors import RequestError
from rltrain.report.records import before_resume, longest_gap, reason_of, seconds_of, typed_of, used, versions_of
from rltrain.report.series import Metrics, Series, read_metrics
from rltrain.storage.checkpoint_folders import has_checkpoint, newest_step
from rltrain.storage.files import holder_of
from rltrain.storage.run_folder import RunFolder
from rltrain.storage.run_result import RunResult, read_result, read_status
from rltrain.storage.study_folder import CONFIRMATION, is_study
from rltrain.storage.sweep_folder import SweepFolder, is_sweep
from rltrain.terminal.shell import shown_path
from rltrain.training.outcome import Outcome, outcome

TRAINING, EVALUATION = "rollout/episode_return", "eval/episode_return"
OVERESTIMATION = "diagnostics/overestimation"
"""The value of first states less the discounted return, which the rows of a run have one by one."""
_VALUE, _DISCOUNTED = "diagnostics/value", "diagnostics/discounted_return"
STUDY, SEARCHED, CONFIRMED = "study", "search", "confirmation"
"""In the config of a study's run, beside its keys: the search has chosen among settings by the scores of some seeds;
the fresh ones of the confirmation are no replicates of those."""
DIAGNOSTICS = (
    OVERESTIMATION, "diagnostics/dormant_units", "diagnostics/target_distance", "diagnostics/replay_age",
    "diagnostics/priority_share", "diagnostics/visited_entries", "train/entropy", "train/approx_kl",
    "train/clip_fraction", "train/explained_variance",
)  # fmt: skip
"""Metrics that tell why learning fails."""


@dataclass(frozen=True)
class Run:
    """A run.

    Attributes:
        folder: absolute.
        origin: the number of the folder that was asked for, in which it lies.
        typed: the overrides that it was given.
        config: dotted key -> value, as stored; empty where it cannot be read.
        state: completed, running, killed, interrupted, failed, not begun, or whatever run.json says.
        reason: why it is not completed, where the run has told it.
        faults: which of its files are damaged, and how.
        result: None for a run that is not completed.
        wall_seconds: from its last beginning to its end.
        ended: in seconds since 1970.
        totals: the `total_steps` over which its learning rate fell before it was resumed with others.
        before: the keys that `resume` has changed, with their values before.
        used: keys of which `auto`, or another value, came to the same as one that could have been typed -> that one.
    """

    folder: Path
    origin: int
    typed: tuple[str, ...]
    config: Mapping[str, Any]
    state: str
    reason: str = ""
    faults: tuple[str, ...] = ()
    metrics: Metrics = field(default_factory=lambda: Metrics({}, None, None))
    result: RunResult | None = None
    wall_seconds: float | None = None
    ended: float | None = None
    device: str = ""
    versions: str = ""
    totals: tuple[int, ...] = ()
    before: Mapping[str, Any] = field(default_factory=dict)
    used: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def env(self) -> str:
        """The environment's id; empty where the config has none."""
        return show(self.config.get("env.id", ""))

    @property
    def seed(self) -> int | None:
        """None where the config has no whole number."""
        seed = self.config.get("seed")
        return seed if type(seed) is int else None

    @property
    def why(self) -> str:
        """`reason` and `faults` in one line."""
        return "; ".join(filter(None, (self.reason, *self.faults)))

    @property
    def score(self) -> float | None:
        """The mean greedy return of its last network."""
        return None if self.result is None else self.result.returns["mean"]

    @property
    def steps(self) -> int | None:
        """Environment steps made, as far as rows or checkpoints tell; None where neither does."""
        if self.result is not None:
            return self.result.env_step
        return max(self.metrics.last_step or 0, newest_step(self.folder)) or None

    @property
    def outcome(self) -> Outcome | None:
        """None without a result."""
        result = self.result
        return None if result is None else outcome(result.returns["mean"], result.threshold, result.solve_step)

    @property
    def stopped_at_goal(self) -> bool:
        """Whether reaching `stop_at_return` has ended it, before its steps or episodes were used up."""
        goal, total, episodes = (self.config.get(key) for key in ("stop_at_return", "total_steps", "total_episodes"))
        if self.result is not None and self.result.ended_by is not None:
            return self.result.ended_by == "stop_at_return"
        if self.result is None or not isinstance(goal, int | float) or not isinstance(total, int | float):
            return False
        return self.result.env_step < total and (episodes is None or self.result.returns["mean"] >= goal)

    def series(self, tag: str) -> Series | None:
        """A logged metric by its tag, or one that is computed from others; None where it was not logged."""
        if tag != OVERESTIMATION:
            return self.metrics.series.get(tag)
        value, got = self.metrics.series.get(_VALUE), self.metrics.series.get(_DISCOUNTED)
        if value is None or got is None or not np.array_equal(value.steps, got.steps):
            return None
        return Series(value.steps, value.values - got.values)


class Found(NamedTuple):
    """A run's folder, and what the list of its sweep tells of it: overrides, config; `fault`: what is wrong with it;
    `part`: of a study, to which its run belongs."""

    folder: Path
    typed: tuple[str, ...] = ()
    config: Mapping[str, Any] | None = None
    fault: str = ""
    part: str = ""


def find_runs(place: Path) -> list[Found]:
    """The runs in a folder: of a run, of a sweep, or of any number of both.

    Raises:
        RequestError: it holds no run.
    """
    if _is_run(place):
        return [Found(place)]
    found: dict[Path, Found] = {}
    for folder in _folders(place):
        if is_sweep(folder):
            for run in _jobs(SweepFolder(folder)):
                found.setdefault(run.folder, run)
        elif _is_run(folder):
            found.setdefault(folder, Found(folder))
    if not found:
        raise RequestError(f"{shown_path(place)}: holds no run")
    return list(found.values())


def _is_run(place: Path) -> bool:
    return (place / "run.json").is_file() or has_checkpoint(place)  # which may have lost its record


def _jobs(sweep: SweepFolder) -> list[Found]:
    """The jobs of a sweep. Where its list is damaged those that have begun, the first of which tells the fault."""
    part = ""
    if is_study(sweep.path.parent):
        part = CONFIRMED if sweep.path.name.startswith(CONFIRMATION) else SEARCHED
    try:
        jobs = sweep.jobs().values()
        return [Found(job.folder, job.overrides or (), job.config, part=part) for job in jobs]
    except RequestError as error:
        fault = f"{_fault(error, sweep.path)} (the list of its sweep's jobs: those that have not begun are unknown)"
        return [Found(folder, fault="" if number else fault, part=part) for number, folder in enumerate(sweep.begun())]


def _folders(place: Path) -> Iterator[Path]:
    """`place` and the folders below it in which runs and sweeps may lie; links are not followed."""
    for name, inner, _ in os.walk(place):
        runs = (folder for folder in inner if folder != "checkpoints" and not folder.startswith("."))
        inner[:] = sorted(runs, key=lambda folder: folder.zfill(9) if folder.isdecimal() else folder)  # 2 before 10
        yield Path(name)


def read_runs(places: Sequence[Path], tags: Collection[str]) -> list[Run]:
    """The runs in these folders, with the series of `tags` and the diagnostics. A run says what of it is damaged.

    Raises:
        RequestError: one holds no run.
    """
    seen: set[Path] = set()
    tags = tuple(dict.fromkeys([*tags, _VALUE, _DISCOUNTED, *DIAGNOSTICS]))
    runs = []
    for origin, asked in enumerate(places):
        for found in find_runs(asked):
            if (place := found.folder.resolve()) not in seen:  # two links may lead to one run
                seen.add(place)
                runs.append(read_run(found, tags, origin))
    return runs


def read_run(found: Found, tags: Collection[str], origin: int = 0) -> Run:
    """One run, found in the place of that number."""
    folder, typed, listed, fault, part = found
    run = RunFolder(folder)
    faults = [fault] if fault else []
    record: Mapping[str, Any] = {}
    config: Mapping[str, Any] = {}
    try:
        record = run.read_record() if run.record.exists() else {}
    except RequestError as error:
        faults.append(_fault(error, folder))
    try:
        # A list of jobs reads faster, but does not know what `resume` has changed in one job.
        config = _flat(listed if listed is not None and "changes" not in record else run.read_config())
    except RequestError as error:
        faults.append(_fault(error, folder))
    except RecursionError:
        faults.append(f"{run.config.name}: is nested too deeply")
    if part and config:
        config = {**config, STUDY: part}
    state = read_status(run)
    if not run.record.exists() and state != "not begun":
        faults.append(f"{run.record.name}: is missing")
    elif state == "unknown" and not faults:
        faults.append(f"{run.record.name}: tells no status")
    if state == "running" and not holder_of(folder):
        state = "killed"
    metrics = Metrics({}, None, None)
    result = read_result(run) if state == "completed" else None
    try:
        if state != "not begun":
            end = None if result is None else result.env_step
            metrics = read_metrics(run.metrics, tags, longest_gap(config, record), end)
    except OSError as error:
        faults.append(f"{run.metrics.name}: cannot be read: {error.strerror}")
    if metrics.faults:
        faults.append(f"{run.metrics.name}: {', '.join(metrics.faults)}")
    if state == "completed" and result is None:
        faults.append(f"{run.result.name}: {'holds no result' if run.result.exists() else 'is missing'}")
    seconds, started = seconds_of(record.get("seconds")), seconds_of(record.get("started"))
    return Run(
        folder, origin, (*typed, *typed_of(record)), config, state, reason_of(record), tuple(faults), metrics, result,
        wall_seconds=seconds, ended=None if seconds is None or started is None else started + seconds,
        device=str(record.get("device", "")), versions=versions_of(record),
        totals=earlier_totals(record, config.get("algo.anneal_lr")), before=before_resume(record),
        used=used(record),
    )  # fmt: skip


def _fault(error: RequestError, folder: Path) -> str:
    return str(error).replace(f"{folder}/", "").replace(f"{shown_path(folder)}/", "")


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value, None where it is null; with the keys that earlier versions did not store."""
    flat = leaves(config)
    for key, value in ADDED_KEYS.items():
        flat.setdefault(key, value)
    return {key: value for key, value in flat.items() if value != {}}
