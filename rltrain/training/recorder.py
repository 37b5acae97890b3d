"""Accumulates the metrics of a log period, without waiting for the device before the period ends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rltrain.errors import RunFailed
from rltrain.types import Episode


class Recorder:
    """Means, since a member's last row, of the update's metrics and of the finished episodes' returns and lengths.

    On the CPU every metric is checked as it comes, before the next update; on a device at the end of the period, since
    each look would stop it.
    """

    def __init__(self, members: int, num_envs: int, device: torch.device, advice: Sequence[str] = ()) -> None:
        """
        Args:
            num_envs: of each member.
            advice: appended to the error where a metric is not finite.
        """
        self._num_envs = num_envs
        self._advice = f"; try {' or '.join(advice)}" if advice else ""
        self._at_once = device.type == "cpu"
        self._single = self._at_once and members == 1  # whose metrics are numbers, looked at after every update
        self._zeros: Any = np.zeros(members) if self._at_once else torch.zeros(members, device=device)
        if self._single:
            self._zeros = np.float64(0.0)
        self._sums: dict[str, Any] = {}  # each [M], a tensor where metrics are on a device; of a single run []
        self._updates = np.zeros(members, np.int64)
        self._returns: list[list[float]] = [[] for _ in range(members)]
        self._lengths: list[list[int]] = [[] for _ in range(members)]

    def add(self, metrics: Mapping[str, Tensor], running: np.ndarray) -> dict[int, int]:
        """Add the metrics of an update.

        Args:
            metrics: [] or [M] by tag, {} when no gradient step was made.
            running: bool [M], the members that it is of.

        Returns:
            The running members whose metrics are not finite, where that is known: {member: 0}.
        """
        if not metrics:
            return {}
        self._updates += running
        finite = True
        for tag, value in metrics.items():
            sums = self._sums.get(tag, self._zeros)
            if self._single:
                sums = sums + value.item()
                finite = finite and math.isfinite(sums)
            elif self._at_once:
                sums = sums + value.numpy()
                finite = finite and bool(np.isfinite(sums).all())
            else:
                sums = sums + value
            self._sums[tag] = sums
        if finite:
            return {}
        broken = ~np.isfinite([sums.reshape(-1) for sums in self._sums.values()]).all(0)  # [M]
        return dict.fromkeys(np.flatnonzero(running & broken).tolist(), 0)

    def add_block(self, metrics: Mapping[str, np.ndarray], updates: int, running: np.ndarray) -> dict[int, int]:
        """Add the metrics of several `updates`, [U] or [U, M] by tag; returns {member: the first of them, from 0, whose
        metrics are not finite}."""
        self._updates += updates * running
        broken: dict[int, int] = {}
        for tag, values in metrics.items():
            # One by one: the sum must not depend on what was a block.
            before = self._sums.get(tag, self._zeros)
            sums = np.add.accumulate(np.concatenate([before.reshape(1, -1), values.reshape(updates, -1)]))  # [1 + U, M]
            self._sums[tag] = sums[-1, 0] if self._single else sums[-1]
            for member in np.flatnonzero(running & ~np.isfinite(sums[-1])).tolist():
                first = int(np.isfinite(sums[1:, member]).argmin())
                broken[member] = min(first, broken.get(member, first))
        return broken

    def add_episodes(self, episodes: Iterable[Episode]) -> None:
        """Add finished episodes, each to its member."""
        for episode in episodes:
            member = episode.env // self._num_envs
            self._returns[member].append(episode.episode_return)
            self._lengths[member].append(episode.length)

    def check(self, member: int, step: int) -> None:
        """Raises:
        RunFailed: a metric since the member's last row is not finite. Waits for the device.
        """
        for tag, total in self._sums_of(member).items():
            if not math.isfinite(total):
                raise RunFailed(f"{tag} is {total} at environment step {step}{self._advice}")

    def flush(self, member: int, step: int) -> dict[str, float]:
        """The member's means by tag, of those tags that had any number; begins anew."""
        self.check(member, step)
        scalars = {tag: total / int(self._updates[member]) for tag, total in self._sums_of(member).items()}
        if returns := self._returns[member]:
            scalars["rollout/episode_return"] = sum(returns) / len(returns)
            scalars["rollout/episode_length"] = sum(self._lengths[member]) / len(returns)
        self._begin(member)
        return scalars

    def _sums_of(self, member: int) -> dict[str, float]:
        if not self._updates[member]:
            return {}
        return {tag: float(sums.reshape(-1)[member]) for tag, sums in self._sums.items()}

    def _begin(self, member: int) -> None:
        self._updates[member], self._returns[member], self._lengths[member] = 0, [], []
        if self._updates.any():
            for sums in self._sums.values():
                sums[member] = 0.0
        else:
            self._sums = {}

    def state_dict(self, member: int) -> dict[str, Any]:
        return {
            "sums": self._sums_of(member),
            "updates": int(self._updates[member]),
            "returns": list(self._returns[member]),
            "lengths": list(self._lengths[member]),
        }

    def load_state_dict(self, state: Mapping[str, Any], member: int) -> None:
        self._begin(member)
        for tag, total in state["sums"].items():
            if self._single:
                self._sums[tag] = self._zeros + total
            else:
                self._sums.setdefault(tag, self._zeros + 0.0)[member] = total
        self._updates[member] = state["updates"]
        self._returns[member], self._lengths[member] = list(state["returns"]), list(state["lengths"])
