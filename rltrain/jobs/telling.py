"""Terminal messages of a training: in full for a single run, a line per job for many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rltrain.config.info import ComposeInfo
from rltrain.config.population import differences
from rltrain.config.schema import RunConfig
from rltrain.errors import Interrupted
from rltrain.jobs.build import Parts
from rltrain.jobs.last_words import stopped, stopped_before_result, stopped_evaluating, summary
from rltrain.jobs.messages import header, how
from rltrain.jobs.population_messages import population_header, population_line, population_summary
from rltrain.loggers.console import ConsoleLogger
from rltrain.loggers.logger import Logger
from rltrain.loggers.population_console import PopulationConsole
from rltrain.storage.checkpoint import Checkpoint
from rltrain.terminal.output import errors
from rltrain.terminal.shell import rltrain_command
from rltrain.terminal.table import MOST_ROWS
from rltrain.terminal.text import counted_names
from rltrain.training.evaluator import EpisodeStatistics
from rltrain.training.member import Member

if TYPE_CHECKING:
    from rltrain.jobs.training import Job

_LONGEST_NAMES = 40  # letters of each line that begins with the names of its jobs


@dataclass(frozen=True)
class Ended:
    """A member that was trained and evaluated."""

    member: Member
    final: EpisodeStatistics
    pictures: Mapping[str, Path]


class Telling(Protocol):
    """Terminal messages of one training."""

    @property
    def console(self) -> bool:
        """Whether progress bars may be drawn, and a learning curve is."""
        ...

    def screens(self, starts: Sequence[int]) -> Sequence[Logger]:
        """For each job what shows its progress; the steps at which they start."""
        ...

    def header(self, parts: Parts, source: Checkpoint | None, exact: bool) -> str:
        """Describes what will be trained; `source` is a checkpoint that is continued, exactly or not."""
        ...

    def failed(self, number: int) -> None:
        """Says that a job failed while others go on."""
        ...

    def summary(self, ended: Mapping[int, Ended], parts: Parts) -> list[str]:
        """How the jobs ended that were evaluated, by number."""
        ...

    def stopped(self, exit_code: int, members: Sequence[Member]) -> Interrupted:
        """Last words where a signal stopped the training."""
        ...

    def stopped_evaluating(self, exit_code: int, members: Sequence[Member], ended: Mapping[int, Ended]) -> Interrupted:
        """Last words where a signal stopped the evaluation after it."""
        ...


@dataclass(frozen=True)
class OfOneRun:
    """`Telling` of a single run: a header, a table at its end and what to type next."""

    config: RunConfig
    folder: Path
    info: ComposeInfo
    console: bool
    kept: bool = True  # its checkpoints, once it has ended

    def screens(self, starts: Sequence[int]) -> Sequence[Logger]:
        early = self.config.may_end_early
        return [ConsoleLogger(self.config.total_steps, starts[0], may_end_early=early, bar=self.console)]

    def header(self, parts: Parts, source: Checkpoint | None, exact: bool) -> str:
        return header(self.config, self.info, parts, self.folder, source, exact)

    def failed(self, number: int) -> None: ...

    def summary(self, ended: Mapping[int, Ended], parts: Parts) -> list[str]:
        return [
            summary(self.config, e.member, e.final, parts, self.folder, e.pictures, self.kept) for e in ended.values()
        ]

    def stopped(self, exit_code: int, members: Sequence[Member]) -> Interrupted:
        return stopped(self.config, exit_code, members[0].step, self.folder)

    def stopped_evaluating(self, exit_code: int, members: Sequence[Member], ended: Mapping[int, Ended]) -> Interrupted:
        if not ended:
            return stopped_before_result(self.config, exit_code, members[0].step, self.folder)
        return stopped_evaluating(self.config, exit_code, ended[0].final, self.folder)


@dataclass(frozen=True)
class OfJobs:
    """`Telling` of several jobs as one program: one header, and a line for each."""

    jobs: Sequence[Job]
    in_pool: bool = False  # other populations train beside this one
    goes_on: bool = False  # without jobs that have ended, whose header there was
    console: bool = False

    @property
    def _configs(self) -> list[RunConfig]:
        return [job.config for job in self.jobs]

    @property
    def _names(self) -> str:
        return counted_names("job", [job.folder.name for job in self.jobs], _LONGEST_NAMES)

    def screens(self, starts: Sequence[int]) -> Sequence[Logger]:
        early = any(config.may_end_early for config in self._configs)
        name = self._names if self.in_pool or self.goes_on else ""
        totals = [config.total_steps for config in self._configs]
        console = PopulationConsole(totals, starts, may_end_early=early, name=name)
        return [console.of_member(number) for number in range(len(self.jobs))]

    def header(self, parts: Parts, source: Checkpoint | None, exact: bool) -> str:
        if self.goes_on and source is not None:
            go = "goes" if len(self.jobs) == 1 else "go"
            return f"{self._names} {go} on from step {source.step:,} without those that have ended, {how(parts)}"
        return population_header(self._configs, parts, [job.folder for job in self.jobs], source, exact)

    def failed(self, number: int) -> None:
        print(f"job {self.jobs[number].folder.name} failed; the others go on", file=errors(), flush=True)

    def summary(self, ended: Mapping[int, Ended], parts: Parts) -> list[str]:
        """A line for each where they are few, else one for all."""
        threshold = parts.envs.reward_threshold
        if len(ended) > MOST_ROWS:
            return [population_summary([(e.member, e.final) for e in ended.values()], threshold)]
        own = [job.own or differs for job, differs in zip(self.jobs, differences(self._configs), strict=True)]
        return [
            population_line(
                self.jobs[number].folder.name, own[number], self._configs[number], e.member, e.final, threshold
            )
            for number, e in ended.items()
        ]

    def stopped(self, exit_code: int, members: Sequence[Member]) -> Interrupted:
        first = self.jobs[0]
        again = rltrain_command("resume", first.folder.parent, imports=first.config.imports)
        continues = f"; `{again}` continues" if first.config.resumable else ""
        return Interrupted(exit_code, f"{Interrupted(exit_code).reason}, saved{continues}")

    def stopped_evaluating(self, exit_code: int, members: Sequence[Member], ended: Mapping[int, Ended]) -> Interrupted:
        return self.stopped(exit_code, members)
