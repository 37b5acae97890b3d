"""From a validated config to the parts of a run. Reads the registries; no maths."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from rltrain.agents import AGENTS, Agent, AgentContext
from rltrain.compiling import choose_compile
from rltrain.config.schema import RunConfig
from rltrain.config.validate import to_plain, validate
from rltrain.device import configure_torch, resolve_device
from rltrain.envs.vector import VectorEnv, make_vector_env
from rltrain.errors import CheckpointError, RequestError
from rltrain.loggers.console import ConsoleLogger
from rltrain.loggers.jsonl import JsonlLogger
from rltrain.loggers.logger import Logger, MultiLogger
from rltrain.seeding import derive_seed
from rltrain.training.checkpoint import Checkpoint, newest_checkpoint, read_checkpoint
from rltrain.training.run_folder import RunFolder


@dataclass(frozen=True)
class Parts:
    """What a run consists of, and what `auto` chose for it."""

    envs: VectorEnv
    agent: Agent
    device: torch.device
    threads: int
    compiled: bool


@contextmanager
def build(config: RunConfig, compiled: bool | None = None) -> Iterator[Parts]:
    """The parts of a run; its environments are closed at the end.

    Args:
        compiled: whether the update is compiled, where that was decided before; None: `device.compile` decides.

    Raises:
        RequestError: no such device, an environment that cannot be made.
    """
    device = resolve_device(config.device)
    threads = configure_torch(config.device)
    compiled = choose_compile(config) if compiled is None else compiled
    envs = build_envs(config)
    try:
        context = AgentContext(config, envs.observation_spec, envs.action_spec, device, compiled)
        yield Parts(envs, AGENTS[config.algo.name](context), device, threads, compiled)
    finally:
        envs.close()


def build_envs(config: RunConfig) -> VectorEnv:
    """The training environments; every episode of each has a seed of its own."""
    return make_vector_env(
        config.env, config.num_envs, lambda env, number: derive_seed(config.seed, "environment", env, number)
    )


def build_logger(config: RunConfig, run: RunFolder, resume_step: int | None, console: bool) -> Logger:
    """All loggers of a run; `console` says whether it may draw a progress bar."""
    from rltrain.loggers.tensorboard import TensorBoardLogger

    return MultiLogger(
        [
            JsonlLogger(run.metrics, resume_step),
            TensorBoardLogger(run.path, resume_step, to_plain(config)),
            ConsoleLogger(config.total_steps, resume_step or 0, bar=console),
        ]
    )


def load_initial_network(agent: Agent, path: Path) -> None:
    """`init_from`: the weights of another run's newest checkpoint, or of the checkpoint that is named.

    Raises:
        RequestError: there is none, or it does not fit.
    """
    source = read_checkpoint(checkpoint_of(path), only=("network",))
    try:
        agent.load_network(source.tensors["network"])
    except (ValueError, KeyError) as error:
        raise RequestError(f"init_from={path}: {error}") from error


def checkpoint_of(path: Path) -> Path:
    """The checkpoint that `path`, a run or a checkpoint, stands for.

    Raises:
        CheckpointError: a run without a whole checkpoint.
    """
    return path if (path / "manifest.json").exists() else newest_checkpoint(path)[0]


def stored_config(source: Checkpoint) -> RunConfig:
    """The config of the run that wrote a checkpoint.

    Raises:
        CheckpointError: there is none in it, or none that this version knows.
    """
    plain = source.manifest.get("config")
    if not isinstance(plain, dict):
        raise CheckpointError(f"{source.folder}: its manifest has no config; it is no checkpoint of a run")
    try:
        return validate(plain)
    except RequestError as error:
        raise CheckpointError(f"{source.folder}: its config is not one of this version: {error}") from error
