"""Messages to the user before a run: its header, and what a dry run says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from rltrain.config.env_families import atari_game
from rltrain.config.horizon import epsilon_at_end
from rltrain.config.idle import idle_lines
from rltrain.config.info import ComposeInfo
from rltrain.config.plain import to_plain
from rltrain.config.schema import AUTO_SAVE_STEPS, RunConfig
from rltrain.jobs.build import Parts, evaluates_meanwhile
from rltrain.jobs.initial_network import other_rewards
from rltrain.machine import available_cores
from rltrain.storage.checkpoint import Checkpoint
from rltrain.storage.run_folder import versions
from rltrain.terminal.shell import shown_path
from rltrain.terminal.text import counted, harmless, shortened, wrapped
from rltrain.training.evaluation_limits import evaluation_limits
from rltrain.training.evaluator import REPORT_EPISODES
from rltrain.training.value_check import value_bounds


def header(
    config: RunConfig,
    info: ComposeInfo,
    parts: Parts,
    folder: Path | None = None,
    source: Checkpoint | None = None,
    exact: bool = True,
) -> str:
    """Header: describes the run in a few lines.

    Args:
        source: the checkpoint that it continues from.
        exact: whether the running episodes could be continued.
    """
    sizes = ", ".join(f"{name} {count:,} parameters" for name, count in parts.agent.num_parameters.items())
    explores = ", noisy: explores without epsilon" if getattr(config.network, "noisy", False) else ""
    chosen = " (auto)" if config.device.name == "auto" else ""
    lines = [
        f"rltrain   {config.algo.name} on {config.env.id}, seed {config.seed}, {limits_in_words(config)}, "
        + counted(config.num_envs, "environment"),
        f"{'table' if config.network is None else 'network':<10}{sizes}{explores}",
        f"device    {parts.device}{chosen}, {how(parts)}",
        f"stepping  {steps_how(parts)}",
    ]
    if info.tuned is not None:
        lines.append(_tuned(info))
    lines += idle_lines([(to_plain(config), info.overrides)])
    if bounds := _bounds(config, parts.envs.max_episode_steps):
        lines.append(f"limit     {bounds}")
    if late := epsilon_at_end(config):
        lines.append(f"epsilon   {late}")
    low, high = value_bounds(config)
    if low > -math.inf or high < math.inf:
        lines.append(f"values    {low:g} to {high:g} (algo.v_min, algo.v_max): set them around the discounted returns")
    shape = parts.envs.observation_spec.shape
    if config.network is not None and config.network.name != "cnn" and len(shape) == 3:
        axes = " x ".join(map(str, shape))
        game = atari_game(config.env.id)
        settings = f"; {game} has settings for this game" if game else ""
        sees = f"network={config.network.name} sees {axes} numbers as one vector; network=cnn sees images"
        lines.append(f"images    {sees}{settings}")
    if source is None and config.init_from is not None:
        lines.append(f"begins    with the network of {config.init_from}{other_rewards(config)}")
    if source is not None:
        lines.append(f"resumed   at step {source.step:,} from {source.folder.name}, {continues(source, parts, exact)}")
    else:
        lines.append(f"resume    {promise(config, parts)}; saved {_saved(config.checkpoint.period)}")
    lines = [wrapped(line) for line in lines]
    if folder is not None:
        lines.append(f"folder    {shown_path(folder)}")
    return "\n".join(lines)


def limits_in_words(config: RunConfig) -> str:
    """The steps, and where they are limited too the episodes, after which a run ends."""
    episodes = "" if config.total_episodes is None else f" or {counted(config.total_episodes, 'episode')}"
    return f"{config.total_steps:,} steps{episodes}"


def _tuned(info: ComposeInfo) -> str:
    """That a tuned file applies, and which."""
    file = info.tuned if info.tuned_path is None else shown_path(info.tuned_path)
    if not info.tuned_keys:
        return f"tuned     {file}, of which everything is overridden"
    return f"tuned     {counted(len(info.tuned_keys), 'setting')} of {file}; tuned=none trains without"


def how(parts: Parts) -> str:
    """How updates run: `2 threads, compiled at the start`."""
    cores, compiled = available_cores(), ""
    threads = counted(parts.threads, "thread") + (f" on {counted(cores, 'core')}" if parts.threads > cores else "")
    if parts.compiled:
        compiled = (
            f", compiled from step {parts.compile_from:,} on" if parts.compile_from else ", compiled at the start"
        )
    if parts.lacks_compiler:
        compiled = ", not compiled (there is no C++ compiler)"
    return threads + compiled + (", captured in CUDA graphs" if parts.cuda_graphs else "")


def steps_how(parts: Parts) -> str:
    """How environments are stepped."""
    way, why = parts.vectorization.way, parts.vectorization.why
    return way if why is None else f"{way} (auto: {why})"


def dry_run_text(parts: Parts, steps: int) -> str:
    """Spaces, weights with their shapes, memory, and that `steps` random steps went well in each environment."""
    weights = parts.agent.state_dict()["network"]
    return "\n".join(
        [
            wrapped(
                f"spaces    observations {_one_line(parts.envs.observation_space)}{_seen_as(parts)}, "
                f"actions {_one_line(parts.envs.action_space)}"
            ),
            *(f"weights   {name:<36} {tuple(tensor.shape)}" for name, tensor in weights.items()),
            f"memory    {parts.agent.replay_bytes / 2**20:.1f} MiB of experience",
            "tried     "
            + (
                f"a reset and {counted(steps, 'random step')} of each environment: no mistake was found"
                if steps
                else "no step: env.vectorization=compiled steps the environment inside the agent's program"
            ),
            "dry run   nothing was trained or written",
        ]
    )


def _seen_as(parts: Parts) -> str:
    """The shape and type of an observation after flattening and `env.wrappers`, where they change it."""
    spec, space = parts.envs.observation_spec, parts.envs.observation_space
    if spec.kind != "box" or (spec.shape, spec.dtype) == (space.shape, str(space.dtype)):
        return ""
    return f" (the agent sees {spec.dtype} of shape {spec.shape})"


def _bounds(config: RunConfig, time_limit: int | None) -> str:
    """How evaluations of long episodes are bounded; nothing where they are short."""
    total, period = config.total_steps, config.eval.period
    last = evaluation_limits(total, total, REPORT_EPISODES, time_limit)
    if last is None:
        return ""
    ends = f"end after {last.steps:,} steps"
    if period is not None and evaluates_meanwhile(config):
        during = evaluation_limits(period, total, config.eval.episodes, time_limit)
        assert during is not None
        ends = f"end after {during.steps:,} steps, the last one after {last.steps:,}"
    cuts = f"cut episodes at {last.episode_steps:,} steps, and " if last.episode_steps != time_limit else ""
    unlimited = "episodes have no time limit (env.max_episode_steps=N sets one); " if time_limit is None else ""
    return f"{unlimited}evaluations {cuts}{ends}"


def _one_line(space: object) -> str:
    return " ".join(str(space).split())


def promise(config: RunConfig, parts: Parts) -> str:
    """How closely a resumed run will follow the uninterrupted one."""
    if not config.resumable:
        return "not (checkpoint.replay=false)"
    if parts.replays.same is False:
        return f"not exactly, running episodes begin anew ({config.env.id} does not replay: {parts.replays.why})"
    if parts.device.type != "cpu" and not config.device.deterministic:
        return "closely (exactly with device.deterministic=true or on the CPU)"
    if parts.replays.same is None:
        return f"exactly (on this kind of machine), if its episodes can be replayed (not tried: {parts.replays.why})"
    return "exactly (on this kind of machine)"


def continues(source: Checkpoint, parts: Parts, exact: bool, alone: bool = True) -> str:
    """How closely this run, or not `alone` this population, follows the one that was saved."""
    if not exact:
        return "but running episodes begin anew: the environment does not replay"
    if other := saved_with(source, parts):
        return f"but not bit for bit: it was saved with {', '.join(other)}"
    return "up to rounding: it was one of a population" if alone and source.manifest.get("population") else "exactly"


def saved_with(source: Checkpoint, parts: Parts) -> list[str]:
    """Conditions under which the checkpoint was saved, where they are others now: last bits of numbers will differ."""
    now = {**parts.conditions, **versions()}
    stored = source.manifest.get("versions")
    then = {**source.manifest, **(stored if isinstance(stored, Mapping) else {})}
    other = {name: str(then[name]) for name, value in now.items() if name in then and then[name] != value}
    said = [f"{value} {name}" if name == "threads" else f"{name} {value}" for name, value in other.items()]
    return [harmless(shortened(words, 60)) for words in said]


def _saved(period: int | Literal["auto"] | None) -> str:
    if period is None:
        return "when it ends or is stopped"
    if period == "auto":
        return f"every {AUTO_SAVE_STEPS:,} steps or minute (less often where saving is slow) and when stopped"
    return f"every {counted(period, 'step') if period > 1 else 'step'} and when stopped"
