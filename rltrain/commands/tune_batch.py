"""Training of a study's jobs, as populations where they differ in numbers only, and what they reached."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rltrain.commands.resume_population import held_jobs, populations_of
from rltrain.config.schema import RunConfig
from rltrain.config.stored import validate_stored
from rltrain.errors import CheckpointError, Pruned, RequestError, RunFailed
from rltrain.storage.run_folder import RunFolder
from rltrain.storage.run_result import read_result, read_status
from rltrain.storage.study_folder import Trial, TrialResult
from rltrain.storage.sweep_folder import ListedJob

if TYPE_CHECKING:
    from rltrain.commands.tune_request import Plan
    from rltrain.jobs.training import Job
    from rltrain.storage.checkpoint import Checkpoint
    from rltrain.storage.study_folder import StudyFolder
    from rltrain.training.pruning import PruningRule, TrialPruning
    from rltrain.tuning.search import Search

_FAILED = ("failed", "unknown")
"""Status of a job whose training raised, and of a damaged one: these alone fail a trial."""
_NO_SPACE = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))


class Unfinished(RunFailed):
    """Jobs of a study have not ended, for a reason that is not theirs: it goes on where that is gone."""


def train_jobs(
    jobs: Mapping[Path, ListedJob], trials: Mapping[Path, int], limits: Mapping[int, float], names: Mapping[Path, str],
    kept: bool,
) -> None:  # fmt: skip
    """Trains to their ends the jobs that have none yet, from their checkpoints where they have some. Each leaves in its
    folder how it ended; a job that fails stops no other but the further seeds of its trial, where these wait for it.

    Args:
        trials: the trial of each job; the jobs of a trial follow each other.
        limits: see `PruningRule`.
        names: what a job is called on the terminal.
        kept: whether their checkpoints outlive them.

    Raises:
        Interrupted: a signal stopped them, after they were saved.
        RequestError: nothing can be trained here.
        Unfinished: a process died, another one trains them, or there is no space; the others have ended.
    """
    left = [folder for folder in jobs if not _ended(folder)]
    _refuse_held(left)
    for folder in left:
        if read_status(RunFolder(folder)) == "failed":  # there was no space: it goes on
            RunFolder(folder).write_record(status="interrupted")
    try:
        reasons = _train(jobs, left, trials, limits, names, kept)
    except RequestError:
        _refuse_held(left)
        raise
    for folder in left:
        if not _ended(folder) and not _has_failed(trials, trials[folder]):
            raise Unfinished(f"{folder.name}: {reasons.get(folder) or _reason(folder) or 'has not ended'}")


def _refuse_held(folders: Iterable[Path]) -> None:
    for folder, why in held_jobs(folders).items():
        raise Unfinished(f"{folder.name}: {why}")


def _train(
    jobs: Mapping[Path, ListedJob], folders: Iterable[Path], trials: Mapping[Path, int], limits: Mapping[int, float],
    names: Mapping[Path, str], kept: bool,
) -> dict[Path, str]:  # fmt: skip
    """Trains the jobs in `folders`, as `train_jobs` does; why some have not been completed."""
    from rltrain.training.pruning import PruningRule

    left = {folder: jobs[folder].config for folder in folders}
    sizes = {trial: sum(other == trial for other in trials.values()) for trial in trials.values()}
    rules = {folder: PruningRule(trial, sizes[trial], limits) for folder, trial in trials.items()} if limits else {}

    def unchanged(stored: RunConfig, folder: Path, _: Checkpoint | None) -> tuple[RunConfig, list[dict[str, Any]]]:
        return _unchanged(stored, jobs[folder]), []

    try:
        populations = populations_of(left, False, unchanged, max(sizes.values()))
    except CheckpointError:
        populations = []  # job by job
    for job in (job for population in populations for job in population):
        job.own, job.pruning = names[job.folder], rules.get(job.folder)
        del left[job.folder]
    reasons = _train_together(populations) if populations else {}
    for folder in left:
        if _has_failed(trials, trials[folder]):
            continue
        try:
            _train_alone(folder, jobs[folder], rules, kept)
        except CheckpointError as error:  # which no later try can read either
            RunFolder(folder).write_record(status="failed", reason=str(error))
        except (RunFailed, Pruned) as error:
            reasons[folder] = str(error)
    return reasons


def _train_together(populations: Sequence[Sequence[Job]]) -> dict[Path, str]:
    from rltrain.jobs.pool import train_populations

    return {
        job.folder: " ".join(str(outcome).split())
        for population, outcomes in zip(populations, train_populations(populations), strict=True)
        for job, outcome in zip(population, outcomes, strict=True)
        if isinstance(outcome, BaseException)
    }


def _has_failed(trials: Mapping[Path, int], trial: int) -> bool:
    """Whether a job of a trial has failed, and the trial with it."""
    return any(
        other == trial and _ended(folder) and read_status(RunFolder(folder)) in _FAILED
        for folder, other in trials.items()
    )


def open_search(folder: StudyFolder, asked: Plan) -> Search:
    """Optuna's part of the study, which is locked."""
    from rltrain.tuning.search import Search

    return Search(folder.journal, asked.space, asked.tune.seed, asked.tune.startup)


def _ended(folder: Path) -> bool:
    """Whether nothing is left to train; of a damaged run its trial has failed, and the others go on. One that failed as
    there was no space goes on."""
    status = read_status(RunFolder(folder))
    no_space = status == "failed" and any(text in _reason(folder) for text in _NO_SPACE)
    return status in ("completed", "pruned", *_FAILED) and not no_space


def _unchanged(stored: RunConfig, job: ListedJob) -> RunConfig:
    """The config of a run's own files, which may be a stranger's, if it is that of its job."""
    if stored != validate_stored(job.config or {}):
        raise RequestError(f"{job.folder}: holds the run of another config than its job's")
    return stored


def _train_alone(folder: Path, job: ListedJob, rules: Mapping[Path, PruningRule], kept: bool) -> None:
    from rltrain.jobs.job import train
    from rltrain.policy.source import stored_config
    from rltrain.storage.checkpoint import newest_checkpoint, read_checkpoint
    from rltrain.storage.checkpoint_folders import has_checkpoint
    from rltrain.training.pruning import SeedPruning

    source = read_checkpoint(newest_checkpoint(folder)) if folder.is_dir() and has_checkpoint(folder) else None
    pruning = None
    if folder in rules:
        runs = [other for other, rule in rules.items() if rule.trial == rules[folder].trial]
        pruning = SeedPruning(_known(rules[folder], runs, folder, source), runs.index(folder))
    config = validate_stored(job.config or {}) if source is None else _unchanged(stored_config(source), job)
    folder.mkdir(exist_ok=True)
    train(config, folder, console=False, source=source, pruning=pruning, kept=kept)


def _known(rule: PruningRule, runs: Sequence[Path], own: Path, source: Checkpoint | None) -> TrialPruning:
    """Pruning of a trial whose seeds are trained one after the other, with all that they have found."""
    from rltrain.loggers.jsonl import read_evaluations
    from rltrain.training.pruning import TrialPruning
    from rltrain.training.saving import last_logged_step

    trial = TrialPruning(rule)
    for seed, folder in enumerate(runs):
        run = RunFolder(folder)
        if folder != own and _ended(folder):
            trial.report(seed, read_evaluations(run.metrics, _period(folder)))
            trial.end(seed)
        elif folder == own and source is not None:
            trial.report(seed, read_evaluations(run.metrics, _period(folder), last_logged_step(source)))
    return trial


def _period(folder: Path) -> int:
    return int(RunFolder(folder).read_config()["eval"]["period"] or 1)


def trial_result(folder: Path, trial: Trial, period: int | None) -> TrialResult:
    """Result of a trial whose runs have ended.

    Its value is the mean over the seeds of what each run reports at its end: the mean return of 100 greedy episodes of
    its last network. That is what a run with these settings will report, where the best evaluation of several is not.

    Args:
        folder: the batch's.
        period: between two evaluations, in environment steps.
    """
    from rltrain.loggers.jsonl import read_evaluations
    from rltrain.training.pruning import means_over_seeds

    runs = [RunFolder(folder / name) for name in trial.runs]
    statuses = {run.path.name: read_status(run) for run in runs}
    evaluations: dict[int, float] = {}
    if period is not None:
        of_seeds = [read_evaluations(run.metrics, period) for run in runs]
        evaluations = means_over_seeds(of_seeds, range(len(runs)))
        # Up to the evaluation at which it was given up: what seeds trained before it found later does not count.
        ends = [
            max(found, default=0)
            for run, found in zip(runs, of_seeds, strict=True)
            if statuses[run.path.name] == "pruned"
        ]
        evaluations = {number: mean for number, mean in evaluations.items() if number <= max(ends, default=number)}
    for name, status in statuses.items():
        if status in _FAILED:
            reason = _reason(folder / name) or status
            return TrialResult("failed", evaluations=evaluations, reason=f"{name}: {reason}")
    if "pruned" in statuses.values():
        value = list(evaluations.values())[-1] if evaluations else None
        step = max(evaluations, default=0) * (period or 0)
        return TrialResult("pruned", value, (), float(step), evaluations, f"pruned at step {step:,}")
    results = [result for run in runs if (result := read_result(run)) is not None]
    if len(results) < len(runs):
        return TrialResult("failed", evaluations=evaluations, reason="no result that can be read")
    seeds, steps = tuple(result.returns["mean"] for result in results), fmean(result.env_step for result in results)
    return TrialResult("complete", fmean(seeds), seeds, steps, evaluations)


def _reason(folder: Path) -> str:
    try:
        return " ".join(str(RunFolder(folder).read_record().get("reason") or "").split())
    except RequestError:
        return ""
