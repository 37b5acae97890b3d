"""The sentence on a recipe's page, from rows of which the answer is known."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from recipe_outcome import comparison, episode_returns, first_reached, outcome


def rows_of(lengths: list[int], period: int, updates_per_step: float) -> list[dict[str, Any]]:
    """The rows of a run whose episodes had these lengths, and returns of twice that."""
    ends = np.cumsum(lengths)
    rows = []
    for step in range(period, int(ends[-1]) + 1, period):
        ended = [length for length, end in zip(lengths, ends, strict=True) if step - period < end <= step]
        updates = step * updates_per_step if updates_per_step else int((ends <= step).sum())
        row: dict[str, Any] = {"step": step, "train/gradient_steps": updates}
        if ended:
            row |= {"rollout/episode_return": 2 * np.mean(ended), "rollout/episode_length": np.mean(ended)}
        rows.append(row)
    return rows


@pytest.mark.parametrize("updates_per_step", [0.0, 1.0])
def test_every_episode_is_counted_with_the_mean_of_its_row(updates_per_step: float) -> None:
    lengths = [30, 20, 45, 5, 60, 140, 100, 33, 67]
    returns = episode_returns(rows_of(lengths, 100, updates_per_step))
    assert returns.tolist() == [50.0] * 4 + [120.0] + [280.0] + [200.0] + [100.0] * 2
    assert returns.sum() == 2 * sum(lengths)


def test_one_update_per_episode_counts_where_the_lengths_alone_would_not() -> None:
    """Five episodes of 10 steps and a long one that has not ended look like up to ten of 10 steps."""
    lengths = [10] * 5 + [250]
    assert len(episode_returns(rows_of(lengths, 100, 0.0))) == 6


def test_the_first_episode_at_which_the_mean_was_reached() -> None:
    returns = np.array([0.0, 10.0, 20.0, 30.0, 0.0])
    assert first_reached(returns, 20.0, window=3) == 4
    assert first_reached(returns, 0.0, window=3) == 3, "not before there are so many episodes"
    assert first_reached(returns, 21.0, window=3) is None
    assert first_reached(returns[:2], 0.0, window=3) is None


def reaching_at(episode: int) -> np.ndarray:
    """500 returns whose mean of 20 is 195 at that episode."""
    return np.array([0.0] * (episode - 20) + [195.0] * (520 - episode))


def test_the_sentence_holds_the_medians_and_the_counts() -> None:
    text = outcome([500, 100, 475], [reaching_at(60), reaching_at(100), np.zeros(500)], 475)
    assert text.startswith("A median final return of 475, and 2 of 3 seeds reach 475; the mean training return goes")
    assert "from 0 in the first 50 episodes to 195 in the last 50" in text
    assert text.endswith("reaches 195 in 2 of 3 seeds, first at episode 100 (median).")
    never = outcome([500, 100, 475], [reaching_at(60), np.zeros(500), np.zeros(500)], 475)
    assert never.endswith("reaches 195 in 1 of 3 seeds.")
    assert "195" not in outcome([-1500.0], [np.full(100, -1500.0)], None)


@pytest.mark.parametrize(
    ("ours", "verdict"), [(79, "faster"), (81, "not clearly faster"), (120, "not clearly faster"), (130, "slower")]
)
def test_a_recipe_is_called_faster_only_where_it_clearly_is(ours: int, verdict: str) -> None:
    text = comparison("other", [reaching_at(100)] * 3, [reaching_at(ours)] * 3)
    assert text == f"The median seed of other is there at episode 100: this recipe is {verdict}."
    assert comparison("other", [np.zeros(500)], [reaching_at(ours)]) == ""


def test_what_never_ended_an_episode_has_no_returns() -> None:
    assert episode_returns([{"step": 100, "train/gradient_steps": 3}]).shape == (0,)
