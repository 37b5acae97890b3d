"""How a population's ending is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from rltrain.jobs.population_messages import population_summary


def ended(step: int, mean: float, solve_step: int | None = None) -> Any:
    return SimpleNamespace(step=step, solve_step=solve_step), SimpleNamespace(mean=mean)


def test_many_members_are_told_in_a_line() -> None:
    members = [ended(1000 + n, float(n), 500 if n > 90 else None) for n in range(101)]
    assert population_summary(members, 100.0) == (
        "101 jobs ended after 1,050 steps on average, greedy return 50.0 on average (0.0 to 100.0), 1 solved"
    )
    assert "solved" not in population_summary(members, None)
