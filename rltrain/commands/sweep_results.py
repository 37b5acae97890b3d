"""Results of a sweep's jobs, and the means over the seeds of each setting."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from rltrain.config.idle import idle_keys
from rltrain.config.override_text import key_of, own_overrides
from rltrain.config.plain import at, leaves, show
from rltrain.config.stored import changed_totals, changes_of, earlier_totals
from rltrain.errors import RequestError
from rltrain.storage.run_folder import RunFolder
from rltrain.storage.run_result import RunResult, read_result, read_status
from rltrain.storage.sweep_folder import ListedJob
from rltrain.training.outcome import Outcome, outcome


@dataclass(frozen=True)
class JobResult:
    """A job, and what its last network reached.

    Attributes:
        own: the overrides that not all jobs have.
        env: the environment's id.
        status: that of run.json, or "not begun".
        result: None unless the job is completed.
    """

    folder: str
    own: tuple[str, ...]
    env: str
    seed: int | None
    status: str
    result: RunResult | None = None

    @property
    def setting(self) -> tuple[str, ...]:
        """The settings it shares with the jobs that differ from it in their seed alone."""
        return tuple(override for override in self.own if key_of(override) != "seed")

    @property
    def mean(self) -> float:
        """Its greedy return, minus infinity where there is none: by which jobs are ordered."""
        return -math.inf if self.result is None else self.result.returns["mean"]

    @property
    def outcome(self) -> Outcome | None:
        """None without a result, or where the environment has no threshold."""
        result = self.result
        return None if result is None else outcome(self.mean, result.threshold, result.solve_step)


@dataclass(frozen=True)
class SettingResult:
    """Jobs that differ in their seeds alone. Of two jobs with the same seed, the first that has a result counts.

    Attributes:
        jobs: one of each seed that has a result.
        seeds: how many seeds there are, with those that have none: failed or not ended.
    """

    overrides: tuple[str, ...]
    env: str
    jobs: tuple[JobResult, ...]
    seeds: int

    @property
    def mean(self) -> float:
        """Of the seeds' greedy returns; minus infinity where there is none."""
        return fmean(job.mean for job in self.jobs) if self.jobs else -math.inf

    @property
    def std(self) -> float | None:
        """The sample's, over the seeds' means; None for one seed."""
        return stdev(job.mean for job in self.jobs) if len(self.jobs) > 1 else None

    @property
    def env_step(self) -> float | None:
        """The mean number of environment steps."""
        return fmean(job.result.env_step if job.result else 0 for job in self.jobs) if self.jobs else None

    def count(self, what: Outcome) -> int:
        """Jobs with this outcome."""
        return sum(job.outcome == what for job in self.jobs)


def job_results(jobs: Sequence[ListedJob]) -> list[JobResult]:
    """The result of each job, in the order of the jobs."""
    configs = [_config(job) for job in jobs]
    given: list[Sequence[str]] = [job.overrides for job in jobs if job.overrides is not None]
    if len(given) < len(jobs):
        given = [[f"{key}={show(value)}" for key, value in leaves(config).items()] for config in configs]
    own = _as_extended(own_overrides(given), jobs, configs)
    results = []
    for job, config, overrides in zip(jobs, configs, own, strict=True):
        run = RunFolder(job.folder)
        status, seed = read_status(run), config.get("seed")
        results.append(
            JobResult(
                folder=job.folder.name,
                own=tuple(overrides),
                env=str(at(config, ["env", "id"]) or ""),
                seed=seed if type(seed) is int else None,
                status=status,
                result=read_result(run) if status == "completed" else None,
            )
        )
    return results


def _as_extended(
    own: Sequence[Sequence[str]], jobs: Sequence[ListedJob], configs: Sequence[Mapping[str, Any]]
) -> list[list[str]]:
    """The overrides of each job, with the limits that `resume` has set for it alone, and what its `total_steps` were
    before where else two jobs would seem to be one run."""
    records = [_record(job) for job in jobs]
    lines = []
    for overrides, record, config in zip(own, records, configs, strict=True):
        last, listed = [after for _, after in changed_totals(record)][-1:], at(config, ["total_steps"])
        alone = [f"total_steps={after}" for after in last if type(listed) is int and after > listed]
        alone += [f"{key}={show(value)}" for key, value in _ends_set_alone(record, config).items()]
        keys = {key_of(override) for override in alone}
        lines.append([*(o for o in overrides if key_of(o) not in keys), *alone])
    histories: dict[tuple[str, ...], set[tuple[int, ...]]] = {}
    totals = [earlier_totals(r, at(c, ["algo", "anneal_lr"])) for r, c in zip(records, configs, strict=True)]
    for line, before in zip(lines, totals, strict=True):
        histories.setdefault(tuple(line), set()).add(before)
    return [
        [*line, f"total_steps.before={','.join(map(str, before))}"]
        if before and len(histories[tuple(line)]) > 1
        else line
        for line, before in zip(lines, totals, strict=True)
    ]


def _ends_set_alone(record: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Other limits that can end a run, where they are no longer those of its sweep; run.json may be untrusted."""
    last: dict[str, Any] = {}
    for entry in changes_of(record):
        key, value = entry.get("key"), entry.get("to")
        if key in ("total_episodes", "stop_at_return") and isinstance(value, int | float | None):
            last[key] = value
    return {key: value for key, value in last.items() if value != config.get(key)}


def setting_results(jobs: Sequence[JobResult]) -> list[SettingResult]:
    """The settings of a sweep, in the order of their first jobs; none where no setting has several seeds."""
    found: dict[tuple[str, ...], list[JobResult]] = {}
    for job in jobs:
        found.setdefault(job.setting, []).append(job)
    if all(len({job.seed for job in members}) == 1 for members in found.values()):
        return []
    settings = []
    for setting, members in found.items():
        by_seed: dict[int | None, JobResult] = {}
        for job in members:
            if job.result is not None:
                by_seed.setdefault(job.seed, job)
        settings.append(
            SettingResult(setting, members[0].env, tuple(by_seed.values()), len({job.seed for job in members}))
        )
    return settings


def repeated_jobs(configs: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The names of jobs whose configs are equal but for `name` and keys without effect: the same run, made twice."""
    alike: dict[str, list[str]] = {}
    for name, config in configs.items():
        apart = {"name", *idle_keys(config)}
        values = json.dumps({key: value for key, value in leaves(config).items() if key not in apart}, sort_keys=True)
        alike.setdefault(values, []).append(name)
    return [names for names in alike.values() if len(names) > 1]


def to_plain(jobs: Sequence[JobResult], settings: Sequence[SettingResult], notes: Sequence[str]) -> dict[str, Any]:
    """The content of sweep.json."""
    return {
        "jobs": [
            {
                "folder": job.folder,
                "overrides": list(job.own),
                "env": job.env,
                "seed": job.seed,
                "status": job.status,
                **_reached(job.result),
                "outcome": job.outcome,
            }
            for job in jobs
        ],
        "settings": [
            {
                "overrides": list(setting.overrides),
                "env": setting.env,
                "jobs": [job.folder for job in setting.jobs],
                "seeds": setting.seeds,
                "env_step": setting.env_step,
                "seed_mean": setting.mean if setting.jobs else None,
                "seed_std": setting.std,
                "solved": setting.count("solved"),
                "lost": setting.count("lost"),
            }
            for setting in settings
        ],
        "notes": list(notes),
    }


def _config(job: ListedJob) -> Mapping[str, Any]:
    if job.config is not None:
        return job.config
    try:
        return RunFolder(job.folder).read_config()
    except RequestError:
        return {}


def _record(job: ListedJob) -> Mapping[str, Any]:
    try:
        return RunFolder(job.folder).read_record()
    except RequestError:
        return {}


def _reached(result: RunResult | None) -> dict[str, Any]:
    if result is None:
        return dict.fromkeys(("env_step", "episodes", "episode_return", "solve_step"))
    return {
        "env_step": result.env_step,
        "episodes": result.episodes,
        **result.limited,
        "episode_return": dict(result.returns),
        "solve_step": result.solve_step,
    }
