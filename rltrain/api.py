"""Training from Python: what the command line does, and its run folders as objects."""

from __future__ import annotations

import gc
import importlib
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from rltrain.config.command_names import COMMANDS
from rltrain.errors import RequestError
from rltrain.loggers.jsonl import read_rows
from rltrain.storage.plain_files import MOST_LIST_BYTES, read_json
from rltrain.storage.run_folder import RunFolder, folder_named, no_run
from rltrain.storage.run_result import status_of
from rltrain.storage.sweep_folder import RESULTS, SweepFolder, is_sweep
from rltrain.terminal.interrupts import process_of_caller
from rltrain.terminal.output import own_output
from rltrain.terminal.shell import command_given_here, no_folder

if TYPE_CHECKING:
    from rltrain.policy.load import TrainedPolicy

_T = TypeVar("_T")
_training = threading.Lock()  # Hydra's state, the output streams and signals belong to the whole process


class Run:
    """A run folder. It is read at each access, so that a run can be watched while it trains elsewhere.

    Raises:
        RequestError: there is no run in the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = folder_named(path).absolute()
        self._folder = RunFolder(self.path)
        if not self._folder.config.exists():
            raise RequestError(f"{path}: {no_folder(self.path) or no_run(self.path)}")

    @property
    def config(self) -> dict[str, Any]:
        """The run's config, as config.yaml holds it."""
        return self._folder.read_config()

    @property
    def status(self) -> str:
        """running, completed, interrupted or failed; a process that was killed leaves "running"."""
        return status_of(self._folder)

    @property
    def result(self) -> dict[str, Any] | None:
        """result.json, the final greedy evaluation; None before there is one. While a run that was extended has not
        come to its new end it is of the end before, as its `env_step` says."""
        return self._folder.read_result() if self._folder.result.exists() else None

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """All rows of metrics as columns of equal length: `step` int64, every other tag float64, NaN where a row has no
        such number. `pandas.DataFrame(run.metrics)` is a table."""
        rows = list(read_rows(self._folder.metrics)) if self._folder.metrics.exists() else []
        tags = dict.fromkeys(tag for row in rows for tag in row if tag != "step")
        columns = {tag: np.array([_number(row.get(tag)) for row in rows], dtype=np.float64) for tag in tags}
        return {"step": np.array([row["step"] for row in rows], dtype=np.int64), **columns}

    def policy(self, checkpoint: Literal["last", "best"] = "last", device: str = "cpu") -> TrainedPolicy:
        """The greedy policy of the newest checkpoint, or of the best evaluation's; `device` as of `rltrain.load`.

        Raises:
            CheckpointError: there is none, or it is damaged.
            RequestError: another word for the checkpoint, or no such device.
        """
        from rltrain.policy.load import load
        from rltrain.policy.source import best_of

        if checkpoint not in ("last", "best"):
            raise RequestError(
                f"checkpoint={checkpoint!r}: must be last or best; rltrain.load takes the folder of any other"
            )
        return load(best_of(self.path) if checkpoint == "best" else self.path, device)

    def __repr__(self) -> str:
        return f"rltrain.Run({str(self.path)!r})"

    def _repr_png_(self) -> bytes | None:
        """The learning curve, which a notebook shows for a run; a sweep's job has it drawn here."""
        if self._folder.learning_curve.exists():
            return self._folder.learning_curve.read_bytes()
        if not self._folder.metrics.exists():
            return None
        from rltrain.report.curve import learning_curve_png

        return learning_curve_png(self.path)


class Sweep(Sequence[Run]):
    """A sweep's folder: its runs, in the order of the jobs, those that have begun.

    Raises:
        RequestError: there is no sweep in the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = folder_named(path).absolute()
        if not is_sweep(self.path):
            raise RequestError(f"{path}: {no_folder(self.path) or 'is no folder of a sweep'}")
        begun = [folder for folder in SweepFolder(self.path).jobs() if (folder / "config.yaml").exists()]
        self._runs = [Run(folder) for folder in begun]

    @property
    def results(self) -> dict[str, Any]:
        """sweep.json: every job, and the means over the seeds of each setting.

        Raises:
            RequestError: there is none, since no job has come to its end.
        """
        return read_json(self.path / RESULTS, MOST_LIST_BYTES)

    def __getitem__(self, place: Any) -> Any:
        return self._runs[place]

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def __repr__(self) -> str:
        return f"rltrain.Sweep({str(self.path)!r})"


def train(overrides: Sequence[str] = ()) -> Run:
    """Trains as `rltrain <overrides>` does, in this process, with its checks, its run folder and its progress.

    Raises:
        RequestError: as the command line would say; or another thread trains.
        RunFailed: the run failed; its folder holds its log.
        Interrupted: a signal (Ctrl-C, a notebook's stop button) stopped it after it was saved.
        KeyboardInterrupt: a second Ctrl-C stopped it at once.
    """
    commands = importlib.import_module("rltrain.commands.train")
    return Run(_carry_out(lambda: commands.run_one(_listed(overrides))))


def sweep(overrides: Sequence[str]) -> Sweep:
    """Trains as `rltrain -m <overrides>` does. A job that fails stops no other; its run's `status` says so.

    Raises:
        RequestError, Interrupted: as `train`.
    """
    commands = importlib.import_module("rltrain.commands.train")
    return Sweep(_carry_out(lambda: commands.run_several(_listed(overrides)).folder))


def _carry_out(command: Callable[[], Path]) -> Path:
    # Afterwards nothing is imported that a Ctrl-C could break into: the command line ends the process then.
    importlib.import_module("rltrain.jobs.job")
    from rltrain.compute.device import torch_kept

    if not _training.acquire(blocking=False):
        raise RequestError("this process is training already: one training at a time; rltrain.sweep trains many runs")
    collects = gc.isenabled()
    try:
        with torch_kept(), process_of_caller(), command_given_here(), own_output():
            return command().absolute()
    finally:
        (gc.enable if collects else gc.disable)()
        _training.release()


def _listed(overrides: object) -> list[str]:
    words = list(overrides) if isinstance(overrides, Iterable) and not isinstance(overrides, str | Mapping) else None
    if words is None or not all(isinstance(word, str) for word in words):
        meant = ["env=CartPole-v1", "seed=0"]
        if isinstance(overrides, str):
            meant = [overrides]
        elif isinstance(overrides, Mapping):
            meant = [f"{key}={value}" for key, value in overrides.items()]
        raise RequestError(f"overrides={overrides!r}: must be a list of texts, as {meant}")
    if command := next((word for word in words if word in COMMANDS), None):
        raise RequestError(f"{command}: is a command of the shell; here settings are given, as env=CartPole-v1")
    return words


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
