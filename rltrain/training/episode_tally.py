"""The episodes of one evaluation: which lane plays which, how long they are, and when they are enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from rltrain.terminal.text import episodes_in_words
from rltrain.training.evaluation_limits import EvaluationLimits


@dataclass(frozen=True)
class EpisodeStatistics:
    """Undiscounted, unclipped returns of the episodes of one evaluation.

    Attributes:
        asked: how many episodes there should be; None: as many as there are.
        cut: how many of them were cut, after `cut_at` steps.
        interrupted: whether it was stopped; the returns are those of the episodes that had ended.
        diagnostics: by tag, what tells why learning fails; of an evaluation during training.
    """

    returns: tuple[float, ...]
    asked: int | None = None
    cut: int = 0
    cut_at: int = 0
    interrupted: bool = False
    diagnostics: Mapping[str, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Of the returns; NaN where there are none."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """The deviation over the episodes (of the population: n, not n - 1)."""
        return float(np.std(self.returns))

    def to_plain(self) -> dict[str, float]:
        """As result.json has it."""
        return {"mean": self.mean, "std": self.std, "min": min(self.returns), "max": max(self.returns)}

    def count_to_plain(self) -> dict[str, int | bool]:
        """How many episodes; and, where they are not what was asked for, in what."""
        plain: dict[str, int | bool] = {"episodes": len(self.returns)}
        if self.asked not in (None, len(self.returns)):
            plain["episodes_asked"] = int(self.asked or 0)
        if self.cut:
            plain |= {"episodes_cut": self.cut, "cut_at_step": self.cut_at}
        if self.interrupted:
            plain["partial"] = True
        return plain

    def count_in_words(self) -> str:
        """`episodes_in_words`, and whether it was interrupted."""
        words = episodes_in_words(len(self.returns), self.asked, self.cut, self.cut_at)
        return f"{words}, then interrupted" if self.interrupted else words


class EpisodeTally:
    """Keeps count of the episodes of M members in M * L lanes, member by member.

    Lane l of a member plays the episodes l, l + L, l + 2L, ..., so that an episode is the same however many lanes there
    are; and which ones count follows from their lengths in the order of their numbers, whichever ended first.

    Args:
        limits: of each member that is evaluated; None where all episodes are played to their ends.

    Attributes:
        active: [M * L] bool, the lanes that are to be stepped.
        playing: [M * L], the number of each lane's episode.
        bounded: whether episodes may be cut or left out.
        steps: environment steps made.
        ended: episodes that ended.
    """

    def __init__(self, members: int, lanes: int, episodes: int, limits: Mapping[int, EvaluationLimits | None]) -> None:
        self._lanes, self._episodes, self._limits = lanes, episodes, limits
        self.playing = np.tile(np.arange(lanes), members)
        self.active = np.zeros(members * lanes, dtype=bool)
        for member in limits:
            self.active[member * lanes : (member + 1) * lanes] = np.arange(lanes) < episodes
        self._returns = np.full((members, episodes), np.nan)
        self._lengths = np.zeros((members, episodes), dtype=np.int64)  # so far, where an episode still runs
        self._was_cut = np.zeros((members, episodes), dtype=bool)
        self._bounded = {member: limit for member, limit in limits.items() if limit is not None}
        self.bounded = bool(self._bounded)
        self._stepping = int(self.active.sum())
        self.steps = self.ended = self._ended_steps = 0

    def step(self) -> None:
        """Counts one step of every active lane; comes before `end` is called for the episodes that this step ends."""
        self.steps += self._stepping
        if self._bounded:
            lanes = self.active.nonzero()[0]
            self._lengths[lanes // self._lanes, self.playing[lanes]] += 1

    def end(self, lane: int, episode_return: float, length: int) -> None:
        """Records that the episode of `lane` has ended by itself."""
        member, number = lane // self._lanes, self.playing[lane]
        self._returns[member, number] = episode_return
        self._lengths[member, number] = length
        self.ended, self._ended_steps = self.ended + 1, self._ended_steps + length
        self.playing[lane] += self._lanes
        if self.playing[lane] >= self._episodes:
            self.active[lane] = False
            self._stepping -= 1

    def too_long(self) -> list[int]:
        """The active lanes whose episodes are to be cut."""
        found: list[int] = []
        for member, limit in self._bounded.items():
            first = member * self._lanes
            lanes = first + self.active[first : first + self._lanes].nonzero()[0]
            found += lanes[self._lengths[member, self.playing[lanes]] >= limit.episode_steps].tolist()
        return found

    def cut(self, lane: int, episode_return: float) -> None:
        """Records that the episode of `lane` is cut; the lane waits, in the middle of it, until `begin_again`."""
        member, number = lane // self._lanes, self.playing[lane]
        self._was_cut[member, number] = True
        self.end(lane, episode_return, int(self._lengths[member, number]))
        self._stepping -= bool(self.active[lane])
        self.active[lane] = False

    def drop_needless(self) -> None:
        """Stops the lanes whose episodes are no longer needed: those before them have steps enough."""
        for member in self._bounded:
            first = member * self._lanes
            playing = self.playing[first : first + self._lanes]
            self.active[first : first + self._lanes] &= playing < self.enough(member)
        self._stepping = int(self.active.sum())

    def begin_again(self) -> bool:
        """Lets the lanes that wait go on, once all lanes begin an episode; False: there is nothing left to play."""
        for member in self._bounded:
            first = member * self._lanes
            self.active[first : first + self._lanes] = self.playing[first : first + self._lanes] < self.enough(member)
        self._stepping = int(self.active.sum())
        return self._stepping > 0

    def enough(self, member: int) -> int:
        """The number of episodes that a member plays, as far as is known yet; it never grows."""
        limit = self._limits[member]
        if limit is None:
            return self._episodes
        before = np.cumsum(self._lengths[member]) - self._lengths[member]
        return int((before < limit.steps).sum())

    @property
    def asked(self) -> int:
        """Episodes of all members together."""
        return self._episodes * len(self._limits)

    def steps_left(self, time_limit: int | None) -> tuple[float, bool]:
        """Environment steps still to come, and whether this is a guess by the episodes that have ended, not a bound."""
        bounds = [
            limit.steps if limit is not None else self._episodes * (time_limit or 0) for limit in self._limits.values()
        ]
        left = max(sum(bounds) - self.steps, 0)
        if not self.ended:
            return left, False
        expected = self.asked * self._ended_steps / self.ended - self.steps
        return min(max(expected, 0.0), left), True

    def statistics(self, interrupted: bool = False) -> dict[int, EpisodeStatistics]:
        """Of each member that has episodes which count: all that ended where it was interrupted."""
        found = {}
        for member, limit in self._limits.items():
            counts = ~np.isnan(self._returns[member])
            counts[self.enough(member) :] = False
            if counts.any():
                cut = int(self._was_cut[member, counts].sum())
                cut_at = 0 if limit is None else limit.episode_steps
                returns = tuple(self._returns[member, counts].tolist())
                found[member] = EpisodeStatistics(returns, self._episodes, cut, cut_at, interrupted)
        return found
