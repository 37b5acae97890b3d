"""Messages between the vector environment and the environments that it steps, here or in workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from rltrain.errors import RunFailed

MAX_RECORDED_ACTIONS = 100_000  # per running episode; a longer one cannot be replayed
MAX_REPLAY_SECONDS = 60.0  # for all lanes of a process together


class Finished(NamedTuple):
    """An episode that ended in a lane: its undiscounted return and its steps."""

    lane: int
    episode_return: float
    length: int


@dataclass(slots=True)
class LaneStep:
    """One step of n lanes. Rows of idle lanes hold nothing of meaning, but `obs` is true for all."""

    obs: np.ndarray  # [n, *obs], the observation to act on: after an episode's end, the next one's first
    next_obs: np.ndarray  # [n, *obs], the true successor; the same array as obs where no episode ended
    reward: np.ndarray  # [n] float32
    terminated: np.ndarray  # [n] bool; also where only a life was lost, which ends no episode
    truncated: np.ndarray  # [n] bool
    finished: list[Finished]
    notes: tuple[str, ...] = ()  # what the user should be told of the environment


@dataclass(slots=True)
class LaneState:
    """The running episodes of n lanes, as data."""

    obs: np.ndarray  # [n, *obs]
    episode_return: list[float]
    episode_length: list[int]
    actions: list[np.ndarray | None]  # per lane [length, *action] as the environment got them; None: too many
    twin_state: np.ndarray | None = None  # [n, *state], where a replay in NumPy would not lead to it bit for bit


class LaneGroup(Protocol):
    """n environments that step together; seeds come from outside, one per episode.

    `failures` is None, or a mapping into which a lane's failure goes instead of being raised; the other lanes go on.
    """

    failures: dict[int, RunFailed] | None

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """Begins an episode in every lane, from one seed each; obs [n, *obs]."""
        ...

    def step(self, actions: np.ndarray, active: np.ndarray | None, next_seeds: Sequence[int]) -> LaneStep:
        """Steps the lanes where `active` [n] is true (None: all); one that ends begins anew from its next seed."""
        ...

    def state(self) -> LaneState:
        """Copies of the running episodes."""
        ...

    def restore(
        self, state: LaneState, seeds: Sequence[int], next_seeds: Sequence[int]
    ) -> tuple[np.ndarray, list[bool]]:
        """Continues stored episodes: obs [n, *obs], and of each lane whether it goes on bit for bit. Where one does
        not, the episode of its next seed begins."""
        ...

    def close(self) -> None:
        """Closes the environments; safe to call twice."""
        ...
