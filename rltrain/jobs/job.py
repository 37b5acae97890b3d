"""One job: from a validated config to a run folder with everything in it."""

from __future__ import annotations

import logging
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rltrain.config.info import ComposeInfo
from rltrain.config.schema import RunConfig
from rltrain.envs.process_state import process_kept
from rltrain.envs.trial import try_random_steps
from rltrain.errors import Interrupted, Pruned, RequestError, RunFailed
from rltrain.jobs.build import (
    Parts,
    build,
    build_evaluator,
    build_logger,
    load_initial_network,
    open_evaluator,
)
from rltrain.jobs.checkpointer import RunCheckpointer, evaluated_before, load
from rltrain.jobs.filming import check_filming
from rltrain.jobs.messages import (
    dry_run_text,
    final_evaluation,
    header,
    stopped,
    stopped_before_result,
    stopped_evaluating,
    summary,
)
from rltrain.jobs.record import (
    OUT_OF_MEMORY,
    Changes,
    conditions,
    draw,
    ending,
    explained,
    lacks_memory,
    timing,
    write_result,
    write_start,
)
from rltrain.loggers.console import ConsoleLogger
from rltrain.loggers.evaluation_console import EvaluationConsole
from rltrain.loggers.logger import Logger
from rltrain.storage import checkpoint, checkpoint_folders
from rltrain.storage.run_folder import RunFolder
from rltrain.terminal.output import say
from rltrain.training.evaluator import REPORT_EPISODES, REPORT_KEY, EpisodeStatistics, Evaluator
from rltrain.training.loop import Loop
from rltrain.training.member import Member, Output
from rltrain.training.pruning import SeedPruning
from rltrain.training.saving import last_logged_step
from rltrain.training.stopping import WHILE_EVALUATING, StopSignal

_log = logging.getLogger(__name__)


def train(
    config: RunConfig,
    folder: Path,
    console: bool = True,
    info: ComposeInfo | None = None,
    pruning: SeedPruning | None = None,
) -> float:
    """Trains one job in `folder` and returns the last network's greedy mean return.

    Args:
        console: a single run, not a sweep's job: a progress bar may be drawn, and its learning curve is.
        info: how the config came about, for the header.
        pruning: of the trial whose seed it is.

    Raises:
        RequestError: the request cannot be carried out here (no such device, a foreign checkpoint to start from).
        RunFailed: the run failed; its checkpoints are intact.
        Interrupted: a signal stopped it, after saving.
        Pruned: the trial was given up.
    """
    return _Job(config, folder, console, info or ComposeInfo(), None, pruning=pruning).run()


def resume(
    config: RunConfig,
    folder: Path,
    source: checkpoint.Checkpoint,
    changes: Changes = (),
    console: bool = True,
    pruning: SeedPruning | None = None,
) -> float:
    """Continues the run in `folder` from `source`; like `train` otherwise.

    Args:
        changes: what is new in its config, for run.json.
    """
    log_from = last_logged_step(source)
    return _Job(config, folder, console, ComposeInfo(), source, log_from, changes, pruning).run()


def begin_again(
    config: RunConfig,
    folder: Path,
    changes: Changes = (),
    console: bool = True,
    pruning: SeedPruning | None = None,
) -> float:
    """Trains a run whose folder holds no checkpoint, though it may hold rows and events of an earlier try."""
    return _Job(config, folder, console, ComposeInfo(), None, 0, changes, pruning).run()


def dry_run(config: RunConfig, info: ComposeInfo | None = None) -> None:
    """Builds everything, tries the environments, prints shapes, sizes and memory, and trains nothing; makes no folder.

    Raises:
        RequestError: the request cannot be carried out here.
        RunFailed: memory does not suffice, or an environment makes a mistake in some random steps.
    """
    try:
        with process_kept(), build(config) as parts:
            with closing(build_evaluator([config], config.eval.episodes, parts.envs.statistics)) as evaluator:
                open_evaluator(evaluator, config)
            check_filming(config)
            say(header(config, info or ComposeInfo(), parts))
            say(dry_run_text(parts, try_random_steps(parts.envs)))
    except (RuntimeError, MemoryError) as error:
        if not lacks_memory(error):
            raise
        raise RunFailed(OUT_OF_MEMORY) from error


@dataclass
class _Job:
    config: RunConfig
    folder: Path
    console: bool
    info: ComposeInfo
    source: checkpoint.Checkpoint | None
    log_from: int | None = None  # what was logged of later steps is dropped; None: the folder is new
    changes: Changes = ()
    pruning: SeedPruning | None = None
    began: bool = False

    def run(self) -> float:
        with process_kept(), StopSignal() as stop, RunFolder(self.folder) as run:
            started = time.time()
            try:
                mean = self._train(run, stop)
            except (Interrupted, KeyboardInterrupt, Pruned) as error:
                run.write_record(**ending(error), **timing(started))
                raise
            except BaseException as error:
                if isinstance(error, RequestError) and not self.began:
                    raise  # a new folder stays empty; what the record of an older one says still holds
                _log.error("the run failed", exc_info=error)
                failure = explained(error, run)
                run.write_record(**ending(failure), **timing(started))
                if failure is error:
                    raise
                raise failure from error
            run.write_record(**ending(mean), **timing(started))
            return mean

    def _train(self, run: RunFolder, stop: StopSignal) -> float:
        config, source = self.config, self.source
        checkpoint_folders.clean(run.path)
        with (
            build(config, source=source) as parts,
            closing(self._evaluator(parts)) as evaluator,
        ):
            if config.init_from is not None and source is None:
                load_initial_network(parts.agent, config, parts.envs)
            open_evaluator(evaluator, config)
            check_filming(config)
            screen = ConsoleLogger(
                config.total_steps, self.log_from or 0, may_end_early=config.may_end_early, bar=self.console
            )
            logger = build_logger(config, run, self.log_from, screen)
            try:
                saver = RunCheckpointer(config, run, parts, evaluator, logger)
                output = Output(logger, saver, self.pruning)
                loop = Loop([config], parts.envs, parts.agent, evaluator, [output], parts.device, stop)
                exact = source is None or load(loop, source)
                write_start(run, config, conditions(parts), self.changes)
                self.began = True
                say(header(config, self.info, parts, run.path, source, exact))
                loop.run()
                [member] = loop.members
                if not member.done:
                    raise stopped(config, stop.exit_code, member.step, run.path)
                if member.pruned:
                    raise Pruned(f"pruned at step {member.step:,}")
                screen.close()
                mean = self._finish(run, member, evaluator, parts, stop, logger)
                logger.close(True)
            finally:
                logger.close()
            return mean

    def _evaluator(self, parts: Parts) -> Evaluator:
        most = max(self.config.eval.episodes, REPORT_EPISODES)
        display, before = EvaluationConsole(bar=self.console), evaluated_before(self.source)
        return build_evaluator([self.config], most, parts.envs.statistics, display, before)

    def _finish(
        self, run: RunFolder, member: Member, evaluator: Evaluator, parts: Parts, stop: StopSignal, logger: Logger
    ) -> float:
        """Evaluates the trained network and reports, over the episodes there are where a signal stopped that."""
        config = self.config
        parts.envs.close()  # a machine may hold no more environments than these
        say(final_evaluation(config, REPORT_EPISODES, parts.envs.max_episode_steps))
        stop.answer = WHILE_EVALUATING
        final = evaluator.evaluate(parts.agent, REPORT_EPISODES, REPORT_KEY, lambda: stop.requested, partly=True)
        if final is None:
            raise stopped_before_result(config, stop.exit_code, member.step, run.path)
        mean = self._report(run, member, final, parts, logger)
        if final.interrupted:
            raise stopped_evaluating(config, stop.exit_code, final, run.path)
        return mean

    def _report(self, run: RunFolder, member: Member, final: EpisodeStatistics, parts: Parts, logger: Logger) -> float:
        """result.json, pictures and the table at the end."""
        threshold = parts.envs.reward_threshold
        write_result(run, member, final, threshold, logger)
        pictures = draw(run, self.config, parts.agent, curve=self.console)
        say(summary(self.config, member, final, parts, run.path, pictures))
        return final.mean
