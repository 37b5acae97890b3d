"""The best settings of a study as a tuned file, which applies by itself where it lies beside the user's configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rltrain import __version__
from rltrain.commands.tune_request import Plan, seeds_said
from rltrain.config.application import compose
from rltrain.config.loader import tuned_name
from rltrain.config.plain import leaves, to_plain
from rltrain.config.schema import GROUP_CONFIGS
from rltrain.config.searched import with_values
from rltrain.storage.plain_files import plain_yaml, write_file
from rltrain.storage.study_folder import StudyFolder, Trial
from rltrain.terminal.text import number

_LEFT_OUT = ("seed", "name", "init_from", "dry_run", "loggers", "device", "checkpoint")
"""Keys, or sections, that a tuned file leaves to who uses it."""


@dataclass(frozen=True)
class Confirmation:
    """Returns of fresh seeds with the best settings.

    Attributes:
        returns: seed -> the greedy return of its last network; without the runs that failed.
        asked: how many seeds were trained.
    """

    returns: Mapping[int, float]
    asked: int

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return fmean(self.returns.values())

    def to_plain(self) -> dict[str, Any]:
        """As study.json has it."""
        seeds = {str(seed): value for seed, value in self.returns.items()}
        return {"mean": self.mean, "interval_95": self._interval(), "seeds": seeds, "asked": self.asked}

    def __str__(self) -> str:
        interval = "too few for an interval"
        if ends := self._interval():
            interval = f"95 % interval {number(ends[0])} to {number(ends[1])}"
        failed = f", {self.asked - len(self.returns)} failed" if len(self.returns) < self.asked else ""
        return f"{number(self.mean)} on {seeds_said(self.returns, 'fresh seed', failed)}, {interval}"

    def _interval(self) -> tuple[float, float] | None:
        """Of the mean over the seeds; None for too few of them."""
        from rltrain.report.statistics import mean_interval

        return mean_interval(list(self.returns.values()))


def value_of(trial: Trial) -> float:
    """The return of a trial that is complete."""
    assert trial.result is not None and trial.result.value is not None
    return trial.result.value


def tuned_settings(asked: Plan, winner: Trial) -> dict[str, Any]:
    """The content of a tuned file: what a trial's settings have apart from the algorithm's own defaults."""
    config = with_values(to_plain(asked.config), winner.values)
    algo, env = asked.config.algo.name, asked.config.env.id
    chosen = {group: str(config[group]["name"]) for group in GROUP_CONFIGS if config.get(group) and group != "algo"}
    picked = [f"{group}={name}" for group, name in chosen.items()]
    before = leaves(to_plain(compose([f"algo={algo}", f"env={env}", "tuned=none", *picked])[0]))
    differing = {
        key: value
        for key, value in leaves(config).items()
        if key.partition(".")[0] not in _LEFT_OUT and (key not in before or before[key] != value)
    }
    content = {"defaults": [{f"override /{group}": name} for group, name in chosen.items()], **_nested(differing)}
    return {key: value for key, value in content.items() if value}


def write_tuned(
    folder: StudyFolder, asked: Plan, winner: Trial, content: Mapping[str, Any], confirmed: Confirmation | None
) -> None:
    """Writes the settings as conf/tuned/<algo>_<env>.yaml in the study's folder; it applies with
    `--config-dir STUDY/conf`.

    Raises:
        RunFailed: it cannot be written.
    """
    path = folder.path / "conf" / "tuned" / f"{tuned_name(asked.config.algo.name, asked.config.env.id)}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, f"# @package _global_\n{_header(folder, asked, winner, confirmed)}{plain_yaml(content)}")


def _header(folder: StudyFolder, asked: Plan, winner: Trial, confirmed: Confirmation | None) -> str:
    config, seeds = asked.config, seeds_said(asked.seeds)
    lines = [
        f"{config.env.id} with {config.algo.name}: trial {winner.number} of the study"
        f" {folder.path.name} (rltrain {__version__}).",
        f"Its mean over {seeds} after at most {config.total_steps:,} steps was the best: {number(value_of(winner))}.",
        *([f"Confirmed: {confirmed}."] if confirmed is not None else []),
        f"Searched: {'; '.join(map(str, asked.space))}.",
    ]
    return "".join(f"# {line}\n" for line in lines)


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        section = nested
        for part in path:
            section = section.setdefault(part, {})
        section[last] = value
    return nested
