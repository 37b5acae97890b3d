"""What the seeds of a recipe came to, in one sentence of computed numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rltrain.report.curve import moving_average

LAST = 50
WINDOW = 20
LEARNED = 195.0  # the threshold of CartPole-v0
CLEARLY = 0.8


def score(value: float) -> str:
    """A return in a few digits: 497, -13, 0.74."""
    return f"{value:.0f}" if abs(value) >= 20 or value == round(value) else f"{value:.2f}"


def read_rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def episode_returns(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """[N] one return per training episode, which is the mean of the row that it ended in: a run keeps no more.

    How many episodes ended in a row: as many as there were gradient steps, which holds for REINFORCE with one episode
    per update; where so many do not fit (DQN), the most whose lengths add up to a whole number of steps that fits.
    """
    returns: list[float] = []
    finished, updates = 0, 0
    for row in rows:
        if "rollout/episode_return" not in row:
            continue
        length, step = row["rollout/episode_length"], row["step"]
        before, updates = updates, int(row.get("train/gradient_steps", 0))
        most = int((step - finished) / length + 1e-6)
        whole = [count for count in range(1, most + 1) if abs(count * length - round(count * length)) < 1e-6]
        count = updates - before if updates - before in whole else max(whole, default=1)
        finished += round(count * length)
        returns += [row["rollout/episode_return"]] * count
    return np.array(returns)


def first_reached(returns: np.ndarray, level: float, window: int = WINDOW) -> int | None:
    """The episode, counted from 1, at which the mean of `window` episodes first was `level`; None for never."""
    reached = np.flatnonzero(moving_average(returns, window)[window - 1 :] >= level)
    return int(reached[0]) + window if len(reached) else None


def median_reached(episodes: Sequence[int | None]) -> float:
    """A seed that never reached it counts as infinitely late."""
    return float(np.median([np.inf if episode is None else episode for episode in episodes]))


def outcome(finals: Sequence[float], training: Sequence[np.ndarray], solved_at: float | None) -> str:
    """Median final return and how many seeds solved it; how well training ended; how fast it got there.

    Args:
        finals: of each seed.
        training: of each seed, its training episodes' returns.
        solved_at: the final return that counts as solved; None where there is no such return.
    """
    first, last = (np.median([r[part].mean() for r in training]) for part in (slice(LAST), slice(-LAST, None)))
    text = f"a median final return of {score(float(np.median(finals)))}"
    if solved_at is not None:
        text += f", and {sum(final >= solved_at for final in finals)} of {len(finals)} seeds reach {solved_at:g}"
    text += (
        f"; the mean training return goes from {score(first)} in the first {LAST} episodes"
        f" to {score(last)} in the last {LAST} (medians over the seeds)"
    )
    if solved_at is not None:
        episodes = [first_reached(returns, LEARNED) for returns in training]
        ever, median = sum(episode is not None for episode in episodes), median_reached(episodes)
        when = f", first at episode {median:.0f} (median)" if np.isfinite(median) else ""
        text += f"; the mean of {WINDOW} training episodes reaches {LEARNED:g} in {ever} of {len(finals)} seeds{when}"
    return text[0].upper() + text[1:] + "."


def comparison(name: str, other: Sequence[np.ndarray], training: Sequence[np.ndarray]) -> str:
    """Whether `training` learned faster than `other`, another recipe's training returns by seed.

    Faster means: over the seeds, the median episode that first reached LEARNED is at most CLEARLY times the other's.
    """
    theirs, ours = (median_reached([first_reached(r, LEARNED) for r in runs]) for runs in (other, training))
    if not np.isfinite([theirs, ours]).all():
        return ""
    verdict = "faster" if ours <= CLEARLY * theirs else "slower" if theirs <= CLEARLY * ours else "not clearly faster"
    return f"The median seed of {name} is there at episode {theirs:.0f}: this recipe is {verdict}."
