"""Messages to the user at the end of a run: the table and what to type next, or why it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rltrain.agents import AGENTS
from rltrain.config.schema import RunConfig
from rltrain.errors import Interrupted
from rltrain.jobs.build import Parts
from rltrain.jobs.findings import findings
from rltrain.storage.checkpoint_folders import best_folder, newest_step, place_of
from rltrain.terminal.shell import rltrain_command, shell_word, shown_path
from rltrain.terminal.text import counted, mean_and_std
from rltrain.training.evaluation_limits import evaluation_limits
from rltrain.training.evaluator import EpisodeStatistics
from rltrain.training.limits import Limit, reached_limit
from rltrain.training.member import Member
from rltrain.training.outcome import outcome


def _again(config: RunConfig, folder: Path, *changes: str) -> str:
    return rltrain_command("resume", folder, *changes, imports=config.imports)


def final_evaluation(config: RunConfig, episodes: int, time_limit: int | None) -> str:
    """Announces the evaluation that ends a run; `time_limit` is that of its episodes."""
    limits = evaluation_limits(config.total_steps, config.total_steps, episodes, time_limit)
    bound = f", or the first that fill {limits.steps:,} steps; Ctrl-C ends it with those played" if limits else ""
    return f"evaluating {episodes} greedy episodes{bound}"


def stopped(config: RunConfig, exit_code: int, step: int, folder: Path) -> Interrupted:
    """Last words of a command whose run a signal stopped, once it is saved."""
    return _stopped(config, exit_code, folder, f" at step {step:,}, saved", "continues")


def stopped_before_result(config: RunConfig, exit_code: int, step: int, folder: Path) -> Interrupted:
    """Last words of a command whose last evaluation was stopped before an episode of it had ended."""
    why = f", no episode of the last evaluation had ended: trained {step:,} steps, saved"
    return _stopped(config, exit_code, folder, why, "evaluates")


def stopped_evaluating(config: RunConfig, exit_code: int, final: EpisodeStatistics, folder: Path) -> Interrupted:
    """Last words of a command whose last evaluation a signal stopped: the run is trained, and its result is partial."""
    count = f" after {len(final.returns)} of {final.asked} episodes of the last evaluation"
    return _stopped(config, exit_code, folder, count, "evaluates all")


def _stopped(config: RunConfig, exit_code: int, folder: Path, when: str, again: str) -> Interrupted:
    """`stopped by SIGINT`, when, and what the command that resumes the run would do again."""
    more = f"; `{_again(config, folder)}` {again}" if config.resumable else ""
    return Interrupted(exit_code, f"{Interrupted(exit_code).reason}{when}{more}")


def goes_on_from(config: RunConfig, folder: Path) -> str:
    """The line after the reason why a run failed; nothing where it cannot be continued."""
    if not config.resumable or not (step := newest_step(folder)):
        return ""
    return f"saved at step {step:,}; `{_again(config, folder)}` continues from there"


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
        there = place_of(best_folder(folder)).exists()
        asks = rltrain_command("evaluate", folder, "checkpoint=best") if there else "its checkpoint was removed"
        rows.append(("best network", f"{member.best_return:.1f} in an evaluation, far above the last; {asks}"))
    rows += [(finding.row, finding.text) for finding in findings(config, member, final, envs.reward_threshold)]
    video = ["video=true"] if envs.draws else []
    rows += [
        ("run folder", shown_path(folder)),
        *((what, shown_path(picture)) for what, picture in pictures.items()),
        ("look", f"tensorboard --logdir {shell_word(folder)}"),
        ("report", rltrain_command("report", folder)),
    ]
    if kept:
        rows.append(("evaluate", rltrain_command("evaluate", folder, *video, imports=[config.env.id])))
        begins = f"not, as checkpoint.replay=false; init_from={shell_word(folder)} begins another run with its network"
        again = _again(config, folder, *limit.lifted.split()) if config.resumable else begins
        rows.append(("continue", again))
    return "\n" + "\n".join(f"{name:<15} {text}" for name, text in rows)


def solved(mean: float, threshold: float, first: int | None) -> tuple[str, str]:
    """Whether the last network reaches the threshold, and the step of the first evaluation that did."""
    ended = outcome(mean, threshold, first)
    if ended == "lost":
        seen = f"; an evaluation reached it at step {first:,}, the last network does not"
        return "lost again", f"threshold {threshold:g}{seen}"
    seen = "" if first is None else f", first reached at step {first:,}"
    return "solved" if ended == "solved" else "not solved", f"threshold {threshold:g}{seen}"


def _limit(config: RunConfig, member: Member) -> Limit:
    """The limit that ended a finished run: where neither steps nor episodes did, it was the return."""
    limit = reached_limit(config, member.step, member.episodes, config.stop_at_return)
    assert limit is not None
    return limit
