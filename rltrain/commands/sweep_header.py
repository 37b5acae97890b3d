"""A sweep's header: which tuned settings apply to which of them, and what cannot be compared."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rltrain.commands.sweep_results import repeated_jobs
from rltrain.config.idle import idle_lines
from rltrain.config.info import ComposeInfo
from rltrain.config.override_text import as_typed, key_of, own_overrides
from rltrain.config.plain import show
from rltrain.terminal.shell import quoted
from rltrain.terminal.text import counted_names

_APART = {"seed", "name", "tuned", "env"}
"""Keys in which jobs may differ and be tuned alike: returns in two environments are not compared."""


@dataclass(frozen=True, eq=False)
class PlannedJob:
    """A job before it begins: its folder's name, its resolved config, its overrides and how the config came about."""

    name: str
    config: Mapping[str, Any]
    overrides: tuple[str, ...]
    info: ComposeInfo


def tuned_lines(jobs: Sequence[PlannedJob]) -> list[str]:
    """Which tuned file applies to which jobs, and what it set there and nothing stronger changed."""
    own = dict(zip(jobs, own_overrides([job.overrides for job in jobs]), strict=True))
    lines = []
    for name, members in _by_tuned_file(jobs).items():
        if name is None:
            continue
        where: dict[tuple[PlannedJob, ...], list[str]] = {tuple(members): []}
        for key, value in members[0].info.tuned_file.items():
            if having := tuple(job for job in members if key in job.info.tuned_keys):
                where.setdefault(having, []).append(f"{key}={str(value).replace(' ', '')}")
        for having, settings in where.items():
            which, whole = _which(having, own), having == tuple(members)
            told = [setting for setting in settings if setting != which]
            if told or whole:
                text = " ".join(told) or "nothing that all of them keep"
                lines.append(f"tuned     {name}, {'' if whole else 'only '}for {which}: {text}")
    if lines and (others := _by_tuned_file(jobs).get(None)):
        lines.append(f"tuned     nothing for {_which(others, own)}")
    return lines


def comparison_notes(jobs: Sequence[PlannedJob], untuned: Callable[[Sequence[PlannedJob]], str]) -> list[str]:
    """Warnings for readers of the results: keys without effect, choices of which the tuned file was made for one, and
    jobs that are the same run.

    Args:
        untuned: the command that makes the same sweep without tuned files, or why there is none; it is given a job of
            each value that is compared.
    """
    found = [*_choices_of_the_file(jobs), *_algorithms(jobs)]
    notes = idle_lines((job.config, job.overrides) for job in jobs)
    if found:
        compared = list({job.name: job for _, compared in found for job in compared}.values())
        reasons = [f"unfair    {reason}" for reason, _ in found]
        advice = f"          This compares each on its defaults:\n          {untuned(compared)}"
        notes.append("\n".join([*reasons, advice]))
    repeated = repeated_jobs({job.name: job.config for job in jobs})
    if repeated:
        which = "; ".join(" and ".join(names) for names in repeated[:5]) + ("; ..." if len(repeated) > 5 else "")
        notes.append(f"same run  jobs with equal values, seed included, are one run made twice: {which}")
    return notes


def note_after(changes: Sequence[str], note: str) -> str:
    """A note on jobs whose limits `resume` has changed: the command that it ends with has the same limits."""
    *reasons, last = note.split("\n")
    command = re.fullmatch(r"(\s+(?:\w+=\S+ )*rltrain )(.+)", last)
    if command is None or "$'" in last:  # which shlex does not read
        return note
    try:
        words = shlex.split(command[2])
    except ValueError:  # a foreign file
        return note
    keys = set(map(key_of, changes))
    kept = (word for word in words if key_of(word) not in keys)
    return "\n".join([*reasons, command[1] + " ".join(map(quoted, [*kept, *changes]))])


def _by_tuned_file(jobs: Iterable[PlannedJob]) -> dict[str | None, list[PlannedJob]]:
    found: dict[str | None, list[PlannedJob]] = {}
    for job in jobs:
        found.setdefault(job.info.tuned, []).append(job)
    return found


def _choices_of_the_file(jobs: Sequence[PlannedJob]) -> list[tuple[str, list[PlannedJob]]]:
    """Why the values of a choice cannot be compared, and a job of each value."""
    found = []
    for name, members in _by_tuned_file(jobs).items():
        swept: dict[str, dict[str, PlannedJob]] = {}
        for job, own in zip(members, own_overrides([job.overrides for job in members]), strict=True):
            for override in own:
                swept.setdefault(key_of(override), {}).setdefault(override.partition("=")[2], job)
        for key, by_value in swept.items():
            if name is not None and key not in _APART and (why := _partial(key, list(by_value), members[0].info)):
                found.append((f"{key} is no fair comparison: {name} {why}.", list(by_value.values())))
    return found


def _partial(key: str, values: Sequence[str], info: ComposeInfo) -> str:
    """How a tuned file favours one of a choice's values: it names it, or sets what belongs to one; or nothing.

    A number is no choice: values around the tuned one are what a sweep of it compares.
    """
    chosen = info.tuned_file.get(key)
    if isinstance(chosen, str | bool):
        others = ", ".join(value for value in values if value != show(chosen))
        return f"is made for {show(chosen)}, and {others} gets what is left of it"
    section = key.removesuffix("name")
    sets = [name for name in info.tuned_file if section.endswith(".") and name.startswith(section)]
    return f"sets {', '.join(sets)}, which suits one of them" if sets else ""


def _algorithms(jobs: Sequence[PlannedJob]) -> list[tuple[str, list[PlannedJob]]]:
    """Algorithms of which some have a tuned file in an environment and others have none there."""
    by_env: dict[str, dict[str, PlannedJob]] = {}
    for job in jobs:
        if not any(override.startswith("tuned=") for override in job.overrides):
            by_env.setdefault(job.config["env"]["id"], {}).setdefault(job.config["algo"]["name"], job)
    found = []
    for env, by_algo in by_env.items():
        tuned = [algo for algo, job in by_algo.items() if job.info.tuned is not None]
        rest = [algo for algo in by_algo if algo not in tuned]
        if tuned and rest:
            reason = f"algo is no fair comparison: {_are(tuned)} tuned for {env}, and {_are(rest)} not."
            found.append((reason, list(by_algo.values())))
    return found


def _which(some: Sequence[PlannedJob], own: Mapping[PlannedJob, Sequence[str]]) -> str:
    """`all 10 jobs`, `target_update=soft` where these and no others have it, or their names."""
    if len(some) == len(own):
        return f"all {len(own)} jobs" if len(own) > 1 else "its job"
    for override in own[some[0]]:
        if [job for job, overrides in own.items() if override in overrides] == list(some):
            return as_typed([override])
    return counted_names("job", [job.name for job in some])


def _are(names: Sequence[str]) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"
