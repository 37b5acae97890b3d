"""`rltrain -m ...`: every job is composed and checked before the first starts; a failing job stops no other."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from rltrain.commands.launcher import register_launcher
from rltrain.commands.sweep_table import SweptJob, sweep_table
from rltrain.config.application import CONFIG_NAME, job_variables
from rltrain.config.contradictions import check_typed
from rltrain.config.override_text import as_typed
from rltrain.config.run_name import config_text, reserve_folder
from rltrain.config.schema import RunConfig
from rltrain.config.validate import to_plain, validate
from rltrain.errors import Interrupted, RequestError, RunFailed
from rltrain.output import say
from rltrain.process_state import variables_set
from rltrain.text import shown_path
from rltrain.training.sweep_folder import JOBS, SweepFolder, stopped_sweep

Preflight = Callable[[RunConfig], None]


class CheckedLauncher(Launcher):
    """The configured launcher between two checks: all jobs are right before, and who failed is kept after.

    A job that failed returns NaN to the sweeper, so that a sweeper of several batches goes on.
    """

    def __init__(
        self, launcher: Launcher, preflight: Preflight, config: DictConfig, context: HydraContext, folder: SweepFolder
    ) -> None:
        self._launcher = launcher
        self._preflight = preflight
        self._config = config
        self._context = context
        self._folder = folder
        self.jobs: list[SweptJob] = []
        self.failures: list[tuple[int, str, BaseException]] = []

    def setup(self, **kwargs: Any) -> None:
        self._launcher.setup(**kwargs)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        planned = self._check(job_overrides, initial_job_idx)
        self._folder.add_jobs(planned)
        self.jobs += [
            SweptJob(self._folder.path / name, overrides)
            for (name, _), overrides in zip(planned, job_overrides, strict=True)
        ]
        returns = self._launcher.launch(job_overrides, initial_job_idx)
        for number, (job, overrides) in enumerate(zip(returns, job_overrides, strict=True), start=initial_job_idx):
            if job.status == JobStatus.FAILED:
                error = job._return_value
                if isinstance(error, Interrupted):
                    raise error
                self.failures.append((number, as_typed(overrides), error))
                job.status, job.return_value = JobStatus.COMPLETED, math.nan
        return returns

    def _check(self, job_overrides: Sequence[Sequence[str]], first: int) -> list[tuple[str, dict[str, Any]]]:
        """Refuses the sweep if one job is wrong; the folder, relative to the sweep's, and the config of each job."""
        checked: set[str] = set()
        jobs: list[tuple[str, dict[str, Any]]] = []
        for number, overrides in enumerate(job_overrides, start=first):
            cfg = self._context.config_loader.load_sweep_config(self._config, list(overrides))
            plain: Any = OmegaConf.to_container(cfg, resolve=False)
            config = validate({key: value for key, value in plain.items() if key != "hydra"})
            starts = config.init_from and (config.init_from, config.algo, config.network)
            cfg.hydra.job.num = number
            variables = job_variables(cfg)
            what = repr((config.env, config.algo.name, config.device, starts, variables))
            try:
                check_typed(config, overrides)
                if what not in checked:
                    with variables_set(variables):
                        self._preflight(config)
            except RequestError as error:
                raise RequestError(f"in the job `{as_typed(overrides)}`: {error}") from error
            checked.add(what)
            jobs.append((str(cfg.hydra.sweep.subdir), to_plain(config)))
        return jobs


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


def run_sweep(
    hydra: Hydra, overrides: list[str], task: Callable[[DictConfig], float | None], preflight: Preflight
) -> int:
    """Runs every job of a sweep through Hydra's own sweeper and launcher; returns the exit code."""
    cfg = hydra.compose_config(CONFIG_NAME, overrides, run_mode=RunMode.MULTIRUN, with_log_configuration=False)
    cfg.hydra.mode = RunMode.MULTIRUN
    register_launcher()
    callbacks = Callbacks(cfg)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
    sweeper: Any = Plugins.instance().instantiate_sweeper(
        config=cfg, hydra_context=context, task_function=_SweepTask(task)
    )
    folder = reserve_folder(Path(cfg.hydra.sweep.dir), exact=False)
    cfg.hydra.sweep.dir = config_text(folder)
    callbacks.on_multirun_start(config=cfg, config_name=CONFIG_NAME)
    with SweepFolder(folder) as sweep:
        launcher = CheckedLauncher(sweeper.launcher, preflight, cfg, context, sweep)
        sweeper.launcher = launcher
        try:
            sweeper.sweep(arguments=OmegaConf.to_container(cfg.hydra.overrides.task, resolve=False))
        except OSError as full:
            _remove_unused(folder)
            raise RunFailed(f"{shown_path(folder)}: cannot be written: {full.strerror or full}") from full
        except Exception:
            _remove_unused(folder)
            raise
        except SystemExit as stop:
            raise stopped_sweep(folder, int(stop.code or 1)) from stop
    callbacks.on_multirun_end(config=cfg, config_name=CONFIG_NAME)
    done = len(launcher.jobs) - len(launcher.failures)
    if table := sweep_table(launcher.jobs):
        say(f"\n{table}\n")
    _remove_unused(folder)  # after a dry run
    say(f"sweep     {done} of {len(launcher.jobs)} jobs done{f', in {shown_path(folder)}' if folder.exists() else ''}")
    for number, line, error in launcher.failures:
        print(f"job {number} failed ({line}): {error}", file=sys.stderr)
    return 1 if launcher.failures else 0


def _remove_unused(folder: Path) -> None:
    """Removes a sweep's folder in which only the request itself lies."""
    if {path.name for path in folder.iterdir()} <= {"multirun.yaml", ".lock", JOBS}:
        shutil.rmtree(folder)
