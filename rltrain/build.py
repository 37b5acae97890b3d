"""From a validated config to the parts of a run. Reads the registries; no maths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rltrain.agents import AGENTS, Agent, AgentContext
from rltrain.config.schema import RunConfig
from rltrain.config.validate import to_plain
from rltrain.envs.vector import VectorEnv, make_vector_env
from rltrain.loggers.console import ConsoleLogger
from rltrain.loggers.jsonl import JsonlLogger
from rltrain.loggers.logger import Logger, MultiLogger
from rltrain.seeding import derive_seed
from rltrain.training.run_folder import RunFolder


def build_envs(config: RunConfig) -> VectorEnv:
    """The training environments; every episode of each has a seed of its own."""
    return make_vector_env(
        config.env, config.num_envs, lambda env, number: derive_seed(config.seed, "environment", env, number)
    )


def build_agent(config: RunConfig, envs: VectorEnv, device: torch.device) -> Agent:
    return AGENTS[config.algo.name](AgentContext(config, envs.observation_spec, envs.action_spec, device))


def build_logger(config: RunConfig, run: RunFolder, resume_step: int | None, console: bool) -> Logger:
    """All loggers of a run; `console` says whether it may draw a progress bar."""
    from rltrain.loggers.tensorboard import TensorBoardLogger

    hparams: dict[str, Any] = to_plain(config)
    return MultiLogger(
        [
            JsonlLogger(run.metrics, resume_step),
            TensorBoardLogger(run.path, resume_step, hparams),
            ConsoleLogger(config.total_steps, resume_step or 0, bar=console),
        ]
    )


def newest_source(path: Path) -> Path:
    """The checkpoint that `path`, a run or a checkpoint, stands for."""
    from rltrain.training.checkpoint import newest_checkpoint

    return path if (path / "manifest.json").exists() else newest_checkpoint(path)[0]
