"""Giving a trial of a search up: its seeds are judged together, evaluation by evaluation, against earlier trials."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import fmean


@dataclass(frozen=True)
class PruningRule:
    """When a trial is given up, as plain data.

    Attributes:
        trial: its number; the runs that share it are its seeds.
        seeds: how many those are.
        limits: number of an evaluation (its step // eval.period) -> the return that the trial's best evaluation until
            then must reach, as a mean over its seeds.
    """

    trial: int
    seeds: int
    limits: Mapping[int, float]


def means_over_seeds(values: Sequence[Mapping[int, float]], ended: Collection[int]) -> dict[int, float]:
    """The mean over the seeds at each evaluation, up to the first that a seed has not made yet.

    Args:
        values: of each seed: number of an evaluation -> its return.
        ended: the seeds that will make no further evaluation; their last one stands for all after it.
    """
    numbers = sorted({number for of_seed in values for number in of_seed})
    known = [[_value_at(of_seed, number, seed in ended) for seed, of_seed in enumerate(values)] for number in numbers]
    whole = takewhile(lambda row: None not in row[1], zip(numbers, known, strict=True))
    return {number: fmean(value for value in row if value is not None) for number, row in whole}


def _value_at(values: Mapping[int, float], number: int, ended: bool) -> float | None:
    before = [n for n in values if n <= number]
    if number in values or not ended or not before:
        return values.get(number)
    return values[max(before)]


def pruned_at(means: Mapping[int, float], limits: Mapping[int, float]) -> int | None:
    """The first evaluation until which no mean has reached the limit of that evaluation; None where there is none."""
    best = float("-inf")
    for number, mean in means.items():
        best = max(best, mean)
        if number in limits and best < limits[number]:
            return number
    return None


class TrialPruning:
    """Evaluations of a trial's seeds, and whether it is given up. That depends on the evaluations, not on which seed is
    ahead, so that a trial that is continued decides as before."""

    def __init__(self, rule: PruningRule) -> None:
        self._limits = rule.limits
        self._values: list[dict[int, float]] = [{} for _ in range(rule.seeds)]
        self._ended: set[int] = set()
        self.pruned = False

    def report(self, seed: int, values: Mapping[int, float]) -> None:
        """Evaluations of the `seed`-th seed: number -> return."""
        self._values[seed] |= values
        self._judge()

    def end(self, seed: int) -> None:
        """The `seed`-th seed makes no further evaluation."""
        self._ended.add(seed)
        self._judge()

    def _judge(self) -> None:
        means = means_over_seeds(self._values, self._ended)
        self.pruned = self.pruned or pruned_at(means, self._limits) is not None


@dataclass(frozen=True)
class SeedPruning:
    """One seed's part in the pruning of its trial: what its trainer works with."""

    trial: TrialPruning
    seed: int

    @property
    def pruned(self) -> bool:
        """Whether the trial is given up."""
        return self.trial.pruned

    def report(self, number: int, value: float) -> None:
        """An evaluation of this seed."""
        self.trial.report(self.seed, {number: value})

    def end(self) -> None:
        """This seed makes no further evaluation."""
        self.trial.end(self.seed)
