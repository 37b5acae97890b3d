"""`rltrain -m ...`: every job is composed and checked before the first starts; a failing job stops no other."""

from __future__ import annotations

import math
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from rltrain.commands.checked_job import CheckedJob
from rltrain.commands.cluster_launcher import register_launchers
from rltrain.commands.launcher import PopulationLauncher
from rltrain.commands.preflight import preflight
from rltrain.commands.sweep_header import PlannedJob, comparison_notes, tuned_lines
from rltrain.commands.sweep_table import report_sweep, resuming, shown_note, stopped_sweep
from rltrain.config.application import CONFIG_NAME, job_variables
from rltrain.config.contradictions import check_typed
from rltrain.config.info import compose_info
from rltrain.config.messages import COMPOSE_ERRORS
from rltrain.config.override_text import as_typed, in_yaml, key_of, number_of_jobs
from rltrain.config.plain import show, to_plain
from rltrain.config.run_name import config_text, remove_unused, reserve_folder
from rltrain.config.schema import RunConfig
from rltrain.envs.process_state import variables_set
from rltrain.errors import Interrupted, RequestError, RunFailed, one_line
from rltrain.storage.files import LOCK
from rltrain.storage.sweep_folder import JOBS, ListedJob, SweepFolder
from rltrain.terminal.output import errors, say
from rltrain.terminal.shell import rltrain_command, shown_path, unusable
from rltrain.terminal.table import MOST_ROWS
from rltrain.terminal.text import counted, wrapped

_OF_THE_REQUEST = frozenset({"multirun.yaml", LOCK, JOBS})
"""Names in a sweep's folder before its first job has one."""
_MANY = 250
"""Jobs, whose check takes a second or more."""
_MOST_JOBS = 50_000  # whose list is read again, by `resume` and `report`
# Of the sweepers that search (Optuna's, Ax's, Nevergrad's): the key that says what they look for -> the largest value.
_LARGEST_IS_BEST = {"direction": "maximize", "ax_config.experiment.minimize": False, "optim.maximize": True}


class CheckedLauncher(Launcher):
    """The configured launcher between two checks: validates all jobs before, and records failures after.

    A job that failed returns NaN to the sweeper, so that a sweeper of several batches goes on; one that has a rule of
    its own for failures (`max_failure_rate`) is given the failure.
    """

    def __init__(
        self, launcher: Launcher, config: DictConfig, context: HydraContext, folder: SweepFolder, typed: Sequence[str]
    ) -> None:
        self._launcher = launcher
        self._config = config
        self._context = context
        self._folder = folder
        self._typed = typed
        self._trains_here = not isinstance(launcher, PopulationLauncher) or launcher.here
        self._planned: list[PlannedJob] = []
        self._notes: list[str] = []
        self.failures: list[tuple[int, str, BaseException]] = []

    def setup(self, **kwargs: Any) -> None:
        self._launcher.setup(**kwargs)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        job_overrides = [list(map(in_yaml, overrides)) for overrides in job_overrides]
        if len(job_overrides) >= _MANY:
            say(f"checking  {len(job_overrides):,} jobs")
        jobs = self._check(job_overrides, initial_job_idx)
        self._announce(jobs)
        if isinstance(self._launcher, PopulationLauncher):
            self._launcher.prepare(jobs)
        returns = self._launcher.launch(job_overrides, initial_job_idx)
        for number, (job, overrides) in enumerate(zip(returns, job_overrides, strict=True), start=initial_job_idx):
            if job.status == JobStatus.FAILED:
                error = job._return_value
                if isinstance(error, Interrupted):
                    raise error
                self.failures.append((number, as_typed(overrides), error))
                if "max_failure_rate" not in self._config.hydra.sweeper:
                    job.status, job.return_value = JobStatus.COMPLETED, math.nan
        return returns

    def _announce(self, jobs: Sequence[CheckedJob]) -> None:
        """Lists the jobs; says which tuned settings they have, and what of all jobs until now cannot be compared."""
        first = not self._planned
        self._planned += [job.planned for job in jobs]
        if first:
            lines = [
                f"sweep     {counted(len(jobs), 'job')} in {shown_path(self._folder.path)}",
                *tuned_lines(self._planned),
            ]
            say("\n".join(map(wrapped, lines)))
        notes = comparison_notes(self._planned, self._untuned)
        for note in notes:
            if note not in self._notes:
                say(shown_note(note))
        self._notes = notes
        self._folder.add_jobs([ListedJob(j.folder, j.planned.config, j.planned.overrides) for j in jobs], notes)

    def _untuned(self, jobs: Sequence[PlannedJob]) -> str:
        """The command that makes this sweep without tuned files; why there is none where one of `jobs` refuses it."""
        loader = self._context.config_loader
        for job in jobs:
            overrides = [override for override in job.overrides if key_of(override) != "tuned"]
            try:
                loader.load_sweep_config(self._config, [*overrides, "tuned=none"])
            except RequestError as error:
                return f"tuned=none, which does not go with the other keys: {str(error).splitlines()[0]}"
        typed = [arg for arg in self._typed if key_of(arg) != "tuned"]
        return rltrain_command(*typed, "tuned=none")

    def _check(self, job_overrides: Sequence[Sequence[str]], first: int) -> list[CheckedJob]:
        """Refuses the sweep if one job is wrong."""
        checked: set[str] = set()
        jobs = []
        for number, overrides in enumerate(job_overrides, start=first):
            job = self._composed(number, overrides)
            config = job.config
            starts = config.init_from and (config.init_from, config.algo, config.network)
            what = repr((config.env, config.algo.name, config.device, starts, job.variables))
            try:
                check_typed(config, overrides)
                if what not in checked:
                    with variables_set(job.variables):
                        preflight(config if self._trains_here else _on_cpu(config))
            except RequestError as error:
                raise RequestError(f"in the job `{as_typed(overrides)}`: {error}") from error
            checked.add(what)
            jobs.append(job)
        return jobs

    def _composed(self, number: int, overrides: Sequence[str]) -> CheckedJob:
        loader: Any = self._context.config_loader
        record, config = loader.plain_job(self._config, list(overrides))
        hydra = record["hydra"]
        hydra["job"] |= {"id": str(number), "num": number}
        subdir, variables = str(hydra["sweep"]["subdir"]).replace("${hydra.job.num}", str(number)), dict[str, str]()
        if hydra["job"]["env_set"] or "${" in subdir:  # OmegaConf and Hydra know what that means
            cfg = loader.load_sweep_config(self._config, list(overrides))
            with open_dict(cfg):
                cfg.hydra.job.id = cfg.hydra.job.num = number
            subdir, variables = str(cfg.hydra.sweep.subdir), job_variables(cfg)
        if wrong := self._folder.unfit(subdir):
            raise RequestError(f"hydra.sweep.subdir={subdir}: {wrong}")
        folder = self._folder.path / subdir
        planned = PlannedJob(folder.name, to_plain(config), tuple(overrides), compose_info(hydra, record))
        return CheckedJob(number, planned, config, variables, folder, record)


def _on_cpu(config: RunConfig) -> RunConfig:
    """The config of a job for a look at it on a machine that need not have its GPU."""
    return replace(config, device=replace(config.device, name="cpu"))


class _SweepTask:
    """The task of one job, printing a line; a signal ends the process's loop over jobs, as only a SystemExit can."""

    def __init__(self, task: Callable[[DictConfig], float | None]) -> None:
        self._task = task
        self._main_process = os.getpid()

    def __call__(self, cfg: DictConfig) -> float | None:
        job = HydraConfig.get()
        say(f"job {job.job.num}     {as_typed(job.overrides.task)}")
        try:
            return self._task(cfg)
        except Interrupted as error:
            if os.getpid() == self._main_process:
                raise SystemExit(error.exit_code) from error
            raise


class FinishedSweep(NamedTuple):
    """A sweep's folder, and whether a job of it failed."""

    folder: Path
    failed: bool


def run_sweep(
    hydra: Hydra,
    overrides: list[str],
    task: Callable[[DictConfig], float | None],
    typed: Sequence[str],
) -> FinishedSweep:
    """Runs every job of a sweep through Hydra's own sweeper and launcher.

    Args:
        typed: the arguments of the command.
    """
    cfg = hydra.compose_config(CONFIG_NAME, overrides, run_mode=RunMode.MULTIRUN, with_log_configuration=False)
    cfg.hydra.mode = RunMode.MULTIRUN
    _check_direction(cfg.hydra.sweeper, overrides)
    _check_size(cfg.hydra.sweeper, list(map(str, cfg.hydra.overrides.task)))
    register_launchers()
    callbacks = Callbacks(cfg)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
    folder = reserve_folder(Path(cfg.hydra.sweep.dir), key=None)
    cfg.hydra.sweep.dir = config_text(folder)
    launchers: list[CheckedLauncher] = []
    with SweepFolder(folder) as sweep:

        def checked(launcher: Launcher) -> Launcher:
            launchers.append(CheckedLauncher(launcher, cfg, context, sweep, typed))
            return launchers[-1]

        try:
            with _every_launcher(checked):
                sweeper = Plugins.instance().instantiate_sweeper(
                    config=cfg, hydra_context=context, task_function=_SweepTask(task)
                )
                # Each job is checked once: by our launcher.
                vars(sweeper)["validate_batch_is_legal"] = lambda batch: None
                callbacks.on_multirun_start(config=cfg, config_name=CONFIG_NAME)
                sweeper.sweep(arguments=list(map(str, cfg.hydra.overrides.task)))
        except SystemExit as stop:
            raise stopped_sweep(folder, int(stop.code or 1)) from stop
        except KeyboardInterrupt as stop:  # before the first job trains
            if (folder / JOBS).exists():
                raise stopped_sweep(folder, 130) from stop
            remove_unused(folder, _OF_THE_REQUEST)
            raise
        except Exception as error:
            _tell_failures(launchers, folder)
            remove_unused(folder, _OF_THE_REQUEST)
            raise _one_line(error, folder) from error
        callbacks.on_multirun_end(config=cfg, config_name=CONFIG_NAME)
        say(report_sweep(sweep))
        remove_unused(folder, _OF_THE_REQUEST)  # after a dry run
    return FinishedSweep(folder, _tell_failures(launchers, folder))


@contextmanager
def _every_launcher(between: Callable[[Launcher], Launcher]) -> Iterator[None]:
    """While active, Hydra hands out `between` of each launcher: where a sweeper keeps its own is its own affair."""
    plugins = Plugins.instance()
    instantiate = plugins.instantiate_launcher
    plugins.__dict__["instantiate_launcher"] = lambda **how: between(instantiate(**how))
    try:
        yield
    finally:
        del plugins.__dict__["instantiate_launcher"]


def _check_direction(sweeper: Any, overrides: Sequence[str]) -> None:
    """Refuses a sweeper that minimizes the return, unless the user typed that."""
    for key, largest in _LARGEST_IS_BEST.items():
        value = OmegaConf.select(sweeper, key)
        value = value.name if isinstance(value, Enum) else value
        typed = any(key_of(override) == f"hydra.sweeper.{key}" for override in overrides)
        if value is not None and value != largest and not typed:
            wanted = f"hydra.sweeper.{key}={show(largest)}"
            raise RequestError(f"hydra.sweeper.{key}={show(value)}: a job's value is its greedy return; add {wanted}")


def _check_size(sweeper: Any, overrides: Sequence[str]) -> None:
    """Refuses more jobs than can be listed, before they are; a sweeper that searches makes as many as it likes."""
    if str(sweeper.get("_target_", "")).endswith(".BasicSweeper") and (count := number_of_jobs(overrides)) > _MOST_JOBS:
        raise RequestError(f"-m: {count:,} jobs; a sweep has at most {_MOST_JOBS:,}")


def _one_line(error: Exception, folder: Path) -> Exception:
    """Error text for the user; the traceback of an unforeseen exception is kept in the sweep's folder."""
    if isinstance(error, (RequestError, RunFailed, Interrupted, *COMPOSE_ERRORS)):
        return error
    if isinstance(error, OSError):
        return RunFailed(unusable(folder, error, "written"))
    folder.mkdir(exist_ok=True)
    log = folder / "sweep.log"
    log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return RunFailed(f"{one_line(error)} (traceback in {shown_path(log)})")


def _tell_failures(launchers: Sequence[CheckedLauncher], folder: Path) -> bool:
    """Names the jobs that failed, of many the first, and what goes on with them; whether there was one."""
    failures = [failure for launcher in launchers for failure in launcher.failures]
    for number, line, error in failures[:MOST_ROWS]:
        print(f"job {number} failed ({line}): {error}", file=errors())
    if left := failures[MOST_ROWS:]:
        print(f"{counted(len(left), 'more job')} failed: each run.json says why", file=errors())
    if failures:
        print(f"`{resuming(folder)}` goes on from what was saved", file=errors())
    return bool(failures)
