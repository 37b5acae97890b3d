"""Messages of a population to its user: the header before it, a line per member, or for all, after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from rltrain.config.horizon import epsilon_at_end
from rltrain.config.population import differing_keys
from rltrain.config.schema import RunConfig
from rltrain.jobs.build import Parts
from rltrain.jobs.findings import findings
from rltrain.jobs.messages import continues, how, promise, steps_how
from rltrain.storage.checkpoint import Checkpoint
from rltrain.terminal.shell import shown_path
from rltrain.terminal.text import counted, mean_and_std, name_ranges, number, wrapped
from rltrain.training.evaluator import EpisodeStatistics
from rltrain.training.member import Member
from rltrain.training.outcome import outcome


def population_header(
    configs: Sequence[RunConfig],
    parts: Parts,
    folders: Sequence[Path],
    source: Checkpoint | None = None,
    exact: bool = True,
) -> str:
    """Header: describes the population in a few lines; `source` is the first member's checkpoint, where it goes on."""
    first = configs[0]
    late = [said for config in configs if (said := epsilon_at_end(config))]
    alike = len(late) == len(configs) and len(set(late)) == 1
    of = "" if alike else f" (the first of {counted(len(late), 'such job')})"
    # How it will be resumed where that is not exactly, or how it was.
    resuming = [] if parts.replays.same else [f"resume    {promise(first, parts)}"]
    if source is not None:
        resuming = [f"resumed   at step {source.step:,}, {continues(source, parts, exact, alone=False)}"]
    return "\n".join(
        [
            f"rltrain   {first.algo.name} on {first.env.id}, {len(configs)} jobs as one program, "
            + (f"differing in {', '.join(differ)}" if (differ := differing_keys(configs)) else "all alike"),
            wrapped(f"jobs      {name_ranges([folder.name for folder in folders])}"),
            f"device    {parts.device}, {how(parts)}, {parts.agent.replay_bytes / 2**20:.0f} MiB of experience",
            f"stepping  {steps_how(parts)}",
            *map(wrapped, resuming),
            *[wrapped(f"epsilon   {said}{of}") for said in late[:1]],
            f"folder    {shown_path(folders[0].parent)}",
        ]
    )


def population_line(
    name: str, own: str, config: RunConfig, member: Member, final: EpisodeStatistics, threshold: float | None
) -> str:
    """How one member ended; `own` is what sets it apart from the sweep's other jobs."""
    whole = len(final.returns) == final.asked and not final.cut
    count = "" if whole else f" over {final.count_in_words()}"
    ended = f"{member.step:,} steps, greedy return {mean_and_std(final.mean, final.std)}{count}"
    if member.solve_step is not None:
        again = ", lost again" if outcome(final.mean, threshold, member.solve_step) == "lost" else ""
        ended += f", threshold first reached at step {member.solve_step:,}{again}"
    ended += "".join(f", {finding.short}" for finding in findings(config, member, final, threshold))
    return wrapped(f"job {name:<5} {own + '  ' if own else ''}{ended}")


def population_summary(ended: Sequence[tuple[Member, EpisodeStatistics]], threshold: float | None) -> str:
    """How all members ended, in a line; each is in the sweep's table."""
    means = [final.mean for _, final in ended]
    steps = fmean(member.step for member, _ in ended)
    text = (
        f"{counted(len(ended), 'job')} ended after {steps:,.0f} steps on average, greedy return {number(fmean(means))}"
    )
    text += f" on average ({number(min(means))} to {number(max(means))})"
    if threshold is not None:
        solved = sum(outcome(final.mean, threshold, member.solve_step) == "solved" for member, final in ended)
        text += f", {solved} solved"
    return wrapped(text)
