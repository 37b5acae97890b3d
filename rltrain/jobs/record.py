"""The record that a run leaves of itself: how it began, its result and pictures, and why it failed."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rltrain.config.algorithms import card_of
from rltrain.config.plain import to_plain
from rltrain.config.schema import RunConfig
from rltrain.engine.protocol import StateDict
from rltrain.envs.grid_world import GridWorld, grid_world
from rltrain.envs.returned import Mistake
from rltrain.errors import GoesOn, Interrupted, Pruned, RequestError, RunFailed, one_line
from rltrain.jobs.build import Parts
from rltrain.loggers.logger import Logger
from rltrain.storage.run_folder import RunFolder, git_state, versions
from rltrain.terminal.output import warn
from rltrain.terminal.places import at_origin
from rltrain.terminal.shell import command_folder, shown_path, unusable
from rltrain.training.evaluator import EpisodeStatistics
from rltrain.training.member import Member

_log = logging.getLogger(__name__)
_MEMORY_KEYS = "algo.buffer_size, algo.batch_size, algo.gradient_steps, network.hidden or num_envs"
OUT_OF_MEMORY = f"out of memory: smaller {_MEMORY_KEYS} need less"
Changes = Sequence[Mapping[str, Any]]
"""Of the config, in the form that run.json has: step, key, from, to."""


def conditions(parts: Parts) -> dict[str, Any]:
    """Conditions under which a run, or all members of a population, are trained, for run.json."""
    return {
        "device": str(parts.device),
        "threads": parts.threads,
        "compiled": parts.compiled,
        "vectorization": parts.vectorization.way,
        "versions": versions(),
        "git": git_state(command_folder()),
        "argv": sys.argv,
    }


def write_start(run: RunFolder, config: RunConfig, conditions: Mapping[str, Any], changes: Changes = ()) -> None:
    """config.yaml, and in run.json what the run starts with, and what this start has changed of its config.

    Changes are recorded first, by which a run goes on that is killed in between; a new run needs its config first.
    """
    before = run.read_record().get("changes", []) if changes and run.record.exists() else []
    recorded = {"changes": [*before, *changes]} if changes else {}
    if not run.config.exists():
        run.write_config(to_plain(config))
    run.write_record(status="running", seed=config.seed, **conditions, **recorded)
    run.write_config(to_plain(config))


def write_result(
    run: RunFolder, member: Member, final: EpisodeStatistics, threshold: float | None, logger: Logger
) -> None:
    """Writes result.json, and tells the loggers."""
    run.write_result(
        {
            "env_step": member.step,
            **final.count_to_plain(),
            "episode_return": final.to_plain(),
            "threshold": threshold,
            "solve_step": member.solve_step,
            "ended_by": None if member.limit is None else member.limit.key,
        }
    )
    if not final.interrupted:  # the whole evaluation will come
        logger.result(member.step, {"final/episode_return": final.mean, "final/episode_return_std": final.std})


def draw(run: RunFolder, config: RunConfig, member: Member, *, curve: bool) -> dict[str, Path]:
    """Draws the pictures of a run that has ended; returns their paths by what they show. One that cannot be written is
    reported: all else of the run is there.

    Args:
        curve: whether that is the learning curve too: it takes a tenth of a second, as long as a small job of a sweep
            trains. `rltrain report` draws those of a sweep together. One that is there is drawn anew in any case.
    """
    pictures = {}
    try:
        if curve or run.learning_curve.exists():
            from rltrain.report.curve import plot_learning_curve

            pictures["learning curve"] = plot_learning_curve(run.path)
        # Of a table alone: looking makes an environment, of which a machine may hold no more.
        if card_of(config.algo).discrete_observations and (grid := grid_world(config.env)) is not None:
            pictures |= _draw_table(run, config, member.agent_state(), grid)
    except OSError as error:
        warn(_log, unusable(Path(error.filename or run.path), error))
    return pictures


def _draw_table(run: RunFolder, config: RunConfig, state: StateDict, grid: GridWorld) -> dict[str, Path]:
    table = state["network"].get("q_table")
    if table is None:
        return {}
    from rltrain.report.q_values import plot_q_values

    title = f"{config.algo.name} on {config.env.id}, seed {config.seed}"
    return {"table": plot_q_values(run.path, table.numpy(), state["optimizer"]["visits"].numpy(), grid, title)}


def ending(outcome: object) -> dict[str, Any]:
    """How a run ended, for its record: from the exception that ended it, or from anything else if it is completed."""
    if isinstance(outcome, Interrupted | KeyboardInterrupt):
        reason = outcome.reason if isinstance(outcome, Interrupted) else "stopped by SIGINT"
        return {"status": "interrupted", "reason": reason}
    if isinstance(outcome, GoesOn):
        return {"status": "interrupted", "reason": str(outcome)}
    if isinstance(outcome, BaseException):
        return {"status": "pruned" if isinstance(outcome, Pruned) else "failed", "reason": str(outcome)}
    return {"status": "completed", "reason": None}


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
    if lacks_memory(error):
        return RunFailed(f"{OUT_OF_MEMORY} (traceback in {shown_path(run.log)})")
    if isinstance(error, OSError) and isinstance(error.filename, str):
        return RunFailed(f"{unusable(Path(error.filename), error)} (traceback in {shown_path(run.log)})")
    # Maths of a plug-in that torch.vmap does not take: `.item()`, say.
    alone = "; hydra/launcher=basic trains one job after the other" if str(error).startswith("vmap: ") else ""
    return RunFailed(f"{one_line(error)}{at_origin(error)}{alone} (traceback in {shown_path(run.log)})")


def lacks_memory(error: Exception) -> bool:
    """Whether an allocation failed, here or on a device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    torch_s = ("can't allocate memory", "Storage size calculation overflowed")  # on the CPU
    return isinstance(error, RuntimeError) and any(text in str(error) for text in torch_s)


def timing(started: float) -> dict[str, float]:
    """When a run began and how long it took, for its record."""
    return {"started": started, "seconds": time.time() - started}
