"""Statistics of few runs: interquartile mean, stratified bootstrap, performance profile, probability of improvement.

After Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (NeurIPS 2021). A score is
one number of one run. Runs are resampled, never the episodes inside of one: two episodes of a run share its network.

A resample is told by how often it holds each run, `counts`; whatever is asked of it is then a weighted sum.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
FEWEST_RUNS = 3
"""Below which no interval is given: resamples of two runs are the two runs and their mean."""
_TRIMMED = 0.25
_MOST_SHORT = 10_000  # runs whose places fit into 16 bits
_LARGEST_BLOCK = 1 << 21  # numbers that are worked on at once


def iqm(scores: np.ndarray) -> np.ndarray:
    """Interquartile mean over the first axis, [N, ...] -> [...]: without the lowest and the highest floor(N / 4)."""
    return np.asarray(np.sort(scores, axis=0)[_cut(len(scores)) : len(scores) - _cut(len(scores))].mean(axis=0))


@functools.lru_cache(maxsize=16)
def resample_counts(sizes: tuple[int, ...], resamples: int = RESAMPLES) -> np.ndarray:
    """How often each of `resamples` stratified resamples holds each run, int16 [R, sum(sizes)].

    Always the same for the same sizes, so that a report that is made again is the same.

    Args:
        sizes: the number of runs in each stratum, whose runs are drawn among themselves: one stratum per environment.
    """
    generator = np.random.default_rng(0)
    drawn = [generator.multinomial(size, np.full(size, 1 / size), resamples) for size in sizes]
    counts = np.hstack(drawn).astype(np.int32 if max(sizes) > _MOST_SHORT else np.int16)  # short is fast, and kept
    counts = counts[np.lexsort(counts.T)]  # equal resamples, of which few runs have many, are neighbours
    counts.setflags(write=False)
    return counts


def resampled_iqm(scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Interquartile mean of each resample: scores [N, ...], counts [R, N] -> [R, ...]."""
    begins = np.flatnonzero(np.append(True, (counts[1:] != counts[:-1]).any(axis=1)))
    repeats, counts = np.diff(np.append(begins, len(counts))), counts[begins]
    runs, resamples = len(scores), len(counts)
    first, last = _cut(runs), runs - _cut(runs)
    columns = scores.reshape(runs, -1)
    by_run = np.ascontiguousarray(
        counts.T, np.int32 if runs > 10_000 else np.int16
    )  # [N, R]: small, so that it is fast
    found = np.empty((columns.shape[1], resamples))
    together = max(1, _LARGEST_BLOCK // (runs * resamples))
    for start in range(0, columns.shape[1], together):
        order = np.argsort(columns[:, start : start + together], axis=0, kind="stable")  # [N, C]
        # Where, of the places of a sorted resample, the copies of each run end; then how many of them are kept.
        ends = np.clip(np.cumsum(by_run[order], axis=0, dtype=by_run.dtype), first, last)  # [N, C, R]
        kept = np.diff(ends, axis=0, prepend=by_run.dtype.type(first))
        ordered = np.take_along_axis(columns[:, start : start + together], order, axis=0)  # [N, C]
        found[start : start + together] = np.matmul(ordered.T[:, None, :], kept.transpose(1, 0, 2))[:, 0]
    found = np.repeat(found.T, repeats, axis=0) / (last - first)
    return found.reshape(len(found), *scores.shape[1:])


def percentile_interval(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap interval: a statistic of each resample, [R, ...] -> its low and high end, each [...]."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return low, high


def iqm_interval(strata: Sequence[np.ndarray]) -> tuple[float, float] | None:
    """Interval of the interquartile mean over all runs of `strata`, the scores of each environment's runs [N].

    None where an environment has fewer than `FEWEST_RUNS` runs.
    """
    sizes = tuple(len(scores) for scores in strata)
    if not sizes or min(sizes) < FEWEST_RUNS:
        return None
    low, high = percentile_interval(resampled_iqm(np.concatenate(strata), resample_counts(sizes)))
    return float(low), float(high)


def mean_interval(scores: Sequence[float]) -> tuple[float, float] | None:
    """Interval of the mean of runs in one environment; None for fewer than `FEWEST_RUNS`."""
    if len(scores) < FEWEST_RUNS:
        return None
    low, high = percentile_interval(resample_counts((len(scores),)) @ np.asarray(scores, np.float64) / len(scores))
    return float(low), float(high)


def performance_profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Share of the runs whose score is above each threshold: [N], [T] -> [T]."""
    return np.asarray((scores[:, None] > thresholds).mean(axis=0))


def profile_interval(scores: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Interval of the performance profile at each threshold, each end [T]; None for fewer than `FEWEST_RUNS` runs."""
    if len(scores) < FEWEST_RUNS:
        return None
    above = (scores[:, None] > thresholds).astype(np.float64)
    return percentile_interval(resample_counts((len(scores),)) @ above / len(scores))


def probability_of_improvement(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Probability that a run of X scores above a run of Y, in a random environment; a tie counts half.

    Args:
        pairs: of each environment the scores of X [N] and of Y [M].
    """
    return float(np.mean([_wins(x, y).mean() for x, y in pairs]))


def improvement_interval(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float] | None:
    """Interval of `probability_of_improvement`; None where fewer than `FEWEST_RUNS` runs of either have scores.

    X and Y are resampled independently of each other, in each environment.
    """
    sizes = tuple(len(scores) for pair in pairs for scores in pair)
    if not sizes or min(sizes) < FEWEST_RUNS:
        return None
    counts = np.split(resample_counts(sizes), np.cumsum(sizes)[:-1], axis=1)
    chances = [
        ((counts[2 * i] @ _wins(x, y)) * counts[2 * i + 1]).sum(axis=1) / (len(x) * len(y))
        for i, (x, y) in enumerate(pairs)
    ]
    low, high = percentile_interval(np.mean(chances, axis=0))
    return float(low), float(high)


def _wins(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """1 where x is above y, a half where they are equal: [N, M]."""
    return np.asarray((x[:, None] > y) + 0.5 * (x[:, None] == y))


def _cut(runs: int) -> int:
    return int(_TRIMMED * runs)
