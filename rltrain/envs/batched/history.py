"""The actions of running episodes, for a checkpoint to replay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rltrain.envs.lane_group import MAX_RECORDED_ACTIONS


class ActionHistory:
    """The actions of each of L lanes since its episode began; room grows with the longest episode.

    Args:
        num_envs: L.
        shape: of one action.
        dtype: of the environment's actions.
    """

    def __init__(self, num_envs: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._lanes = np.arange(num_envs)
        self._actions = np.zeros((min(256, MAX_RECORDED_ACTIONS), num_envs, *shape), dtype)
        self._longest = 0  # no episode is longer

    def record(self, actions: np.ndarray, lengths: np.ndarray) -> None:
        """Notes actions [L, *action] of lanes whose episodes have `lengths` [L] steps so far.

        An idle lane's is noted too, where the next one will overwrite it.
        """
        if self._longest >= len(self._actions):
            self._make_room(lengths)
        rows = lengths if self._longest < len(self._actions) else np.minimum(lengths, len(self._actions) - 1)
        self._actions[rows, self._lanes] = actions
        self._longest += 1

    def recorded(self, lengths: np.ndarray) -> list[np.ndarray | None]:
        """Per lane the actions of its running episode [length, *action]; None where they were too many."""
        room = len(self._actions)
        return [
            None if length > room else self._actions[:length, lane].copy()
            for lane, length in enumerate(lengths.tolist())
        ]

    def load(self, actions: Sequence[np.ndarray | None], lengths: np.ndarray) -> np.ndarray:
        """Takes the first `lengths` [L] actions of each lane over; returns all [longest, L, *action]."""
        self._longest = int(lengths.max())
        while len(self._actions) < self._longest:
            self._grow()
        for lane, (kept, length) in enumerate(zip(actions, lengths.tolist(), strict=True)):
            if kept is not None and length:
                self._actions[:length, lane] = kept
        return self._actions[: self._longest]

    def _make_room(self, lengths: np.ndarray) -> None:
        self._longest = int(lengths.max())
        if self._longest >= len(self._actions) and len(self._actions) < MAX_RECORDED_ACTIONS:
            self._grow()

    def _grow(self) -> None:
        more = np.zeros_like(self._actions[: MAX_RECORDED_ACTIONS - len(self._actions)])
        self._actions = np.concatenate([self._actions, more])
