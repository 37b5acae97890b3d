"""Several jobs of a sweep as one program, each with its own run folder."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rltrain.config.population import differences
from rltrain.config.schema import RunConfig
from rltrain.envs.process_state import process_kept, variables_set
from rltrain.errors import CheckpointError, Interrupted, Pruned, RequestError, RunFailed
from rltrain.jobs.build import Parts, build, build_evaluator, build_logger, load_initial_network, open_evaluator
from rltrain.jobs.checkpointer import UNFIT, RunCheckpointer, evaluated_before
from rltrain.jobs.filming import check_filming
from rltrain.jobs.messages import final_evaluation
from rltrain.jobs.population_messages import population_header, population_line, population_summary
from rltrain.jobs.record import conditions, draw, ending, explained, timing, write_result, write_start
from rltrain.loggers.evaluation_console import EvaluationConsole
from rltrain.loggers.jsonl import read_evaluations
from rltrain.loggers.logger import Logger
from rltrain.loggers.population_console import PopulationConsole
from rltrain.storage import checkpoint, checkpoint_folders
from rltrain.storage.files import written_together
from rltrain.storage.run_folder import RunFolder
from rltrain.terminal.output import say
from rltrain.terminal.table import MOST_ROWS
from rltrain.terminal.text import rltrain_command
from rltrain.training.evaluator import REPORT_EPISODES, REPORT_KEY, EpisodeStatistics, Evaluator
from rltrain.training.loop import Loop
from rltrain.training.member import Member, Output
from rltrain.training.pruning import PruningRule, SeedPruning, TrialPruning
from rltrain.training.saving import last_logged_step
from rltrain.training.stopping import WHILE_EVALUATING, StopSignal
from rltrain.training.views import MemberAgent, evaluate_apart

_log = logging.getLogger(__name__)
ENTRY = "population"
"""In a checkpoint's manifest: {"members": [folder, ...], "member": index, "moment": vector steps, "ended": bool}."""


@dataclass
class MemberJob:
    """One job of a population.

    Attributes:
        source: the checkpoint from which it goes on; None: from the beginning.
        changes: what a resume changed of its config.
        own: the overrides that set it apart from the sweep's other jobs; "": from those of its population.
        variables: environment variables that hold meanwhile, the same for all of a population.
        pruning: when the trial is given up of whose seeds it is one; the others are in the same population.
    """

    config: RunConfig
    folder: Path
    source: Path | None = None
    changes: list[dict[str, Any]] = field(default_factory=list)
    own: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    pruning: PruningRule | None = None


Outcome = float | BaseException
"""The last network's greedy mean return, or why there is none."""


def train_population(jobs: Sequence[MemberJob], answers_signals: bool = True) -> list[Outcome]:
    """Trains the jobs as one program; the outcome of each.

    Args:
        answers_signals: whether a signal is acknowledged on stderr; not where the caller has done so.

    Raises:
        RequestError: the request cannot be carried out here, or a folder is in use.
        Interrupted: a signal stopped it, after saving.
    """
    with variables_set(jobs[0].variables):
        return _PopulationJob(list(jobs), answers_signals).run()


@dataclass
class _PopulationJob:
    jobs: list[MemberJob]
    answers_signals: bool
    runs: list[RunFolder] = field(default_factory=list)
    loggers: list[Logger] = field(default_factory=list)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    sources: list[checkpoint.Checkpoint | None] = field(default_factory=list)
    began: bool = False

    def run(self) -> list[Outcome]:
        stopping = StopSignal() if self.answers_signals else StopSignal("")
        with process_kept(), stopping as stop, ExitStack() as stack:
            self.runs = [stack.enter_context(RunFolder(job.folder)) for job in self.jobs]
            started = time.time()
            try:
                self.sources = [None if j.source is None else checkpoint.read_checkpoint(j.source) for j in self.jobs]
                self._train(stop)
            except BaseException as error:
                if isinstance(error, RequestError) and not self.began:
                    raise  # new folders stay empty; what the records of older ones say still holds
                if not isinstance(error, Interrupted):
                    _log.error("the population failed", exc_info=error)
                self._end_all(error, started)
                if isinstance(error, Interrupted) or not isinstance(error, Exception):
                    raise
            self._write_records(started)
            return [self.outcomes[member] for member in range(len(self.jobs))]

    def _train(self, stop: StopSignal) -> None:
        configs = tuple(job.config for job in self.jobs)
        for run in self.runs:
            checkpoint_folders.clean(run.path)
        with build(configs[0], configs, self.sources[0]) as parts:
            self._load_initial_networks(parts)
            most = max(configs[0].eval.episodes, REPORT_EPISODES)
            display = EvaluationConsole(bar=False)
            evaluator = build_evaluator(
                configs, most, parts.envs.statistics, display, evaluated_before(self.sources[0])
            )
            try:
                open_evaluator(evaluator, max(configs, key=lambda config: config.total_steps))
                check_filming(configs[0])
                loop = self._loop(parts, evaluator, stop)
                say(population_header(configs, parts, [job.folder for job in self.jobs], self.sources[0]))
                loop.run()
                self._note_failures(loop)
                if stop.requested:
                    raise self._stopped(stop)
                for number, member in enumerate(loop.members):
                    if member.pruned:
                        self.outcomes.setdefault(number, Pruned(f"pruned at step {member.step:,}"))
                self._report(loop, evaluator, parts, stop)
            finally:
                for logger in self.loggers:
                    logger.close()
                evaluator.close()

    def _loop(self, parts: Parts, evaluator: Evaluator, stop: StopSignal) -> Loop:
        starts = [0 if source is None else source.step for source in self.sources]
        configs = [job.config for job in self.jobs]
        early = any(config.may_end_early for config in configs)
        console = PopulationConsole([config.total_steps for config in configs], starts, may_end_early=early)
        savers = []
        for member, (job, run, source) in enumerate(zip(self.jobs, self.runs, self.sources, strict=True)):
            log_from = None if source is None else last_logged_step(source)
            if source is None and run.metrics.exists():
                log_from = 0  # an earlier try that ended before its first checkpoint
            self.loggers.append(build_logger(job.config, run, log_from, console.of_member(member)))
            savers.append(RunCheckpointer(job.config, run, parts, evaluator, self.loggers[-1]))
        outputs = [Output(*parts) for parts in zip(self.loggers, savers, self._prunings(), strict=True)]
        loop = Loop(configs, parts.envs, parts.agent, evaluator, outputs, parts.device, stop)
        names = [job.folder.name for job in self.jobs]
        for member, saver in enumerate(savers):
            saver.entries = partial(_entry, loop, names, member)
        self._load(loop)
        now = conditions(parts)
        with written_together():
            for job, run in zip(self.jobs, self.runs, strict=True):
                write_start(run, job.config, now, job.changes)
        self.began = True
        return loop

    def _prunings(self) -> list[SeedPruning | None]:
        """Each member's part in the pruning of its trial, which knows what was evaluated before the checkpoints."""
        trials: dict[int, TrialPruning] = {}
        found: list[SeedPruning | None] = []
        seeds: dict[int, int] = {}
        for job, run, source in zip(self.jobs, self.runs, self.sources, strict=True):
            if job.pruning is None or job.config.eval.period is None:
                found.append(None)
                continue
            trial = trials.setdefault(job.pruning.trial, TrialPruning(job.pruning))
            seed = seeds[job.pruning.trial] = seeds.get(job.pruning.trial, -1) + 1
            if source is not None:
                trial.report(seed, read_evaluations(run.metrics, job.config.eval.period, last_logged_step(source)))
            found.append(SeedPruning(trial, seed))
        return found

    def _load_initial_networks(self, parts: Parts) -> None:
        for member, job in enumerate(self.jobs):
            if job.config.init_from is not None and job.source is None:
                load_initial_network(parts.agent, job.config, parts.envs, member)

    def _load(self, loop: Loop) -> None:
        sources = [source for source in self.sources if source is not None]
        if not sources:
            return
        moment = max(int(source.manifest[ENTRY]["moment"]) for source in sources)
        try:
            loop.load_state_dicts([{**source.tensors, "state": source.state} for source in sources], moment)
        except UNFIT as error:
            raise CheckpointError(f"{self.jobs[0].folder.parent}: its checkpoints do not fit: {error}") from error

    def _report(self, loop: Loop, evaluator: Evaluator, parts: Parts, stop: StopSignal) -> None:
        """Every member that ended: its result, its curve, its line."""
        ended = [member for member in range(len(self.jobs)) if member not in self.outcomes]
        if not ended:
            return
        keys = dict.fromkeys(ended, REPORT_KEY)
        parts.envs.close()  # a machine may hold no more than these
        longest = max((job.config for job in self.jobs), key=lambda config: config.total_steps)
        say(final_evaluation(longest, REPORT_EPISODES, parts.envs.max_episode_steps))
        if self.answers_signals:
            stop.answer = WHILE_EVALUATING
        finals = evaluate_apart(evaluator, parts.agent, REPORT_EPISODES, keys, lambda: stop.requested, partly=True)
        told = self._write_results(loop, parts, {} if finals is None else finals)
        self._tell(told, parts.envs.reward_threshold)
        if any(member not in self.outcomes for member in ended):
            raise self._stopped(stop)

    @written_together()
    def _write_results(
        self, loop: Loop, parts: Parts, finals: Mapping[int, EpisodeStatistics | RunFailed]
    ) -> dict[int, tuple[Member, EpisodeStatistics]]:
        """Writes the results of the members that were evaluated; one that was stopped before an episode had ended has
        none."""
        told: dict[int, tuple[Member, EpisodeStatistics]] = {}
        for member, final in finals.items():
            if isinstance(final, RunFailed):
                self.outcomes[member] = final
                continue
            of_loop, run, config = loop.members[member], self.runs[member], self.jobs[member].config
            write_result(run, of_loop, final, parts.envs.reward_threshold, self.loggers[member])
            draw(run, config, MemberAgent(parts.agent, member, config.num_envs), curve=False)
            told[member] = of_loop, final
            if not final.interrupted:
                self.outcomes[member] = final.mean
                self.loggers[member].close(True)
        return told

    def _tell(self, told: Mapping[int, tuple[Member, EpisodeStatistics]], threshold: float | None) -> None:
        """Prints how members ended: a line for each where they are few, else one for all."""
        if len(told) > MOST_ROWS:
            say(population_summary(list(told.values()), threshold))
            return
        own = differences([job.config for job in self.jobs])
        for member, ended in told.items():
            job = self.jobs[member]
            say(population_line(job.folder.name, job.own or own[member], *ended, threshold))

    def _note_failures(self, loop: Loop) -> None:
        self.outcomes |= {member: explained(error, self.runs[member]) for member, error in loop.failures.items()}
        for member, failure in loop.failures.items():
            with suppress(OSError), self.runs[member].log.open("a") as log:
                traceback.print_exception(failure, file=log)

    def _stopped(self, stop: StopSignal) -> Interrupted:
        reason, sweep = Interrupted(stop.exit_code).reason, self.jobs[0].folder.parent
        again = rltrain_command("resume", sweep, env_id=self.jobs[0].config.imports)
        return Interrupted(stop.exit_code, f"{reason}, saved; `{again}` continues")

    def _end_all(self, error: BaseException, started: float) -> None:
        """The records of the members that had no outcome of their own when the whole program ended."""
        for member, run in enumerate(self.runs):
            self.outcomes.setdefault(member, error if isinstance(error, Interrupted) else explained(error, run))
        if isinstance(error, Interrupted) or not isinstance(error, Exception):
            self._write_records(started)

    @written_together()
    def _write_records(self, started: float) -> None:
        for member, run in enumerate(self.runs):
            names = [job.folder.name for job in self.jobs]
            run.write_record(**ending(self.outcomes[member]), population=names, **timing(started))


def _entry(loop: Loop, names: list[str], member: int) -> dict[str, Any]:
    """Entry about the population in the manifest of a member's checkpoint."""
    ended = loop.members[member].done
    return {ENTRY: {"members": names, "member": member, "moment": loop.vector_steps, "ended": ended}}
