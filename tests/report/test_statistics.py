"""Hand-computed values, exact enumerations, and what rliable 1.2.0 (with arch 7.2.0, 50,000 resamples) gives."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rltrain.report.statistics import (
    FEWEST_RUNS,
    improvement_interval,
    iqm,
    iqm_interval,
    mean_interval,
    percentile_interval,
    performance_profile,
    probability_of_improvement,
    profile_interval,
    resample_counts,
    resampled_iqm,
)

X = np.array(
    [
        [10.0, 10.9], [9.18, 7.33], [8.64, 7.03], [10.18, 14.02], [8.52, 8.14], [11.47, 11.07], [10.32, 7.21],
        [9.91, 12.09], [5.97, 8.63], [4.3, 6.13],
    ]
)  # fmt: skip
Y = np.array(
    [[3.47, 8.29], [5.2, 9.81], [9.47, 8.44], [1.45, 7.38], [8.85, 9.34], [4.41, 7.57], [6.06, 6.57], [12.18, 6.58]]
)
PAIRS = [(X[:, 0], Y[:, 0]), (X[:, 1], Y[:, 1])]
WITHIN = 0.08  # of 2,000 resamples; the ends are 2 apart


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([3.0], 3.0),
        ([1.0, 5.0], 3.0),
        ([0.0, 3.0, 100.0], 103 / 3),  # floor(3 / 4): nothing is cut
        ([100.0, 2.0, 4.0, 0.0], 3.0),
        ([5.0, 1.0, 2.0, 3.0, 1000.0], 10 / 3),
        ([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 4.5),
        ([0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 90.0, 90.0], 2.5),
    ],
)
def test_iqm_by_hand(scores: list[float], expected: float) -> None:
    assert iqm(np.array(scores)) == pytest.approx(expected)


def test_iqm_is_rliable_s() -> None:
    assert iqm(X.ravel()) == pytest.approx(9.085)
    assert iqm(Y.ravel()) == pytest.approx(7.4675)
    assert iqm(np.stack([X.ravel(), -X.ravel()], axis=1)) == pytest.approx([9.085, -9.085])


@pytest.mark.parametrize("runs", [1, 3, 4, 5, 9])
def test_a_resample_s_iqm_is_that_of_the_runs_it_holds(runs: int) -> None:
    generator = np.random.default_rng(runs)
    scores = generator.integers(0, 6, (runs, 3)).astype(float)  # with ties
    counts = resample_counts((runs,), 50)
    expected = [iqm(np.repeat(scores, row, axis=0)) for row in counts]
    assert resampled_iqm(scores, counts) == pytest.approx(np.array(expected))


def test_resamples_keep_each_environment_s_number_of_runs() -> None:
    counts = resample_counts((3, 5, 1))
    assert counts.shape == (2000, 9)
    assert (counts[:, :3].sum(1) == 3).all() and (counts[:, 3:8].sum(1) == 5).all() and (counts[:, 8] == 1).all()
    assert resample_counts((4,), 100_000).mean(axis=0) == pytest.approx(1.0, abs=0.02)


def test_the_bootstrap_of_three_runs_is_the_exact_one() -> None:
    scores = np.array([1.0, 2.0, 6.0])
    means = [np.mean(drawn) for drawn in itertools.product(scores, repeat=3)]  # iqm of three is their mean
    drawn = resampled_iqm(scores, resample_counts((3,), 40_000))
    for value in set(means):
        assert (np.isclose(drawn, value)).mean() == pytest.approx(means.count(value) / 27, abs=0.01)
    assert iqm_interval([scores]) == (1.0, 6.0)  # 1/27 of the resamples are at either end: more than 2.5 %


def test_intervals_are_rliable_s() -> None:
    assert iqm_interval(list(X.T)) == pytest.approx((7.952, 10.189), abs=WITHIN)
    assert iqm_interval(list(Y.T)) == pytest.approx((6.2175, 8.68625), abs=WITHIN)


def test_a_percentile_interval_leaves_out_as_much_at_either_end() -> None:
    low, high = percentile_interval(np.arange(1001.0)[:, None] * [1.0, -1.0])
    assert (low.tolist(), high.tolist()) == (pytest.approx([25.0, -975.0]), pytest.approx([975.0, -25.0]))


def test_probability_of_improvement_by_hand() -> None:
    x, y = np.array([1.0, 3.0]), np.array([0.0, 1.0, 2.0, 9.0])
    # 1: above 0, ties with 1. 3: above 0, 1, 2.
    assert probability_of_improvement([(x, y)]) == pytest.approx((1.5 + 3) / 8)
    assert probability_of_improvement([(y, x)]) == pytest.approx(1 - 4.5 / 8)
    assert probability_of_improvement([(x, y), (y, x)]) == pytest.approx(0.5)


def test_probability_of_improvement_is_rliable_s() -> None:
    assert probability_of_improvement(PAIRS) == pytest.approx(0.65625)
    assert improvement_interval(PAIRS) == pytest.approx((0.4625, 0.8375), abs=0.02)
    turned = improvement_interval([(y, x) for x, y in PAIRS])
    assert turned == pytest.approx((1 - 0.8375, 1 - 0.4625), abs=0.02)


def test_performance_profile_is_rliable_s() -> None:
    thresholds = np.array([7.0, 9.0, 11.0])
    assert performance_profile(X[:, 0], thresholds) == pytest.approx([0.8, 0.6, 0.1])
    interval = profile_interval(X[:, 0], thresholds)
    assert interval is not None
    assert interval[0] == pytest.approx([0.5, 0.3, 0.0]) and interval[1] == pytest.approx([1.0, 0.9, 0.3])
    assert performance_profile(np.array([7.0]), thresholds) == pytest.approx([0.0, 0.0, 0.0])  # above, not at


def test_too_few_runs_have_no_interval() -> None:
    two, three = np.array([1.0, 2.0]), np.array([1.0, 2.0, 3.0])
    assert FEWEST_RUNS == 3
    assert iqm_interval([two]) is None and iqm_interval([three, two]) is None and iqm_interval([]) is None
    assert profile_interval(two, two) is None
    assert improvement_interval([(three, two)]) is None and improvement_interval([]) is None
    assert iqm_interval([three, three]) is not None and improvement_interval([(three, three)]) is not None


def test_equal_runs_have_an_interval_of_no_width() -> None:
    assert iqm_interval([np.full(5, 7.0)]) == (7.0, 7.0)
    assert improvement_interval([(np.full(5, 7.0), np.full(5, 7.0))]) == (0.5, 0.5)


def test_the_interval_of_a_mean_is_near_the_normal_one() -> None:
    low, high = mean_interval([0.0] * 50 + [1.0] * 50) or (0.0, 0.0)
    assert low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.015) and high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.015)
    assert mean_interval([3.0] * 3) == (3.0, 3.0) and mean_interval([3.0] * 2) is None
