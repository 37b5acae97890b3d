"""Comparison of the variants of a report: their order, the best one's chances against the others, and aggregates over
environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rltrain.report.runs import TRAINING
from rltrain.report.statistics import improvement_interval, iqm, iqm_interval, probability_of_improvement
from rltrain.report.summary import Estimate, Summary


@dataclass(frozen=True)
class Improvement:
    """Probability that a run of `better` scores above a run of `other`, over the environments that both have.

    Attributes:
        low, high: None where there are too few runs for an interval.
        compared: how many environments both have scores in; of `envs` that either was run in.
    """

    better: str
    other: str
    probability: float
    low: float | None
    high: float | None
    compared: int
    envs: int


@dataclass(frozen=True)
class Aggregate:
    """Interquartile means of normalized scores over several environments.

    Attributes:
        scales: environment -> the returns that are 0 and 1.
        variants: those that have scores in all of these environments.
    """

    scales: Mapping[str, tuple[float, float]]
    variants: Mapping[str, Estimate]


def envs_of(summaries: Sequence[Summary]) -> list[str]:
    """Ids, in the order of the settings."""
    return list(dict.fromkeys(summary.setting.env for summary in summaries))


def best_first(summaries: Sequence[Summary]) -> list[str]:
    """The variants by the mean of their ranks in the environments that they were run in, by final score; of those that
    are level, the one with the larger aggregate. Without a score it is the last there; without any it comes last."""
    ranks: dict[str, list[int]] = {summary.setting.variant: [] for summary in summaries}
    for env in envs_of(summaries):
        own = [s for s in summaries if s.setting.env == env]
        scored = sorted([s for s in own if s.score is not None], key=_value, reverse=True)
        places = {summary.setting.variant: place for place, summary in enumerate(scored)}
        for summary in own:
            ranks[summary.setting.variant].append(places.get(summary.setting.variant, len(scored)))
    has_score = {summary.setting.variant for summary in summaries if summary.score is not None}
    found = aggregate(summaries)
    level = {} if found is None else {variant: -estimate.value for variant, estimate in found.variants.items()}

    def place(variant: str) -> tuple[bool, float, float]:
        return variant not in has_score, float(np.mean(ranks[variant])), level.get(variant, np.inf)

    return sorted(ranks, key=place)


def best_in(summaries: Sequence[Summary], env: str) -> Summary | None:
    """The setting with the best final score in an environment; None where there is nothing to choose from."""
    scored = [s for s in summaries if s.setting.env == env and s.score is not None]
    return max(scored, key=_value) if len(scored) > 1 else None


def improvements(summaries: Sequence[Summary], variants: Sequence[str]) -> list[Improvement]:
    """The first of `variants` against each of the others."""
    scores = {(s.setting.variant, s.setting.env): s.scores for s in summaries if len(s.scores)}
    envs = list(dict.fromkeys(env for _, env in scores))
    run_in = {(s.setting.variant, s.setting.env) for s in summaries}
    found = []
    for other in variants[1:]:
        both = [env for env in envs if (variants[0], env) in scores and (other, env) in scores]
        if both:
            pairs = [(scores[variants[0], env], scores[other, env]) for env in both]
            interval = improvement_interval(pairs) or (None, None)
            either = {env for variant, env in run_in if variant in (variants[0], other)}
            probability = probability_of_improvement(pairs)
            low, high = interval
            found.append(Improvement(variants[0], other, probability, low, high, len(both), len(either)))
    return found


def aggregate(summaries: Sequence[Summary]) -> Aggregate | None:
    """None where there are no two environments whose returns can be brought to one scale."""
    scales = {
        env: scale for env in envs_of(summaries) if (scale := _scale([s for s in summaries if s.setting.env == env]))
    }
    if len(scales) < 2:
        return None
    found = {}
    for variant in dict.fromkeys(summary.setting.variant for summary in summaries):
        own = {s.setting.env: s.scores for s in summaries if s.setting.variant == variant and len(s.scores)}
        if scales.keys() <= own.keys():
            strata = [(own[env] - zero) / (one - zero) for env, (zero, one) in scales.items()]
            interval = iqm_interval(strata) or (None, None)
            found[variant] = Estimate(float(iqm(np.concatenate(strata))), *interval)
    return Aggregate(scales, found) if found else None


def _scale(summaries: Sequence[Summary]) -> tuple[float, float] | None:
    """0: the mean return with which training begins. 1: the threshold, or the best final score without one."""
    runs = [run for summary in summaries for run in summary.setting.runs]
    starts = [float(line.values[0]) for run in runs if (line := run.series(TRAINING)) is not None]
    thresholds = [run.result.threshold for run in runs if run.result is not None and run.result.threshold is not None]
    tops = thresholds or [summary.score.value for summary in summaries if summary.score is not None]
    if not starts or not tops or not max(tops) > np.mean(starts):
        return None
    return float(np.mean(starts)), max(tops)


def _value(summary: Summary) -> float:
    assert summary.score is not None
    return summary.score.value
