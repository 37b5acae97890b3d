"""What a run tells its user: the header before it, the table after it."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from rltrain.build import Parts
from rltrain.config.info import ComposeInfo
from rltrain.config.schema import RunConfig
from rltrain.training.checkpoint import Checkpoint
from rltrain.training.evaluator import EpisodeStatistics
from rltrain.training.run_folder import versions
from rltrain.training.trainer import Trainer


def header(
    config: RunConfig,
    info: ComposeInfo,
    parts: Parts,
    folder: Path | None = None,
    source: Checkpoint | None = None,
    exact: bool = True,
) -> str:
    """What is about to run, in a few lines.

    Args:
        source: the checkpoint that it continues from.
        exact: whether the running episodes could be continued.
    """
    sizes = ", ".join(f"{name} {count:,} parameters" for name, count in parts.agent.num_parameters.items())
    chosen = " (auto)" if config.device.name == "auto" else ""
    lines = [
        f"rltrain   {config.algo.name} on {config.env.id}, seed {config.seed}, {config.total_steps:,} steps, "
        + _count(config.num_envs, "environment"),
        f"network   {sizes}",
        f"device    {parts.device}{chosen}, {_count(parts.threads, 'thread')}, "
        f"update {'compiled at its first call' if parts.compiled else 'not compiled'}",
    ]
    if info.tuned is not None:
        settings = " ".join(f"{key}={str(value).replace(' ', '')}" for key, value in info.tuned_keys.items())
        lines += _wrapped(f"tuned     {info.tuned}: {settings or 'everything is overridden'}")
    if source is not None:
        lines.append(f"resumed   at step {source.step:,} from {source.folder.name}, {_continues(source, parts, exact)}")
    elif folder is not None:
        lines.append(
            f"resume    {_promise(config, parts)}, saved every {_steps(config.checkpoint.period)} and when stopped"
        )
    if folder is not None:
        lines.append(f"folder    {folder}")
    return "\n".join(lines)


def dry_run_text(parts: Parts) -> str:
    """Spaces, weights with their shapes, and memory."""
    weights = parts.agent.state_dict()["network"]
    return "\n".join(
        [
            *_wrapped(f"spaces    observations {parts.envs.observation_space}, actions {parts.envs.action_space}"),
            *(f"weights   {name:<36} {tuple(tensor.shape)}" for name, tensor in weights.items()),
            f"memory    {parts.agent.replay_bytes / 2**20:.1f} MiB of experience",
            "dry run   nothing was trained or written",
        ]
    )


def summary(
    config: RunConfig, trainer: Trainer, final: EpisodeStatistics, threshold: float | None, folder: Path, curve: Path
) -> str:
    """The table at the end, and what to type next."""
    speed = trainer.step / trainer.train_seconds if trainer.train_seconds else 0.0
    rows: list[tuple[str, Any]] = [
        ("trained", f"{trainer.step:,} steps, {trainer.episodes:,} episodes, {speed:,.0f} steps/s"),
        ("greedy return", f"{final.mean:.1f} +- {final.std:.1f} over {len(final.returns)} episodes"),
    ]
    if threshold is not None:
        first = "" if trainer.solve_step is None else f", first reached at step {trainer.solve_step:,}"
        rows.append(("solved" if final.mean >= threshold else "not solved", f"threshold {threshold:g}{first}"))
    rows += [
        ("run folder", folder),
        ("learning curve", curve),
        ("look", f"tensorboard --logdir {folder}"),
        ("evaluate", f"rltrain evaluate {folder} video=true"),
        ("continue", f"rltrain resume {folder} {_extension(config, trainer)}"),
    ]
    return "\n" + "\n".join(f"{name:<15} {text}" for name, text in rows)


def _wrapped(text: str) -> list[str]:
    """A line of the header in as many as a terminal needs."""
    words = " ".join(text[10:].split())
    return textwrap.wrap(
        words, 120, initial_indent=text[:10], subsequent_indent=" " * 10, break_long_words=False, break_on_hyphens=False
    )


def _promise(config: RunConfig, parts: Parts) -> str:
    """How closely a resumed run will follow the uninterrupted one."""
    if not config.checkpoint.replay:
        return "not (checkpoint.replay=false)"
    if parts.device.type != "cpu" and not config.device.deterministic:
        return "closely (exactly with device.deterministic=true or on the CPU)"
    return "exactly (on this kind of machine)"


def _continues(source: Checkpoint, parts: Parts, exact: bool) -> str:
    """How closely this run follows the one that was saved."""
    if not exact:
        return "but running episodes begin anew: the environment does not replay"
    now = {"device": str(parts.device), "threads": parts.threads, "compile": parts.compiled, **versions()}
    then = {**source.manifest, **source.manifest.get("versions", {})}
    other = [f"{name} {then[name]}" for name, value in now.items() if name in then and then[name] != value]
    return f"but not bit for bit: it was saved with {', '.join(other)}" if other else "exactly"


def _extension(config: RunConfig, trainer: Trainer) -> str:
    """The change that lets a finished run go on: of the limit that ended it."""
    if config.total_episodes is not None and trainer.episodes >= config.total_episodes:
        return f"total_episodes={2 * config.total_episodes}"
    if trainer.step < config.total_steps:
        return "stop_at_return=null"
    return f"total_steps={2 * config.total_steps}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _steps(period: int | None) -> str:
    return "time it ends" if period is None else f"{period:,} steps"
