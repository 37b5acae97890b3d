"""A study of Optuna in a journal of JSON lines: suggests settings, and is told what they reached.

Its user holds the study's lock, so that nothing changes meanwhile.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from rltrain.config.search_space import Dimension
from rltrain.errors import RequestError, one_line
from rltrain.storage.study_folder import TrialResult
from rltrain.terminal.shell import unusable

_NAME = "rltrain"
_MOST_BYTES = 256 << 20  # of a journal, which may be untrusted
_DIGITS = 3  # of a number that is suggested: what is written is what was trained
_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


class Search:
    """Suggestions for the dimensions of a space, by tree-structured Parzen estimators (Bergstra et al., 2011), which
    look at all dimensions together; the first `startup` trials are drawn at random.

    Trials that are asked together do not know each other's results; each counts as a bad one meanwhile (the constant
    liar), so that they differ. The n-th trials of a study alone are the same for the same seed and the same results.

    Raises:
        RequestError: the journal is damaged.
    """

    def __init__(self, journal: Path, space: Sequence[Dimension], seed: int, startup: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._journal, self._space, self._seed, self._startup = journal, space, seed, startup
        self._distributions = {dimension.key: distribution(dimension) for dimension in space}
        _mend(journal)
        with self._explained():
            self._study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(journal))),
                study_name=_NAME,
                direction="maximize",
                load_if_exists=True,
            )

    def ask(self, at_random: bool = False) -> tuple[int, dict[str, Any]]:
        """The number of a new trial and its settings: key -> value."""
        with self._explained():
            number = len(self._study.get_trials(deepcopy=False))
            # Seeded for each trial: a study that is continued goes on as if it had not been stopped.
            seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
            startup = sys.maxsize if at_random else self._startup
            self._study.sampler = TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=True)
            trial = self._study.ask(self._distributions)
            return trial.number, {d.key: _as_trained(d, trial.params[d.key]) for d in self._space}

    def tell(self, number: int, result: TrialResult) -> None:
        """The result of a trial; of one that is finished already nothing is changed."""
        with self._explained():
            frozen = self._study.get_trials(deepcopy=False)[number]
            if frozen.state.is_finished():
                return
            trial = optuna.trial.Trial(self._study, frozen._trial_id)
            for step, mean in result.evaluations.items():
                trial.report(mean, step)
            value = result.value if result.state == "complete" else None
            self._study.tell(trial, value, state=_STATES[result.state])

    def fail_lost(self, known: Collection[int]) -> None:
        """Ends the trials that are in no batch: their process was killed before it wrote them down."""
        with self._explained():
            for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if trial.number not in known:
                    self._study.tell(trial.number, state=TrialState.FAIL)

    def importances(self) -> dict[str, float]:
        """The share of each key in what sets the best tenth of the complete trials apart (PED-ANOVA, Watanabe et al.,
        2023), largest first; none where too few trials are complete."""
        complete = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(complete) < 10 or len({trial.value for trial in complete}) < 2:
            return {}
        quantile = max(0.1, 3 / len(complete))
        evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
        with self._explained():
            found = get_param_importances(self._study, evaluator=evaluator)
        return {key: value for key, value in found.items() if math.isfinite(value)}

    @contextmanager
    def _explained(self) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except OSError as error:
            raise RequestError(unusable(self._journal, error)) from error
        except Exception as error:  # Optuna does not say what a journal that is none makes it raise
            raise RequestError(f"{self._journal}: is no journal of this study: {one_line(error)}") from error


def distribution(dimension: Dimension) -> BaseDistribution:
    """The dimension in Optuna's words; choices go as JSON, since they may be lists."""
    if dimension.choices:
        return CategoricalDistribution([json.dumps(choice) for choice in dimension.choices])
    low, high = dimension.low, dimension.high
    assert low is not None and high is not None
    if dimension.integer:
        return IntDistribution(int(low), int(high), log=dimension.log, step=int(dimension.step or 1))
    return FloatDistribution(low, high, log=dimension.log, step=dimension.step)


def _as_trained(dimension: Dimension, value: Any) -> Any:
    if dimension.choices:
        return json.loads(value)
    if dimension.integer or dimension.step is not None:
        return value
    assert dimension.low is not None and dimension.high is not None
    return min(max(float(f"{value:.{_DIGITS}g}"), dimension.low), dimension.high)


def _mend(journal: Path) -> None:
    """Cuts a last line that a killed writer left torn: what is written after it would be one line with it.

    Raises:
        RequestError: it is no regular file, or too large.
    """
    if not journal.exists():
        return
    if not journal.is_file() or journal.stat().st_size > _MOST_BYTES:
        raise RequestError(f"{journal}: is no journal: not a regular file of at most {_MOST_BYTES >> 20} MB")
    data = journal.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with journal.open("r+b") as file:
            file.truncate(whole)


Evaluations = Mapping[int, float]
"""Number of an evaluation -> mean over a trial's seeds."""


def medians(
    complete: Sequence[Evaluations], pruned: Sequence[Evaluations], last: int, first: int, least: int
) -> dict[int, float]:
    """The limits below which a trial is given up: the median at each evaluation over the trials that have come so far.

    Args:
        complete: of each such trial. One that ended early stays at its last.
        pruned: likewise; without them the limits would rise with each trial that is given up.
        last: the number of the last evaluation, at which there is nothing left to save.
        first: the first at which a trial may be given up.
        least: as many trials must be complete.
    """
    known = [evaluations for evaluations in complete if evaluations]
    if len(known) < least:
        return {}
    limits = {}
    for number in range(max(1, first), last):
        of_complete = [_until(evaluations, number) for evaluations in known]
        values = [
            value for value in (*of_complete, *(given_up.get(number) for given_up in pruned)) if value is not None
        ]
        if values:
            limits[number] = float(np.median(values))
    return limits


def _until(evaluations: Mapping[int, float], number: int) -> float | None:
    before = [n for n in evaluations if n <= number]
    return evaluations[max(before)] if before else None
