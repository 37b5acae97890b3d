"""Messages of a run to its user: the header before it, the table after it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rltrain.agents import AGENTS
from rltrain.config.horizon import epsilon_at_end
from rltrain.config.info import ComposeInfo
from rltrain.config.schema import AUTO_SAVE_STEPS, RunConfig
from rltrain.errors import Interrupted
from rltrain.jobs.build import VECTORIZATION, Parts, evaluates_meanwhile
from rltrain.machine import available_cores
from rltrain.storage.checkpoint import Checkpoint
from rltrain.storage.run_folder import versions
from rltrain.terminal.text import (
    counted,
    mean_and_std,
    rltrain_command,
    shell_word,
    shown_path,
    terminal_width,
    wrapped,
)
from rltrain.training.evaluation_limits import evaluation_limits
from rltrain.training.evaluator import REPORT_EPISODES, EpisodeStatistics
from rltrain.training.limits import Limit, reached_limit
from rltrain.training.member import Member
from rltrain.training.outcome import outcome
from rltrain.training.value_check import beyond_bounds, value_bounds

_FAR_ABOVE = 5.0  # times the return; healthy values are within a tenth of it
_FAR_FROM_GREEDY = 0.5  # of the larger return, beside the deviation of greedy episodes


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
        lines.append(_tuned(info.tuned, info, config.env.id))
    if bounds := _bounds(config, parts.envs.max_episode_steps):
        lines.append(f"limit     {bounds}")
    if late := epsilon_at_end(config):
        lines.append(f"epsilon   {late}")
    low, high = value_bounds(config)
    if low > -math.inf or high < math.inf:
        lines.append(f"values    {low:g} to {high:g} (algo.v_min, algo.v_max), which discounted returns must not leave")
    shape = parts.envs.observation_spec.shape
    if config.network is not None and config.network.name != "cnn" and len(shape) == 3:
        axes = " x ".join(map(str, shape))
        lines.append(
            f"images    network={config.network.name} sees {axes} numbers as one vector; network=cnn sees images"
        )
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


def _tuned(name: str, info: ComposeInfo, env_id: str) -> str:
    """That a tuned file applies, and where to see what it set: on one line, so that the command can be copied."""
    count = counted(len(info.tuned_keys), "setting")
    what = f"tuned     {count} of {name}" if info.tuned_keys else f"tuned     {name}, of which everything is overridden"
    overrides = (override for override in info.overrides if not override.startswith("dry_run="))
    command = rltrain_command(*overrides, "--cfg", "job", env_id=env_id)
    line = f"{what}; `{command}` shows them"
    return line if len(line) <= terminal_width() else f"{what}; this command with --cfg job shows them"


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
                f"spaces    observations {_one_line(parts.envs.observation_space)}, "
                f"actions {_one_line(parts.envs.action_space)}"
            ),
            *(f"weights   {name:<36} {tuple(tensor.shape)}" for name, tensor in weights.items()),
            f"memory    {parts.agent.replay_bytes / 2**20:.1f} MiB of experience",
            "tried     "
            + (
                f"a reset and {counted(steps, 'random step')} of each environment: all as Gymnasium wants it"
                if steps
                else "no step: env.vectorization=compiled steps the environment inside the agent's program"
            ),
            "dry run   nothing was trained or written",
        ]
    )


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


def _again(config: RunConfig, folder: Path, *changes: str) -> str:
    return rltrain_command("resume", folder, *changes, env_id=config.imports)


def final_evaluation(config: RunConfig, episodes: int, time_limit: int | None) -> str:
    """Announces the evaluation that ends a run; `time_limit` is that of its episodes."""
    limits = evaluation_limits(config.total_steps, config.total_steps, episodes, time_limit)
    bound = f", at most {limits.steps:,} steps in all; Ctrl-C ends it with those played" if limits else ""
    return f"evaluating {episodes} greedy episodes{bound}"


def stopped(config: RunConfig, exit_code: int, step: int, folder: Path) -> Interrupted:
    """Last words of a command whose run a signal stopped, once it is saved."""
    again = f"; `{_again(config, folder)}` continues" if config.resumable else ""
    return Interrupted(exit_code, f"{Interrupted(exit_code).reason} at step {step:,}, saved{again}")


def stopped_before_result(config: RunConfig, exit_code: int, step: int, folder: Path) -> Interrupted:
    """Last words of a command whose last evaluation was stopped before an episode of it had ended."""
    again = f"; `{_again(config, folder)}` evaluates" if config.resumable else ""
    why = "no episode of the last evaluation had ended"
    return Interrupted(exit_code, f"{Interrupted(exit_code).reason}, {why}: trained {step:,} steps, saved{again}")


def stopped_evaluating(config: RunConfig, exit_code: int, final: EpisodeStatistics, folder: Path) -> Interrupted:
    """Last words of a command whose last evaluation a signal stopped: the run is trained, and its result is partial."""
    again = f"; `{_again(config, folder)}` evaluates all" if config.resumable else ""
    count = f"{len(final.returns)} of {final.asked} episodes"
    return Interrupted(exit_code, f"{Interrupted(exit_code).reason} after {count} of the last evaluation{again}")


def summary(
    config: RunConfig,
    member: Member,
    final: EpisodeStatistics,
    parts: Parts,
    folder: Path,
    pictures: Mapping[str, Path],
    kept: bool = True,
) -> str:
    """The table at the end, and what to type next, which needs checkpoints that are `kept`."""
    speed = member.step / member.train_seconds if member.train_seconds else 0.0
    # An agent of its own may learn without gradient steps.
    unchanged = config.algo.name not in AGENTS and not parts.agent.gradient_steps
    learned = "; no update was due: the network is as it began" if unchanged else ""
    limit, envs = _limit(config, member), parts.envs
    found = f"{mean_and_std(final.mean, final.std)} (standard deviation)"
    made = f"{counted(member.step, 'step')}, {counted(member.episodes, 'episode')}"
    rows: list[tuple[str, Any]] = [
        ("trained", f"{made}, {speed:,.0f} steps/s{learned}"),
        ("greedy return", f"{found} over {final.count_in_words()}"),
    ]
    if limit.early:
        rows.insert(1, ("ended early", str(limit)))
    elif config.total_episodes is not None:
        rows.insert(1, ("ended at", str(limit)))
    if envs.reward_threshold is not None:
        rows.append(solved(final.mean, envs.reward_threshold, member.solve_step))
    if kept and member.best_return is not None and member.best_return - final.mean > final.std:
        asks = rltrain_command("evaluate", folder, "checkpoint=best")
        rows.append(("best network", f"{member.best_return:.1f} in an evaluation, far above the last; {asks}"))
    if said := beyond_bounds(config, member.diagnostics) or overestimated(member.diagnostics):
        rows.append(("values", said))
    if leans_on_exploration(member.training_return, final):
        rows.append(
            ("in training", f"{member.training_return:.1f} of late, far above: the network leans on exploration")
        )
    video = ["video=true"] if envs.draws else []
    rows += [
        ("run folder", shown_path(folder)),
        *((what, shown_path(picture)) for what, picture in pictures.items()),
        ("look", f"tensorboard --logdir {shell_word(folder)}"),
        ("report", rltrain_command("report", folder)),
    ]
    if kept:
        rows += [
            ("evaluate", rltrain_command("evaluate", folder, *video, env_id=config.env.id)),
            ("continue", _again(config, folder, *limit.lifted.split())),
        ]
    return "\n" + "\n".join(f"{name:<15} {text}" for name, text in rows)


def overestimated(diagnostics: Mapping[str, float]) -> str:
    """That values are far above the returns, where they are: the return alone does not tell why it is poor."""
    value, got = (diagnostics.get(f"diagnostics/{name}", 0.0) for name in ("value", "discounted_return"))
    scale = max(abs(got), 1.0)
    # Where rewards are costs, a value far on the other side of 0 is wrong long before it is five returns away.
    if value - got <= _FAR_ABOVE * scale and not (got < 0.0 and value > 2.0 * scale):
        return ""
    return f"overestimated: {value:.3g} expected of an episode where {got:.3g} came; try a smaller algo.optimizer.lr"


def leans_on_exploration(training: float | None, final: EpisodeStatistics) -> bool:
    """Whether the last episodes of training returned far more than the greedy network, which may be stuck where an
    action that does not change leads nowhere."""
    if training is None:
        return False
    return training - final.mean > final.std + _FAR_FROM_GREEDY * max(abs(training), abs(final.mean))


def solved(mean: float, threshold: float, first: int | None) -> tuple[str, str]:
    """Whether the last network reaches the threshold, and the step of the first evaluation that did."""
    ended = outcome(mean, threshold, first)
    if ended == "lost":
        seen = f"; an evaluation reached it at step {first:,}, the last network does not"
        return "lost again", f"threshold {threshold:g}{seen}"
    seen = "" if first is None else f", first reached at step {first:,}"
    return "solved" if ended == "solved" else "not solved", f"threshold {threshold:g}{seen}"


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
    ways = {"compile": parts.compiled, "compile_from": parts.compile_from, "cuda_graphs": parts.cuda_graphs}
    stepping = {VECTORIZATION: parts.vectorization.way}
    now = {"device": str(parts.device), "threads": parts.threads, **ways, **stepping, **versions()}
    then = {**source.manifest, **source.manifest.get("versions", {})}
    other = {name: then[name] for name, value in now.items() if name in then and then[name] != value}
    return [f"{value} {name}" if name == "threads" else f"{name} {value}" for name, value in other.items()]


def _limit(config: RunConfig, member: Member) -> Limit:
    """The limit that ended a finished run: where neither steps nor episodes did, it was the return."""
    limit = reached_limit(config, member.step, member.episodes, config.stop_at_return)
    assert limit is not None
    return limit


def _saved(period: int | Literal["auto"] | None) -> str:
    if period is None:
        return "when it ends or is stopped"
    if period == "auto":
        return f"every {AUTO_SAVE_STEPS:,} steps (less often where saving is slow) and when stopped"
    return f"every {counted(period, 'step') if period > 1 else 'step'} and when stopped"
