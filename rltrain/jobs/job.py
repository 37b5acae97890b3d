"""One job: from a validated config to a run folder with everything in it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from rltrain.config.algorithms import card_of
from rltrain.config.info import ComposeInfo
from rltrain.config.schema import RunConfig
from rltrain.config.validate import to_plain
from rltrain.engine.protocol import StateDict
from rltrain.envs.grid_world import GridWorld, grid_world
from rltrain.envs.process_state import process_kept
from rltrain.envs.returned import Mistake
from rltrain.envs.space_data import space_to_plain
from rltrain.envs.trial import try_random_steps
from rltrain.envs.wrappers.stack import statistics_in
from rltrain.errors import CheckpointError, Interrupted, Pruned, RequestError, RunFailed, one_line
from rltrain.jobs.build import (
    VECTORIZATION,
    Parts,
    build,
    build_evaluator,
    build_logger,
    load_initial_network,
    open_evaluator,
)
from rltrain.jobs.filming import check_filming, film_episode
from rltrain.jobs.messages import (
    dry_run_text,
    final_evaluation,
    header,
    stopped,
    stopped_before_result,
    stopped_evaluating,
    summary,
)
from rltrain.loggers.console import ConsoleLogger
from rltrain.loggers.evaluation_console import EvaluationConsole
from rltrain.loggers.logger import Logger
from rltrain.policy.source import EVAL_ENVS
from rltrain.storage import checkpoint
from rltrain.storage.checkpoint_parts import PartWriter
from rltrain.storage.run_folder import RunFolder, git_state, versions
from rltrain.terminal.output import say
from rltrain.terminal.text import command_folder, shown_path
from rltrain.training.evaluator import REPORT_EPISODES, REPORT_KEY, EpisodeStatistics, Evaluator
from rltrain.training.pruning import SeedPruning
from rltrain.training.stopping import WHILE_EVALUATING, StopSignal
from rltrain.training.trainer import Trainer, last_logged_step
from rltrain.types import Ring

_MEMORY_KEYS = "algo.buffer_size, algo.batch_size, algo.gradient_steps, network.hidden or num_envs"
_OUT_OF_MEMORY = f"out of memory: smaller {_MEMORY_KEYS} need less"
_log = logging.getLogger(__name__)
Changes = Sequence[Mapping[str, Any]]
"""Of the config, in the form that run.json has: step, key, from, to."""


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
        if not _lacks_memory(error):
            raise
        raise RunFailed(_OUT_OF_MEMORY) from error


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
            except (Interrupted, KeyboardInterrupt) as error:
                reason = error.reason if isinstance(error, Interrupted) else "stopped by SIGINT"
                run.write_record(status="interrupted", reason=reason, **timing(started))
                raise
            except Pruned as error:
                run.write_record(status="pruned", reason=str(error), **timing(started))
                raise
            except BaseException as error:
                if isinstance(error, RequestError) and not self.began:
                    raise  # a new folder stays empty; what the record of an older one says still holds
                _log.error("the run failed", exc_info=error)
                failure = explained(error, run)
                run.write_record(status="failed", reason=str(failure), **timing(started))
                if failure is error:
                    raise
                raise failure from error
            run.write_record(status="completed", reason=None, **timing(started))
            return mean

    def _train(self, run: RunFolder, stop: StopSignal) -> float:
        config, source = self.config, self.source
        checkpoint.clean(run.path)
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
                keeper = RunCheckpointer(config, run, parts, evaluator, logger)
                trainer = Trainer(
                    config, parts.envs, parts.agent, evaluator, logger, keeper, parts.device, stop, pruning=self.pruning
                )
                exact = source is None or load(trainer, source)
                self._write_record(run, parts)
                self.began = True
                say(header(config, self.info, parts, run.path, source, exact))
                if not trainer.run():
                    raise stopped(config, stop.exit_code, trainer.step, run.path)
                if trainer.pruned:
                    raise Pruned(f"pruned at step {trainer.step:,}")
                screen.close()
                mean = self._finish(run, trainer, evaluator, parts, stop, logger)
                logger.close(True)
            finally:
                logger.close()
            return mean

    def _evaluator(self, parts: Parts) -> Evaluator:
        most = max(self.config.eval.episodes, REPORT_EPISODES)
        display, before = EvaluationConsole(bar=self.console), evaluated_before(self.source)
        return build_evaluator([self.config], most, parts.envs.statistics, display, before)

    def _finish(
        self, run: RunFolder, trainer: Trainer, evaluator: Evaluator, parts: Parts, stop: StopSignal, logger: Logger
    ) -> float:
        """Evaluates the trained network and reports, over the episodes there are where a signal stopped that."""
        config = self.config
        parts.envs.close()  # a machine may hold no more environments than these
        say(final_evaluation(config, REPORT_EPISODES, parts.envs.max_episode_steps))
        stop.answer = WHILE_EVALUATING
        final = evaluator.evaluate(parts.agent, REPORT_EPISODES, REPORT_KEY, lambda: stop.requested, partly=True)
        if final is None:
            raise stopped_before_result(config, stop.exit_code, trainer.step, run.path)
        mean = self._report(run, trainer, final, parts, logger)
        if final.interrupted:
            raise stopped_evaluating(config, stop.exit_code, final, run.path)
        return mean

    def _write_record(self, run: RunFolder, parts: Parts) -> None:
        write_start(run, self.config, conditions(parts), self.changes)

    def _report(
        self, run: RunFolder, trainer: Trainer, final: EpisodeStatistics, parts: Parts, logger: Logger
    ) -> float:
        """result.json, pictures and the table at the end."""
        threshold = parts.envs.reward_threshold
        write_result(run, trainer, final, threshold, logger)
        pictures = draw(run, self.config, parts.agent, curve=self.console)
        say(summary(self.config, trainer, final, parts.envs, run.path, pictures))
        return final.mean


def evaluated_before(source: checkpoint.Checkpoint | None) -> object:
    """How many environments evaluated the run that is continued, as its checkpoint says."""
    return None if source is None else source.manifest.get(EVAL_ENVS)


def conditions(parts: Parts) -> dict[str, Any]:
    """Conditions under which a run, or all members of a population, are trained, for run.json."""
    return {
        "device": str(parts.device),
        "threads": parts.threads,
        "versions": versions(),
        "git": git_state(command_folder()),
        "argv": sys.argv,
    }


def write_start(run: RunFolder, config: RunConfig, conditions: Mapping[str, Any], changes: Changes = ()) -> None:
    """config.yaml, and in run.json what the run starts with, and what this start has changed of its config."""
    before = run.read_record().get("changes", []) if changes and run.record.exists() else []
    run.write_config(to_plain(config))
    run.write_record(
        status="running",
        seed=config.seed,
        **conditions,
        **({"changes": [*before, *changes]} if changes else {}),
    )


class HasState(Protocol):
    """An agent, or one member of a population's."""

    def state_dict(self) -> StateDict: ...


def write_result(
    run: RunFolder, trainer: Trainer, final: EpisodeStatistics, threshold: float | None, logger: Logger
) -> None:
    """Writes result.json, and tells the loggers."""
    run.write_result(
        {
            "env_step": trainer.step,
            **final.count_to_plain(),
            "episode_return": final.to_plain(),
            "threshold": threshold,
            "solve_step": trainer.solve_step,
        }
    )
    if not final.interrupted:  # the whole evaluation will come
        logger.result(trainer.step, {"final/episode_return": final.mean, "final/episode_return_std": final.std})


def draw(run: RunFolder, config: RunConfig, agent: HasState, *, curve: bool) -> dict[str, Path]:
    """Draws the pictures of a run that has ended; their paths by what they show.

    Args:
        curve: whether that is the learning curve too: it takes a tenth of a second, as long as a small job of a sweep
            trains. `rltrain report` draws those of a sweep together.
    """
    pictures = {}
    if curve:
        from rltrain.report.curve import plot_learning_curve

        pictures["learning curve"] = plot_learning_curve(run.path)
    # Of a table alone: looking makes an environment, of which a machine may hold no more.
    if card_of(config.algo).discrete_observations and (grid := grid_world(config.env)) is not None:
        pictures |= _draw_table(run, config, agent.state_dict(), grid)
    return pictures


def _draw_table(run: RunFolder, config: RunConfig, state: StateDict, grid: GridWorld) -> dict[str, Path]:
    table = state["network"].get("q_table")
    if table is None:
        return {}
    from rltrain.report.q_values import plot_q_values

    title = f"{config.algo.name} on {config.env.id}, seed {config.seed}"
    return {"table": plot_q_values(run.path, table.numpy(), state["optimizer"]["visits"].numpy(), grid, title)}


class RunCheckpointer:
    """Writes the trainer's state as checkpoints of one run; `entries` gives what else its manifests say."""

    def __init__(self, config: RunConfig, run: RunFolder, parts: Parts, evaluator: Evaluator, logger: Logger) -> None:
        self.entries: Callable[[], Mapping[str, Any]] = dict
        self._config = config
        self._run, self._logger = run, logger
        self._parts = PartWriter()
        self._manifest = {
            "config": to_plain(config),
            "observation_space": space_to_plain(parts.envs.observation_space),
            "action_space": space_to_plain(parts.envs.action_space),
            "max_episode_steps": parts.envs.max_episode_steps,
            "versions": versions(),
            "device": str(parts.device),
            "threads": parts.threads,
            "compile": parts.compiled,
            "compile_from": parts.compile_from,
            "cuda_graphs": parts.cuda_graphs,
            VECTORIZATION: parts.vectorization.way,
            EVAL_ENVS: evaluator.num_envs,
        }

    def save(self, step: int, state: StateDict) -> None:
        tensors = {name: section for name, section in state.items() if name not in ("state", "rings")}
        if not self._config.resumable:
            tensors = {name: section for name, section in tensors.items() if name not in ("replay", "frames")}
        folder = checkpoint.step_folder(self._run.path, step)
        self._write(folder, step, tensors, state["state"], state.get("rings", {}))

    def prune(self) -> None:
        checkpoint.prune(self._run.path, self._config.checkpoint.keep)

    def save_best(self, step: int, state: StateDict) -> None:
        best = {"network": state["network"]}
        kept: dict[str, Any] = {"solve_step": state["state"]["solve_step"]}
        if statistics := statistics_in(state["state"]["envs"]):
            kept["envs"] = statistics
        self._write(checkpoint.best_folder(self._run.path), step, best, kept)

    def film(self, step: int, state: StateDict) -> None:
        tensors = {"network": state["network"]}
        manifest = {**self._manifest, "step": step}
        source = checkpoint.Checkpoint(manifest, tensors, state["state"], self._run.path)
        film_episode(source, self._run.videos / f"step_{step:08}.gif", self._logger)

    def _write(
        self,
        folder: Path,
        step: int,
        tensors: Mapping[str, Mapping[str, Any]],
        state: Mapping[str, Any],
        rings: Mapping[str, Ring] | None = None,
    ) -> None:
        manifest = {**self._manifest, **self.entries()}
        checkpoint.write_checkpoint(
            folder, step=step, manifest=manifest, tensors=tensors, state=state, rings=rings, parts=self._parts
        )


def load(trainer: Trainer, source: checkpoint.Checkpoint) -> bool:
    """Trainer.load_state_dict, with what does not fit said as a request that cannot be met."""
    try:
        return trainer.load_state_dict({**source.tensors, "state": source.state})
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{source.folder}: does not fit this run: {one_line(error)}") from error


def explained(error: BaseException, run: RunFolder) -> BaseException:
    """An exception as a failure in one line, with the log that holds its traceback where that says more."""
    if not isinstance(error, Exception):
        return error
    if isinstance(error, RunFailed):
        if error.__cause__ is None or isinstance(error.__cause__, Mistake):
            return error
        return RunFailed(f"{error} (traceback in {shown_path(run.log)})")
    if isinstance(error, RequestError):
        return RunFailed(str(error))
    if _lacks_memory(error):
        return RunFailed(f"{_OUT_OF_MEMORY} (traceback in {shown_path(run.log)})")
    return RunFailed(f"{one_line(error)} (traceback in {shown_path(run.log)})")


def _lacks_memory(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    torch_s = ("can't allocate memory", "Storage size calculation overflowed")  # on the CPU
    return isinstance(error, RuntimeError) and any(text in str(error) for text in torch_s)


def timing(started: float) -> dict[str, float]:
    """When a run began and how long it took, for its record."""
    return {"started": started, "seconds": time.time() - started}
