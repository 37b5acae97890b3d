"""`hydra/launcher=population`, the default of `-m`: jobs that differ in numbers only are trained as one program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from rltrain.commands.checked_job import CheckedJob
from rltrain.config.override_text import as_typed, own_overrides
from rltrain.config.population import differing_keys, divided, group_jobs
from rltrain.config.run_name import remove_unused
from rltrain.config.schema import RunConfig
from rltrain.envs.process_state import variables_set
from rltrain.errors import Interrupted, RequestError
from rltrain.terminal.output import say
from rltrain.terminal.text import counted_names, wrapped

if TYPE_CHECKING:
    from rltrain.jobs.training import JobOutcome


class PopulationLauncher(Launcher):
    """Runs the jobs of a sweep in groups; a group of one is a run like any other.

    Attributes:
        here: whether the jobs train on this machine.
    """

    here = True

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context, self._task, self._config = hydra_context, task_function, config

    def prepare(self, jobs: Sequence[CheckedJob]) -> None:
        """Takes the jobs that `launch` will run."""
        self._jobs = jobs

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        if all(job.config.dry_run for job in self._jobs):
            return self._look_at_each_kind()
        return self._train(job_overrides)

    def _train(self, job_overrides: Sequence[Sequence[str]]) -> list[JobReturn]:
        # Callbacks are told of the beginning and the end of each job.
        alone = [[number] for number in range(len(self._jobs))] if self._config.hydra.callbacks else None
        groups = alone or _groups(self._jobs)
        own = [as_typed(overrides) for overrides in own_overrides(job_overrides)]
        returns = self._train_together([group for group in groups if len(group) > 1], own)
        for group in groups:
            if len(group) == 1:
                returns[group[0]] = self._run(self._jobs[group[0]])
        return [returns[number] for number in range(len(self._jobs))]

    def _look_at_each_kind(self) -> list[JobReturn]:
        """A dry run of the first job of each kind: those that would train as one program differ in numbers only."""
        kinds = group_jobs([replace(job.config, dry_run=False) for job in self._jobs])
        returns: dict[int, JobReturn] = {}
        for first, *others in kinds:
            returns[first] = self._run(self._jobs[first])
            returns |= {number: returned(self._jobs[number], None) for number in others}
            if others:
                alike = [self._jobs[number] for number in (first, *others)]
                names = counted_names("job", [str(job.number) for job in alike[1:]])
                keys = ", ".join(differing_keys([job.config for job in alike]))
                say(wrapped(f"alike     {names}: differing in {keys or 'nothing'} only"))
        return [returns[number] for number in range(len(self._jobs))]

    def _run(self, job: CheckedJob) -> JobReturn:
        config: DictConfig = self._context.config_loader.load_sweep_config(self._config, list(job.planned.overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = job.number
        return run_job(
            hydra_context=self._context,
            task_function=self._task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )

    def _train_together(self, groups: list[list[int]], own: Sequence[str]) -> dict[int, JobReturn]:
        if not groups:
            return {}
        from rltrain.jobs.pool import train_populations
        from rltrain.jobs.training import Job

        populations: list[list[Job]] = []
        for group in groups:
            members = [(self._jobs[number], own[number]) for number in group]
            for job, _ in members:
                job.make_folder()
            populations.append(
                [Job(job.config, job.folder, own=apart, variables=job.variables) for job, apart in members]
            )
        try:
            outcomes = train_populations(populations)
        except Interrupted as stop:
            raise SystemExit(stop.exit_code) from stop
        except RequestError:
            for folder in (job.folder for population in populations for job in population):
                remove_unused(folder)
            raise
        return {
            number: returned(self._jobs[number], outcome)
            for group, found in zip(groups, outcomes, strict=True)
            for number, outcome in zip(group, found, strict=True)
        }


def returned(job: CheckedJob, outcome: JobOutcome | None) -> JobReturn:
    """Hydra's form of a job's outcome."""
    status = JobStatus.FAILED if isinstance(outcome, BaseException) else JobStatus.COMPLETED
    returned = JobReturn(overrides=list(job.planned.overrides), status=status)
    returned.return_value = outcome
    return returned


def _groups(jobs: Sequence[CheckedJob]) -> list[list[int]]:
    """The jobs that share a program, and so a process with its environment variables; each group as large as memory,
    cores and GPUs make it worth while."""
    alike: dict[str, list[int]] = {}
    for number, job in enumerate(jobs):
        alike.setdefault(repr(sorted(job.variables.items())), []).append(number)
    parts: list[list[int]] = []
    for numbers in alike.values():
        with variables_set(jobs[numbers[0]].variables):
            parts += [[numbers[i] for i in part] for part in _sized_groups([jobs[n].config for n in numbers])]
    return parts


def _sized_groups(configs: Sequence[RunConfig]) -> list[list[int]]:
    parts: list[list[int]] = []
    for group in group_jobs(configs):
        if len(group) == 1:
            parts.append(group)
            continue
        from rltrain.jobs.pool import members_of_each

        parts += divided(group, members_of_each(configs[group[0]], len(group)))
    return parts
