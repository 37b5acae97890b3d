"""`hydra/launcher=population`, the default of `-m`: jobs that differ in numbers only are trained as one program."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from rltrain.config.application import job_variables, run_config
from rltrain.config.override_text import as_typed, own_overrides
from rltrain.config.population import group_jobs
from rltrain.config.run_name import remove_unused
from rltrain.config.schema import RunConfig
from rltrain.envs.process_state import variables_set
from rltrain.errors import Interrupted, RequestError


class PopulationLauncher(Launcher):
    """Runs the jobs of a sweep in groups; a group of one is a run like any other."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        Path(str(self._config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        jobs = [self._compose(list(overrides), initial_job_idx + i) for i, overrides in enumerate(job_overrides)]
        configs = [run_config(job) for job in jobs]
        variables = [job_variables(job) for job in jobs]
        groups = _groups(configs, variables)
        own = [as_typed(overrides) for overrides in own_overrides(job_overrides)]
        returns = self._train_together([group for group in groups if len(group) > 1], jobs, configs, variables, own)
        for group in groups:
            if len(group) == 1:
                returns[group[0]] = self._run(jobs[group[0]], self._task)
        return [returns[number] for number in range(len(jobs))]

    def _compose(self, overrides: list[str], number: int) -> DictConfig:
        job: DictConfig = self._context.config_loader.load_sweep_config(self._config, overrides)
        with open_dict(job):
            job.hydra.job.id = job.hydra.job.num = number
        return job

    def _run(self, job: DictConfig, task: TaskFunction) -> JobReturn:
        return run_job(
            hydra_context=self._context,
            task_function=task,
            config=job,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )

    def _train_together(
        self,
        groups: list[list[int]],
        jobs: Sequence[DictConfig],
        configs: Sequence[RunConfig],
        variables: Sequence[Mapping[str, str]],
        own: Sequence[str],
    ) -> dict[int, JobReturn]:
        if not groups:
            return {}
        from rltrain.jobs.pool import train_populations
        from rltrain.jobs.population_job import MemberJob

        returns: dict[int, JobReturn] = {}
        populations: list[list[MemberJob]] = []
        for group in groups:
            folders: list[Path] = []
            for number in group:
                # Makes the folder and what Hydra writes into it.
                task = partial(_note_folder, folders)
                returns[number] = self._run(jobs[number], task)
            members = zip(group, folders, strict=True)
            populations.append(
                [MemberJob(configs[n], folder, own=own[n], variables=variables[n]) for n, folder in members]
            )
        try:
            outcomes = train_populations(populations)
        except Interrupted as stop:
            raise SystemExit(stop.exit_code) from stop
        except RequestError:
            for folder in (job.folder for population in populations for job in population):
                remove_unused(folder)
            raise
        for group, found in zip(groups, outcomes, strict=True):
            for number, outcome in zip(group, found, strict=True):
                failed = isinstance(outcome, BaseException)
                returns[number].status = JobStatus.FAILED if failed else JobStatus.COMPLETED
                returns[number].return_value = outcome
        return returns


def _note_folder(folders: list[Path], _: DictConfig) -> None:
    folders.append(Path(HydraConfig.get().runtime.output_dir))


# Hydra takes a launcher only from a package of this name, which need not be a folder anywhere.
_PACKAGE, _MODULE = "hydra_plugins", "hydra_plugins.rltrain"
PopulationLauncher.__module__ = _MODULE


def register_launcher() -> None:
    """Makes the launcher known to Hydra under the name that config/application.py gives it."""
    if _PACKAGE not in sys.modules and importlib.util.find_spec(_PACKAGE) is None:
        sys.modules[_PACKAGE] = module_from_spec(ModuleSpec(_PACKAGE, None, is_package=True))
    module = types.ModuleType(_MODULE)
    module.__dict__["PopulationLauncher"] = PopulationLauncher
    importlib.import_module(_PACKAGE).__dict__["rltrain"] = sys.modules[_MODULE] = module
    Plugins.instance().register(PopulationLauncher)


def _groups(configs: Sequence[RunConfig], variables: Sequence[Mapping[str, str]]) -> list[list[int]]:
    """The jobs that share a program, and so a process with its environment variables; each group as large as memory,
    cores and GPUs make it worth while."""
    alike: dict[str, list[int]] = {}
    for number, of_job in enumerate(variables):
        alike.setdefault(repr(sorted(of_job.items())), []).append(number)
    parts: list[list[int]] = []
    for numbers in alike.values():
        with variables_set(variables[numbers[0]]):
            parts += [[numbers[i] for i in part] for part in _sized_groups([configs[n] for n in numbers])]
    return parts


def _sized_groups(configs: Sequence[RunConfig]) -> list[list[int]]:
    parts: list[list[int]] = []
    for group in group_jobs(configs):
        if len(group) == 1:
            parts.append(group)
            continue
        from rltrain.jobs.pool import members_of_each

        most = members_of_each(configs[group[0]], len(group))
        parts += [[group[i] for i in part] for part in group_jobs([configs[n] for n in group], most)]
    return parts
