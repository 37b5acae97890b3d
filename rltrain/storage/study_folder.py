"""The folder of a study: what is searched, its batches of trials, and the lock under which processes share it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from rltrain.errors import RequestError
from rltrain.storage.files import first_link
from rltrain.storage.locks import lock_patiently
from rltrain.storage.plain_files import json_text, plain_yaml, read_json, read_plain_yaml, write_file
from rltrain.storage.run_folder import STUDY, no_run
from rltrain.storage.sweep_folder import JOBS, SweepFolder

JOURNAL, TRIALS = "journal.log", "trials.json"
CONFIRMATION = "confirm_"
"""Before the number of the trial whose settings are trained on fresh seeds."""
_PATIENCE = 60.0  # seconds; the lock is held while trials are suggested or told, never while they train

State = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class TrialResult:
    """Result of a trial.

    Attributes:
        value: the mean over its seeds, None of a failed trial; of a pruned one its last evaluation's.
        seeds: the greedy return of each seed's last network; none unless the trial is complete.
        env_step: the environment steps of a seed, on average.
        evaluations: number of an evaluation -> mean over the seeds.
        reason: why it was pruned, or failed.
    """

    state: State
    value: float | None = None
    seeds: tuple[float, ...] = ()
    env_step: float = 0.0
    evaluations: Mapping[int, float] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class Trial:
    """Settings that are tried: key -> value; the runs of its seeds are jobs of its batch. None: not told yet."""

    number: int
    values: Mapping[str, Any]
    runs: tuple[str, ...]
    result: TrialResult | None = None


class Batch:
    """Trials that are trained together: a sweep's folder with a list of trials beside its list of jobs.

    Raises:
        RequestError: the list is malformed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sweep = SweepFolder(path)
        content = read_json(path / TRIALS)
        try:
            self.trials = [_trial(entry) for entry in content["trials"]]
            self.limits = {int(number): _finite(value) for number, value in content["limits"].items()}
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise RequestError(f"{path / TRIALS}: is no list of trials") from error

    @property
    def told(self) -> bool:
        """Whether the result of each trial is known."""
        return all(trial.result is not None for trial in self.trials)

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Keeps the results of all trials."""
        trials = zip(self.trials, results, strict=True)
        self.trials = [replace(trial, result=result) for trial, result in trials]
        write_trials(self.path, self.trials, self.limits)

    def drop_checkpoints(self) -> None:
        """Removes what only a continued run needs; a file that cannot be removed stays."""
        for run in self.path.iterdir():
            if not run.is_symlink():
                _drop_checkpoints(run)


class StudyFolder:
    """A study's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path / JOURNAL

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The lock under which trials are suggested and told; waits for another process.

        Raises:
            RequestError: it is held for a minute, or the folder cannot be written.
        """
        if link := first_link(self.path):
            if link.name != f"{JOURNAL}.lock":  # Optuna's own, of a process that was killed
                raise RequestError(f"{link}: is a link; a study writes into no folder but its own")
            link.unlink(missing_ok=True)
        with lock_patiently(self.path, _PATIENCE):
            yield

    def write(self, plain: Mapping[str, Any]) -> None:
        """Writes study.yaml.

        Raises:
            RunFailed: it cannot be written.
        """
        write_file(self.path / STUDY, plain_yaml(plain))

    def read(self) -> dict[str, Any]:
        """study.yaml as plain data.

        Raises:
            RequestError: missing or damaged.
        """
        return read_plain_yaml(self.path / STUDY)

    def batches(self) -> list[Batch]:
        """The batches, in their order.

        Raises:
            RequestError: one is malformed.
        """
        return [Batch(path) for path in sorted(self.path.glob("batch_*")) if (path / TRIALS).exists()]

    def new_batch(self) -> Path:
        """Makes the folder of the next batch; what a killed process left without a list of trials is not counted."""
        path = self.path / f"batch_{len(self.batches()):03d}"
        path.mkdir(exist_ok=True)
        (path / JOBS).unlink(missing_ok=True)
        return path


def is_study(place: Path) -> bool:
    """Whether the folder is a study's."""
    return (place / STUDY).is_file()


def study_of(run: Path) -> Path | None:
    """The study that a run is part of; None where it is of none."""
    return next(filter(is_study, run.parents), None)


def no_checkpoint(run: Path) -> str:
    """Why a folder has no checkpoint of a run that could be used, in words."""
    if study_of(run) is not None and not (run / "checkpoints").exists():
        return "is of a trial that has ended, of which a study keeps no checkpoint"
    if not any((run / name).exists() for name in ("config.yaml", "run.json", "checkpoints")):
        return no_run(run)
    return "holds no whole checkpoint"


def write_trials(path: Path, trials: Sequence[Trial], limits: Mapping[int, float]) -> None:
    """Writes the list of a batch's trials.

    Raises:
        RunFailed: it cannot be written.
    """
    write_file(path / TRIALS, json_text({"trials": list(map(asdict, trials)), "limits": dict(limits)}))


def _trial(entry: Mapping[str, Any]) -> Trial:
    """A trial of a file, of possibly foreign origin.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is none.
    """
    number, values, runs, result = entry["number"], entry["values"], entry["runs"], entry["result"]
    if type(number) is not int or not isinstance(values, dict) or not isinstance(runs, list):
        raise TypeError
    return Trial(number, values, tuple(map(str, runs)), None if result is None else _result(result))


def _result(entry: Mapping[str, Any]) -> TrialResult:
    state = entry["state"]
    if state not in ("complete", "pruned", "failed"):
        raise ValueError
    return TrialResult(
        state,
        None if entry["value"] is None else _finite(entry["value"]),
        tuple(map(_finite, entry["seeds"])),
        _finite(entry["env_step"]),
        {int(number): _finite(value) for number, value in entry["evaluations"].items()},
        str(entry["reason"]),
    )


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _drop_checkpoints(run: Path) -> None:
    import shutil

    with suppress(OSError):
        if not (run / "checkpoints").is_symlink():
            shutil.rmtree(run / "checkpoints")
