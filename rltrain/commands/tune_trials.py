"""The trials of a batch: settings that are suggested, the runs that they ask for, and when they are given up."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rltrain.commands.tune_request import Plan
from rltrain.config.plain import to_plain
from rltrain.config.search_space import shown_values
from rltrain.config.searched import with_values
from rltrain.config.stored import validate_stored
from rltrain.config.validate import validate
from rltrain.errors import RequestError
from rltrain.storage.study_folder import TRIALS, Batch, StudyFolder, Trial, TrialResult, write_trials
from rltrain.storage.sweep_folder import JOBS, ListedJob, SweepFolder
from rltrain.terminal.output import warn

if TYPE_CHECKING:
    from rltrain.tuning.search import Search

_log = logging.getLogger(__name__)
_MOST_REFUSED = 1000
"""Settings in a row that contradict each other: then the space holds hardly any others."""
_MOST_SHOWN = 5
"""Of a batch's settings that contradict each other."""
_FEW_REPEATED, _MOST_REPEATED = 10, 60
"""Settings in a row that were tried before, after which the next are drawn at random, since the sampler is fond of its
best; and after which the space is taken to hold no others, unless these can be counted."""


def new_batch(folder: StudyFolder, asked: Plan, search: Search, batches: Sequence[Batch], count: int) -> Batch | None:
    """A batch of at most `count` trials that are suggested now, written down; the study is locked. Settings that were
    tried before are left out: the same seeds would train the same networks. None: the space is taken to hold no others.

    Raises:
        RequestError: it holds hardly any settings at all that go together.
    """
    seeds, size = asked.seeds, math.prod(dimension.size for dimension in asked.space)
    tried = {json.dumps(dict(trial.values)) for batch in batches for trial in batch.trials}
    trials: list[Trial] = []
    jobs: list[tuple[str, dict[str, Any], str]] = []
    reasons: list[str] = []
    repeated = 0
    most_repeated = max(_MOST_REPEATED, 20 * size) if size < math.inf else _MOST_REPEATED
    while len(trials) < count and len(tried) < size and repeated < most_repeated and len(reasons) < _MOST_REFUSED:
        name, values = search.ask(at_random=repeated >= _FEW_REPEATED)
        said = json.dumps(values)
        if said in tried:
            search.tell(name, TrialResult("failed", reason="was tried before"))
            repeated += 1
            continue
        try:
            config = trial_config(asked, values)
        except RequestError as error:
            reasons.append(str(error))
            tried.add(said)
            search.tell(name, TrialResult("failed", reason=str(error)))
            continue
        runs = [(f"trial_{name}_seed_{seed}", {**config, "seed": seed}) for seed in seeds]
        trials.append(Trial(name, values, tuple(run for run, _ in runs)))
        jobs += [(run, plain, shown_values(values)) for run, plain in runs]
        tried.add(said)
        repeated = 0
    if reasons and not trials and not batches:
        raise RequestError(f"the space holds hardly any settings that go together: {reasons[0]}")
    for reason in dict.fromkeys(reasons[:_MOST_SHOWN]):
        warn(_log, f"settings are left out: {reason}")
    if not trials:
        return None
    path = folder.new_batch()
    SweepFolder(path).add_jobs(
        [ListedJob(path / run, plain, (shown, f"seed={plain['seed']}")) for run, plain, shown in jobs]
    )
    write_trials(path, trials, limits(asked, batches))  # the last: with it the batch is there
    return Batch(path)


def trial_config(asked: Plan, values: dict[str, Any]) -> dict[str, Any]:
    """A trial's config as plain data, with the study's first seed.

    Raises:
        RequestError: its settings contradict each other.
    """
    return to_plain(validate(with_values(to_plain(asked.config), values)))


def limits(asked: Plan, batches: Sequence[Batch]) -> dict[int, float]:
    """The returns below which a trial of the next batch is given up."""
    from rltrain.tuning.search import medians

    tune, config = asked.tune, asked.config
    if tune.pruner == "none" or config.eval.period is None:
        return {}
    results = [trial.result for batch in batches for trial in batch.trials]
    found = {
        state: [result.evaluations for result in results if result is not None and result.state == state]
        for state in ("complete", "pruned")
    }
    last = config.total_steps // config.eval.period
    first = -(-int(config.total_steps * tune.warmup) // config.eval.period)
    return medians(found["complete"], found["pruned"], last, first, tune.startup)


def check_batch(batch: Batch, asked: Plan) -> None:
    """Refuses a batch whose files, which may be a stranger's, ask for other runs than the study does."""
    keys, of_runs = {dimension.key for dimension in asked.space}, dict[Path, dict[str, Any]]()
    seeds = asked.seeds
    for trial in batch.trials:
        if trial.values.keys() != keys or len(trial.runs) != len(seeds):
            raise RequestError(f"{batch.path / TRIALS}: trial {trial.number} is none of this study")
        config = trial_config(asked, dict(trial.values))
        of_runs |= {batch.path / run: {**config, "seed": seed} for run, seed in zip(trial.runs, seeds, strict=True)}
    listed = {folder: to_plain(validate_stored(job.config or {})) for folder, job in batch.sweep.jobs().items()}
    if listed != of_runs:
        raise RequestError(f"{batch.path / JOBS}: its jobs are not those of the trials")
