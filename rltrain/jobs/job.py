"""The jobs of the command line: one run, several as one program, or a look at one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from rltrain.config.info import ComposeInfo
from rltrain.config.schema import RunConfig
from rltrain.envs.process_state import process_kept, variables_set
from rltrain.envs.trial import try_random_steps
from rltrain.errors import GoesOn, Interrupted, RequestError, RunFailed, one_line
from rltrain.jobs.build import build, build_evaluator, open_evaluator
from rltrain.jobs.filming import check_filming
from rltrain.jobs.last_words import goes_on_from
from rltrain.jobs.messages import dry_run_text, header
from rltrain.jobs.record import OUT_OF_MEMORY, Changes, lacks_memory
from rltrain.jobs.telling import OfJobs, OfOneRun
from rltrain.jobs.training import Job, JobOutcome, Training
from rltrain.storage.checkpoint import Checkpoint
from rltrain.storage.checkpoint_folders import step_folder
from rltrain.storage.run_folder import RunFolder
from rltrain.terminal.output import say
from rltrain.terminal.places import at_origin
from rltrain.training.pruning import SeedPruning
from rltrain.training.stopping import StopSignal


def train(
    config: RunConfig,
    folder: Path,
    console: bool = True,
    info: ComposeInfo | None = None,
    source: Checkpoint | None = None,
    changes: Changes = (),
    pruning: SeedPruning | None = None,
    kept: bool = True,
) -> float:
    """Trains one job in `folder`, which may hold rows and events of an earlier try.

    Returns:
        The last network's greedy mean return.

    Args:
        console: a single run, not a sweep's job: a progress bar may be drawn, and its learning curve is.
        info: how the config came about, for the header.
        source: the checkpoint from which it goes on.
        changes: what is new in its config, for run.json.
        pruning: of the trial whose seed it is.
        kept: whether its checkpoints outlive it, so that it can be evaluated and continued.

    Raises:
        RequestError: the request cannot be carried out here (no such device, a foreign checkpoint to start from).
        RunFailed: the run failed; its checkpoints are intact.
        Interrupted: a signal stopped it, after saving.
        Pruned: the trial was given up.
    """
    job = Job(config, folder, source, changes, pruning=pruning)
    telling = OfOneRun(config, folder, info or ComposeInfo(), console, kept)
    with RunFolder(folder) as run, StopSignal() as stop:
        [outcome] = Training([job], [run], telling, stop).run()
    if stop.came and not console:  # once there was nothing left to stop: of this job, not of what comes after it
        raise Interrupted(stop.exit_code)
    if isinstance(outcome, RunFailed) and console and kept and (saved := goes_on_from(config, folder)):
        raise RunFailed(f"{outcome}\n{saved}") from outcome.__cause__
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def train_population(jobs: Sequence[Job], in_pool: bool = False) -> list[JobOutcome]:
    """Trains the jobs as one program, and the last ones without those that have ended; the outcome of each.

    Args:
        in_pool: whether other populations train beside it: lines say which jobs they speak of, and a signal is
            acknowledged by the pool.

    Raises:
        RequestError: the request cannot be carried out here, or a folder is in use.
        Interrupted: a signal stopped it, after saving.
    """
    with (
        variables_set(jobs[0].variables),
        StopSignal("") if in_pool else StopSignal() as stop,
        ExitStack() as stack,
    ):
        runs = [stack.enter_context(RunFolder(job.folder)) for job in jobs]
        answer = stop.answer
        outcomes = Training(jobs, runs, OfJobs(jobs, in_pool), stop).run()
        while left := {number: outcome for number, outcome in enumerate(outcomes) if isinstance(outcome, GoesOn)}:
            for number, run in enumerate(runs):
                if number not in left:
                    run.close()
            stop.answer, stop.saves = answer, True  # as before the evaluation of those that have ended
            numbers = [number for number, outcome in left.items() if outcome.together] or [*left][:1]
            further = [_from(jobs[number], left[number]) for number in numbers]
            found = _go_on(further, [runs[number] for number in numbers], in_pool, stop)
            for number, outcome in zip(numbers, found, strict=True):
                outcomes[number] = outcome
    if stop.came and not in_pool:
        raise Interrupted(stop.exit_code)
    return outcomes


def _from(job: Job, left: GoesOn) -> Job:
    """A job where it left those that have ended."""
    return replace(job, source=step_folder(job.folder, left.step), changes=())


def _go_on(jobs: Sequence[Job], runs: Sequence[RunFolder], in_pool: bool, stop: StopSignal) -> Sequence[JobOutcome]:
    try:
        return Training(jobs, runs, OfJobs(jobs, in_pool, goes_on=True), stop).run()
    except RequestError as error:  # a folder was changed meanwhile; other jobs go on
        return [error] * len(jobs)


def dry_run(config: RunConfig, info: ComposeInfo | None = None) -> None:
    """Builds everything, tries the environments, prints shapes, sizes and memory, and trains nothing; makes no folder.

    Raises:
        RequestError: the request cannot be carried out here.
        RunFailed: memory does not suffice, an environment makes a mistake in some random steps, or a part of it, a
            plug-in's perhaps, cannot be built.
    """
    try:
        with process_kept(), build(config) as parts:
            with closing(build_evaluator([config], config.eval.episodes, parts.envs.statistics)) as evaluator:
                open_evaluator(evaluator, config)
            check_filming(config)
            say(header(config, info or ComposeInfo(), parts))
            say(dry_run_text(parts, try_random_steps(parts.envs)))
    except (RequestError, RunFailed, Interrupted):
        raise
    except Exception as error:
        if isinstance(error, OSError) and isinstance(error.filename, str):
            raise  # the command says that it cannot be used
        # There is no folder, and so no log for a traceback.
        raise RunFailed(OUT_OF_MEMORY if lacks_memory(error) else f"{one_line(error)}{at_origin(error)}") from error
