"""Checkpoints as sources of networks: of which run they are, and whether their weights fit its config."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rltrain.config.plain import show
from rltrain.config.schema import RunConfig
from rltrain.config.stored import validate_stored
from rltrain.errors import CheckpointError, RequestError
from rltrain.storage.checkpoint import Checkpoint, newest_checkpoint
from rltrain.storage.checkpoint_folders import best_folder, place_of
from rltrain.storage.run_folder import RunFolder
from rltrain.terminal.shell import shown_path

if TYPE_CHECKING:
    from rltrain.agents import AgentContext

EVAL_ENVS = "eval_num_envs"
"""In a checkpoint's manifest: how many environments evaluate a run. As many at a time pass through its network, which
may round otherwise where they are more or fewer."""


def check_network(context: AgentContext, source: Checkpoint) -> None:
    """Whether the weights of a checkpoint are those of its config, before memory is taken for what the config says.

    Raises:
        CheckpointError: they are not.
    """
    import torch

    from rltrain.agents import make_policy

    alone = replace(context, device=torch.device("meta"), compile_update=False, cuda_graphs=False, population=())
    try:
        with torch.device("meta"):
            make_policy(alone).load_network(source.tensors["network"])
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{source.folder}: {error}") from error
    except RequestError as error:
        # A plug-in's network may not know devices without memory; the real one then says what is wrong.
        if error.__cause__ is None:
            raise
    except (RuntimeError, NotImplementedError, TypeError, OverflowError) as error:
        if "overflow" in str(error).lower():
            raise CheckpointError(f"{source.folder}: its config describes no network: {error}") from error


def checkpoint_of(path: Path) -> Path:
    """The checkpoint whose network is meant by `path`, a run or a checkpoint.

    Raises:
        CheckpointError: a run without a checkpoint of which that much is whole.
    """
    return path if (path / "manifest.json").exists() else newest_checkpoint(path, only=("network",))


def best_of(run: Path) -> Path:
    """The checkpoint of a run's best evaluation.

    Raises:
        CheckpointError: there is none.
    """
    folder, of_run = best_folder(run), RunFolder(run)
    if not place_of(folder).exists():
        period = of_run.read_config().get("eval", {}).get("period") if of_run.config.exists() else None
        why = "has no best checkpoint any more: it was removed after the evaluation"
        if not _evaluated(of_run):
            why = f"has no best checkpoint: the run made no evaluation (eval.period={show(period)})"
        raise CheckpointError(f"{shown_path(run)}: {why}")
    return folder


def _evaluated(run: RunFolder) -> bool:
    if not run.metrics.exists():
        return False
    with run.metrics.open(errors="replace") as rows:
        return any('"eval/episode_return"' in row for row in rows)


def stored_config(source: Checkpoint) -> RunConfig:
    """The config of the run that wrote a checkpoint.

    Raises:
        CheckpointError: there is none in it, or none that this version knows.
    """
    plain = source.manifest.get("config")
    if not isinstance(plain, dict):
        raise CheckpointError(f"{source.folder}: its manifest has no config; it is no checkpoint of a run")
    try:
        return validate_stored(plain)
    except RequestError as error:
        raise CheckpointError(f"{source.folder}: its config cannot be used here: {error}") from error
