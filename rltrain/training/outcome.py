"""Whether a run solved its environment."""

from __future__ import annotations

from typing import Literal

Outcome = Literal["solved", "lost", "not solved"]
"""lost: an evaluation reached the threshold, and the last network does not."""


def outcome(mean: float, threshold: float | None, solve_step: int | None) -> Outcome | None:
    """The outcome of a run; None for an environment without a threshold.

    Args:
        mean: greedy return of the last network.
        solve_step: environment step of the first evaluation that reached the threshold; None: none did.
    """
    if threshold is None:
        return None
    if mean >= threshold:
        return "solved"
    return "not solved" if solve_step is None else "lost"
