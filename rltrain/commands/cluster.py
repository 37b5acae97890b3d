"""Jobs of a sweep as tasks on a cluster: how a new sweep begins there, and how `resume` goes on with one."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rltrain.config.application import launcher_of
from rltrain.config.launchers import (
    LAUNCHERS,
    Launcher,
    RayConfig,
    SlurmConfig,
    launcher_to_plain,
    name_of,
    needs_trust,
    stored_launcher,
)
from rltrain.config.population import divided, group_jobs
from rltrain.config.schema import RunConfig
from rltrain.config.stored import parse_value
from rltrain.errors import RequestError
from rltrain.machine import TASK_CORES
from rltrain.storage.task_folder import TASKS, Task, TaskFolder, read_tasks, write_tasks
from rltrain.terminal.shell import command_folder, rltrain_command

if TYPE_CHECKING:
    from rltrain.cluster.runner import Runner
    from rltrain.cluster.scheduler import Scheduler

_CHOICE, _KEYS = "hydra/launcher", "hydra.launcher."
_QUESTIONS, _SECONDS_BETWEEN = 4, 5.0
"""Of a cluster that does not answer: Slurm's controller may be restarting."""


def split_launcher(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides that are about the launcher, and the others."""
    of_launcher = [line for line in overrides if line.startswith((f"{_CHOICE}=", _KEYS))]
    return of_launcher, [line for line in overrides if line not in of_launcher]


def asked_launcher(sweep: Path, asked: Sequence[str], trust: bool) -> Launcher | None:
    """The launcher on which a sweep goes on: the one that is asked for, else that of its tasks; None: this machine.

    Raises:
        RequestError: there is no such launcher, or it is one that only begins sweeps.
    """
    choice = next((line.partition("=")[2] for line in reversed(asked) if line.startswith(f"{_CHOICE}=")), None)
    keys = [line for line in asked if line.startswith(_KEYS)]
    if choice is not None:
        name, given = launcher_of(list(asked))
        if name in LAUNCHERS:
            return stored_launcher({"name": name, **given}, {}, trust=True)
        if name == "population" and not keys:
            return None
        raise RequestError(f"{_CHOICE}={choice}: a sweep goes on with population (here), {' or '.join(LAUNCHERS)}")
    before = read_tasks(sweep)
    if before is None:
        if keys:
            raise RequestError(f"{keys[0]}: say {_CHOICE}= too: {', '.join(['population', *LAUNCHERS])}")
        return None
    values = {line.partition("=")[0].removeprefix(_KEYS): parse_value(line.partition("=")[2]) for line in keys}
    return stored_launcher(before.launcher, values, trust)


def train_on_cluster(
    sweep: Path,
    jobs: Mapping[Path, RunConfig],
    launcher: Launcher,
    words: Sequence[str] = (),
    imports: Sequence[str] = (),
) -> dict[Path, str]:
    """Trains jobs to their ends; why there is none, for the jobs of which that is not known from their folders.

    Args:
        words: what `rltrain resume` is told beside the sweep's folder.
        imports: each `module:name` of the jobs.

    Raises:
        RequestError: the cluster refuses the tasks.
        Interrupted: a signal stopped the wait.
    """
    from rltrain.cluster.finishing import TaskLoop

    scheduler = _scheduler(launcher, sweep)
    known = read_tasks(sweep)
    tasks = [] if known is None else list(known.tasks)
    wanted = {str(folder.relative_to(sweep)): config for folder, config in jobs.items()}
    same = known is not None and known.launcher.get("name") == name_of(launcher)
    live = _live(tasks, scheduler) if same else []
    new = [task for task in tasks if task not in live and not wanted.keys().isdisjoint(task.jobs)]
    in_tasks = {job for task in tasks for job in task.jobs}
    for group in task_groups({name: config for name, config in wanted.items() if name not in in_tasks}, launcher):
        new.append(Task(len(tasks), group))
        tasks.append(new[-1])

    def keep() -> None:
        write_tasks(sweep, launcher_to_plain(launcher), tasks)

    made = not (sweep / TASKS).exists()
    again = rltrain_command("resume", sweep, *(["trust=true"] if needs_trust(launcher) else []), imports=imports)
    runner = _runners(sweep, launcher, words)
    for task in new:  # also where the first submission is refused, there must be a place for the list
        TaskFolder(sweep, task.number).make()
    try:
        if new:
            keep()
        given_up = TaskLoop(sweep, scheduler, runner, launcher.retries, keep, again).run(new, live)
    except RequestError:
        if made and not any(task.id for task in tasks):
            shutil.rmtree(sweep / TASKS, ignore_errors=True)
        raise
    reasons = {number: f"task {number} {reason}" for number, reason in given_up.items()}
    return {sweep / job: reasons[task.number] for task in tasks if task.number in reasons for job in task.jobs}


def _scheduler(launcher: Launcher, sweep: Path) -> Scheduler:
    if isinstance(launcher, SlurmConfig):
        from rltrain.cluster.slurm import SlurmScheduler

        return SlurmScheduler(launcher, sweep)
    from rltrain.cluster.ray_tasks import RayScheduler

    return RayScheduler(launcher)


def _live(tasks: Sequence[Task], scheduler: Scheduler) -> list[Task]:
    """The tasks that are in the cluster already.

    Raises:
        RequestError: it does not answer; tasks that wait there would be submitted again.
    """
    submitted = [task for task in tasks if task.id]
    for question in range(_QUESTIONS):
        if question:
            time.sleep(_SECONDS_BETWEEN)
        looks = scheduler.look([task.id for task in submitted])
        if len(looks) == len(submitted):
            return [task for task in submitted if looks[task.id].state in ("queued", "running")]
    raise RequestError("the cluster does not tell which tasks of this sweep it still has: try again later")


def task_groups(jobs: Mapping[str, RunConfig], launcher: Launcher) -> list[tuple[str, ...]]:
    """The jobs of each task: those that train as one program, in parts, and then the others."""
    names, configs = list(jobs), list(jobs.values())
    groups = group_jobs(configs)
    together = [group for group in groups if len(group) > 1]
    alone = [group[0] for group in groups if len(group) == 1]
    parts = [part for group in (*together, alone) if group for part in divided(group, launcher.jobs_per_task)]
    return [tuple(names[number] for number in part) for part in sorted(parts)]


def _runners(sweep: Path, launcher: Launcher, words: Sequence[str]) -> Callable[[Task], Runner]:
    from rltrain.cluster.runner import Runner

    cores = launcher.num_cpus if isinstance(launcher, RayConfig) else launcher.cpus_per_task
    kept = {name: value for name, value in os.environ.items() if name == "PYTHONPATH" or name.startswith("RLTRAIN_")}
    if folders := [folder for folder in sys.path if folder and folder in os.environ.get("PYTHONPATH", "")]:
        kept["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, folders))
    env = {**kept, TASK_CORES: str(cores)}

    def runner(task: Task) -> Runner:
        line = ("resume", str(sweep), f"task={task.number}", *words)
        return Runner(str(sweep), task.number, line, str(command_folder()), env)

    return runner
