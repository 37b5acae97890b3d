"""A run's end as its folder tells it, which may be untrusted or damaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rltrain.errors import RequestError
from rltrain.storage.checkpoint_folders import newest_step
from rltrain.storage.run_folder import RunFolder
from rltrain.terminal.text import episodes_in_words

MOST_STEPS = 1 << 63
LARGEST = 1e100
"""Numbers beyond it have overflowed, or will in a sum or a square: they count as not finite."""


@dataclass(frozen=True)
class RunResult:
    """The greedy episodes of a run's last network, from result.json.

    Attributes:
        env_step: at which it was trained.
        returns: mean, std, min and max over `episodes` episodes.
        threshold: the environment's; None where it has none.
        solve_step: of the first evaluation that reached the threshold.
        asked: how many episodes there should have been.
        cut: how many of `episodes` were cut, after `cut_at` steps.
        ended_by: the key of the limit that ended the training; None: not known.
    """

    env_step: int
    episodes: int
    returns: Mapping[str, float]
    threshold: float | None
    solve_step: int | None
    asked: int
    cut: int = 0
    cut_at: int = 0
    ended_by: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all episodes that were asked for were played to their ends."""
        return self.episodes == self.asked and not self.cut

    @property
    def limited(self) -> dict[str, int]:
        """How they differ from what was asked for, under the keys of result.json; empty where they do not."""
        found = {} if self.asked == self.episodes else {"episodes_asked": self.asked}
        return found | ({"episodes_cut": self.cut, "cut_at_step": self.cut_at} if self.cut else {})

    @property
    def count_in_words(self) -> str:
        """`20 of 100 episodes, 3 of them cut at step 2,500`."""
        return episodes_in_words(self.episodes, self.asked, self.cut, self.cut_at)


def read_result(run: RunFolder) -> RunResult | None:
    """The result of a run; None where it is missing, damaged, or not of finite numbers."""
    try:
        plain = run.read_result()
        returns = {key: float(plain["episode_return"][key]) for key in ("mean", "std", "min", "max")}
        threshold, solve_step = plain.get("threshold"), plain.get("solve_step")
        result = RunResult(
            env_step=int(plain["env_step"]),
            episodes=int(plain["episodes"]),
            returns=returns,
            threshold=None if threshold is None else float(threshold),
            solve_step=None if solve_step is None else int(solve_step),
            asked=int(plain.get("episodes_asked", plain["episodes"])),
            cut=int(plain.get("episodes_cut", 0)),
            cut_at=int(plain.get("cut_at_step", 0)),
            ended_by=ended_by if isinstance(ended_by := plain.get("ended_by"), str) else None,
        )
    except (RequestError, KeyError, TypeError, ValueError, OverflowError):
        return None
    counts = (result.env_step, result.solve_step, result.episodes, result.asked, result.cut, result.cut_at)
    finite = all(abs(number) < LARGEST for number in (*returns.values(), result.threshold or 0.0))
    return result if finite and all(0 <= count < MOST_STEPS for count in counts if count is not None) else None


def status_of(run: RunFolder) -> str:
    """The status in run.json, "unknown" where it holds none. Without the file "not begun"; but if the run has saved it
    was lost, and the run is "completed" with a result of its newest checkpoint, else "interrupted".

    Raises:
        RequestError: the file is damaged.
    """
    if run.record.exists():
        status = run.read_record().get("status")
        return status if isinstance(status, str) else "unknown"
    if not (newest := newest_step(run.path)):
        return "not begun"
    result = read_result(run)
    return "completed" if result is not None and result.env_step == newest else "interrupted"


def read_status(run: RunFolder) -> str:
    """`status_of`, and "unknown" where run.json is damaged."""
    try:
        return status_of(run)
    except RequestError:
        return "unknown"


def is_completed(folder: Path) -> bool:
    """Whether a run has trained to its end and has its result; not where either file is damaged."""
    run = RunFolder(folder)
    return read_status(run) == "completed" and read_result(run) is not None
