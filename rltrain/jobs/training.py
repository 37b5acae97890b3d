"""Jobs that are trained as one program, from their configs to run folders with everything in them."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rltrain.config.schema import RunConfig
from rltrain.envs.process_state import process_kept
from rltrain.errors import CheckpointError, GoesOn, Interrupted, Pruned, RequestError, RunFailed, one_line
from rltrain.jobs.build import (
    POPULATION,
    Parts,
    build,
    build_evaluator,
    build_logger,
    open_evaluator,
)
from rltrain.jobs.checkpointer import UNFIT, RunCheckpointer, evaluated_before
from rltrain.jobs.filming import check_filming
from rltrain.jobs.initial_network import load_initial_network
from rltrain.jobs.last_words import final_evaluation
from rltrain.jobs.leaving import leaving
from rltrain.jobs.record import Changes, conditions, draw, ending, explained, timing, write_result, write_start
from rltrain.jobs.telling import Ended, Telling
from rltrain.loggers.evaluation_console import EvaluationConsole
from rltrain.loggers.jsonl import read_evaluations
from rltrain.loggers.logger import Logger, NullLogger
from rltrain.storage import checkpoint_folders
from rltrain.storage.checkpoint import Checkpoint, read_checkpoint, remove_later
from rltrain.storage.files import written_together
from rltrain.storage.run_folder import RunFolder
from rltrain.terminal.output import say
from rltrain.training.evaluator import REPORT_EPISODES, REPORT_KEY, EpisodeStatistics, Evaluator
from rltrain.training.loop import Loop
from rltrain.training.member import Output
from rltrain.training.pruning import PruningRule, SeedPruning, TrialPruning
from rltrain.training.saving import last_logged_step
from rltrain.training.shared_evaluation import evaluate_apart
from rltrain.training.stopping import WHILE_EVALUATING, StopSignal

_log = logging.getLogger(__name__)
JobOutcome = float | BaseException
"""The last network's greedy mean return, or why there is none."""


@dataclass
class Job:
    """One job of a training.

    Attributes:
        source: the checkpoint from which it goes on; None: from the beginning.
        changes: what a resume changed of its config.
        own: the overrides that set it apart from the sweep's other jobs; "": from those of its population.
        variables: environment variables that hold meanwhile, the same for all of a population.
        pruning: when the trial is given up of whose seeds it is one. The others are in the same population, or what
            they have found is known.
    """

    config: RunConfig
    folder: Path
    source: Path | Checkpoint | None = None
    changes: Changes = ()
    own: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    pruning: PruningRule | SeedPruning | None = None


class Training:
    """Trains jobs, evaluates and records them. A member that fails leaves the others alone; a signal saves all.

    Args:
        runs: the folder of each, held.
        stop: active.
    """

    def __init__(self, jobs: Sequence[Job], runs: Sequence[RunFolder], telling: Telling, stop: StopSignal) -> None:
        self._jobs, self._runs, self._telling, self._stop = jobs, runs, telling, stop
        self._configs = tuple(job.config for job in jobs)
        self._loggers: list[Logger] = []
        self._sources: list[Checkpoint | None] = []
        self._outcomes: dict[int, JobOutcome] = {}
        self._began = False

    def run(self) -> list[JobOutcome]:
        """The outcome of each job: GoesOn of the last ones of a population, where these are done sooner by themselves.

        Raises:
            RequestError: the request cannot be carried out here.
            Interrupted: a signal stopped it, after saving.
        """
        with process_kept():
            started = time.time()
            try:
                self._sources = [_read(job.source) for job in self._jobs]
                self._train()
            except BaseException as error:
                if isinstance(error, RequestError) and not self._began:
                    raise  # new folders stay empty; what the records of older ones say still holds
                if not isinstance(error, Interrupted | KeyboardInterrupt):
                    _log.error("the run failed", exc_info=error)
                for number, run in enumerate(self._runs):
                    self._outcomes.setdefault(number, _as_failure(error, run))
                if isinstance(error, Interrupted) or not isinstance(error, Exception):
                    self._write_records(started)
                    raise
            self._write_records(started)
            return [self._outcomes[number] for number in range(len(self._jobs))]

    def _train(self) -> None:
        configs, first = self._configs, self._sources[0]
        for run in self._runs:
            checkpoint_folders.clean(run.path)
        with build(configs[0], configs if len(configs) > 1 else (), first) as parts:
            most = max(configs[0].eval.episodes, REPORT_EPISODES)
            display, before = EvaluationConsole(bar=self._telling.console), evaluated_before(first)
            with closing(build_evaluator(configs, most, parts.envs.statistics, display, before)) as evaluator:
                failed = True
                try:
                    self._train_with(parts, evaluator)
                    failed = False
                except (Interrupted, KeyboardInterrupt):
                    failed = False
                    raise
                finally:
                    for number, logger in enumerate(self._loggers):
                        one_failed = failed or isinstance(self._outcomes.get(number), RunFailed)
                        logger.close(False if one_failed else None)

    def _train_with(self, parts: Parts, evaluator: Evaluator) -> None:
        for number, job in enumerate(self._jobs):
            if job.config.init_from is not None and job.source is None:
                load_initial_network(parts.agent, job.config, parts.envs, number)
        open_evaluator(evaluator, self._longest)
        check_filming(self._configs[0])
        screens = self._telling.screens([0 if source is None else source.step for source in self._sources])
        loop = self._loop(parts, evaluator, screens)
        exact = self._load(loop)
        now = conditions(parts)
        with written_together():
            for number, (job, run) in enumerate(zip(self._jobs, self._runs, strict=True)):
                with self._failing_alone(number):
                    write_start(run, job.config, now, job.changes)
        self._began = True
        say(self._telling.header(parts, self._sources[0], exact))
        early = {number: failure for number, failure in self._outcomes.items() if isinstance(failure, RunFailed)}
        for number, failure in early.items():
            loop.fail(number, failure)
        loop.run()
        for number, failure in loop.failures.items():
            if number not in early:
                self._note_failure(number, failure)
        if loop.left is not None:
            self._outcomes |= {number: GoesOn(loop.members[number].step, loop.left) for number in loop.unfinished}
        elif loop.unfinished:
            raise self._telling.stopped(self._stop.exit_code, loop.members)
        for number, member in enumerate(loop.members):
            if member.pruned:
                self._outcomes.setdefault(number, Pruned(f"pruned at step {member.step:,}"))
        for screen in screens:
            screen.close()
        self._report(loop, evaluator, parts)

    @property
    def _longest(self) -> RunConfig:
        return max(self._configs, key=lambda config: config.total_steps)

    def _loop(self, parts: Parts, evaluator: Evaluator, screens: Sequence[Logger]) -> Loop:
        savers = []
        for config, run, source, screen in zip(self._configs, self._runs, self._sources, screens, strict=True):
            log_from = None if source is None else last_logged_step(source)
            if source is None and (run.record.exists() or run.metrics.exists()):
                log_from = 0  # an earlier try that ended before its first checkpoint
            number = len(self._loggers)
            self._loggers.append(NullLogger())
            with self._failing_alone(number):
                remove_later(run.path, -1 if source is None else source.step)
                self._loggers[number] = build_logger(config, run, log_from, screen)
            savers.append(RunCheckpointer(config, run, parts, evaluator, self._loggers[-1]))
        outputs = [Output(*each) for each in zip(self._loggers, savers, self._prunings(), strict=True)]
        told = self._telling.failed
        leave = partial(leaving, self._jobs, parts)
        loop = Loop(self._configs, parts.envs, parts.agent, evaluator, outputs, parts.device, self._stop, told, leave)
        if len(savers) > 1:
            names = [job.folder.name for job in self._jobs]
            for number, saver in enumerate(savers):
                saver.entries = partial(_entry, loop, names, number)
        return loop

    def _prunings(self) -> list[SeedPruning | None]:
        """Each member's part in the pruning of its trial, which knows what was evaluated before the checkpoints."""
        trials: dict[int, TrialPruning] = {}
        found: list[SeedPruning | None] = []
        seeds: dict[int, int] = {}
        for job, run, source in zip(self._jobs, self._runs, self._sources, strict=True):
            if not isinstance(job.pruning, PruningRule) or job.config.eval.period is None:
                found.append(job.pruning if isinstance(job.pruning, SeedPruning) else None)
                continue
            trial = trials.setdefault(job.pruning.trial, TrialPruning(job.pruning))
            seed = seeds[job.pruning.trial] = seeds.get(job.pruning.trial, -1) + 1
            if source is not None:
                trial.report(seed, read_evaluations(run.metrics, job.config.eval.period, last_logged_step(source)))
            found.append(SeedPruning(trial, seed))
        return found

    def _load(self, loop: Loop) -> bool:
        """Whether all running episodes go on as they were.

        Raises:
            CheckpointError: a state does not fit.
        """
        sources = [source for source in self._sources if source is not None]
        if not sources:
            return True
        # A single run that was one of a population goes on by itself.
        moment = max(int(source.manifest[POPULATION]["moment"]) for source in sources) if len(sources) > 1 else 0
        try:
            return all(loop.load_state_dicts([{**s.tensors, "state": s.state} for s in sources], moment))
        except UNFIT as error:
            where = sources[0].folder if len(sources) == 1 else self._jobs[0].folder.parent
            raise CheckpointError(f"{where}: does not fit this run: {one_line(error)}") from error

    def _report(self, loop: Loop, evaluator: Evaluator, parts: Parts) -> None:
        """Evaluates the trained networks and reports, over the episodes there are where a signal stopped that."""
        trained = [number for number in range(len(self._jobs)) if number not in self._outcomes]
        if not trained:
            return
        parts.envs.close()  # a machine may hold no more environments than these
        say(final_evaluation(self._longest, REPORT_EPISODES, parts.envs.max_episode_steps))
        self._stop.answer, self._stop.saves = self._stop.answer and WHILE_EVALUATING, False
        keys, stop = dict.fromkeys(trained, REPORT_KEY), self._stop
        finals = evaluate_apart(evaluator, parts.agent, REPORT_EPISODES, keys, lambda: stop.requested, partly=True)
        evaluated = self._write_results(loop, parts, finals or {})
        ended = self._draw(loop, evaluated)  # from result.json, which has its name by now
        for text in self._telling.summary(ended, parts):
            say(text)
        if any(number not in self._outcomes for number in trained):
            raise self._telling.stopped_evaluating(stop.exit_code, loop.members, ended)

    @written_together()
    def _write_results(
        self, loop: Loop, parts: Parts, finals: Mapping[int, EpisodeStatistics | RunFailed]
    ) -> dict[int, EpisodeStatistics]:
        """Writes the results of the members that were evaluated, and returns these; one that was stopped before an
        episode had ended has none."""
        evaluated: dict[int, EpisodeStatistics] = {}
        for number, final in finals.items():
            if isinstance(final, RunFailed):
                self._note_failure(number, final)
                continue
            logger, threshold = self._loggers[number], parts.envs.reward_threshold
            with self._failing_alone(number):
                write_result(self._runs[number], loop.members[number], final, threshold, logger)
                evaluated[number] = final
        return evaluated

    @written_together()
    def _draw(self, loop: Loop, evaluated: Mapping[int, EpisodeStatistics]) -> dict[int, Ended]:
        """Draws the pictures of the members that have results, and notes how they ended."""
        ended: dict[int, Ended] = {}
        for number, final in evaluated.items():
            run, config, member = self._runs[number], self._configs[number], loop.members[number]
            ended[number] = Ended(member, final, draw(run, config, member, curve=self._telling.console))
            if not final.interrupted:
                self._outcomes[number] = final.mean
                self._loggers[number].close(True)
        return ended

    @contextmanager
    def _failing_alone(self, number: int) -> Iterator[None]:
        """Lets a failure inside end that job alone, where there are several."""
        try:
            yield
        except RunFailed as failure:
            if len(self._jobs) == 1:
                raise
            self._note_failure(number, failure)

    def _note_failure(self, number: int, failure: RunFailed) -> None:
        self._outcomes[number] = _as_failure(failure, self._runs[number])
        with suppress(OSError), self._runs[number].log.open("a") as log:
            traceback.print_exception(failure, file=log)

    @written_together()
    def _write_records(self, started: float) -> None:
        names = {"population": [job.folder.name for job in self._jobs]} if len(self._jobs) > 1 else {}
        for number, run in enumerate(self._runs):
            with self._failing_alone(number):
                run.write_record(**ending(self._outcomes[number]), **names, **timing(started))


def _read(source: Path | Checkpoint | None) -> Checkpoint | None:
    return read_checkpoint(source) if isinstance(source, Path) else source


def _as_failure(error: BaseException, run: RunFolder) -> BaseException:
    if isinstance(error, Interrupted):
        return error
    failure = explained(error, run)
    if failure is not error:
        failure.__cause__ = error
    return failure


def _entry(loop: Loop, names: list[str], member: int) -> dict[str, Any]:
    """Entry about the population in the manifest of a member's checkpoint."""
    ended = loop.members[member].done
    return {POPULATION: {"members": names, "member": member, "moment": loop.vector_steps, "ended": ended}}
