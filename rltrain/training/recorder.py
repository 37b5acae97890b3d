"""Collects what a log period brings, without asking the device for a number before the period ends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rltrain.errors import RunFailed
from rltrain.types import Episode


class Recorder:
    """Means, since the last row, of the update's metrics and of the finished episodes' returns and lengths.

    On the CPU every metric is checked as it comes, before the next update; on a device at the end of the period, since
    each look would stop it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._check_at_once = device.type == "cpu"
        self._sums: dict[str, Tensor | float] = {}  # numbers on the CPU, where each is looked at anyway
        self._updates = 0
        self._returns: list[float] = []
        self._lengths: list[int] = []

    def add(self, metrics: Mapping[str, Tensor], episodes: list[Episode], step: int) -> None:
        """metrics: [] by tag, {} when no gradient step was made.

        Raises:
            RunFailed: a metric is not finite.
        """
        self._add_episodes(episodes)
        if not metrics:
            return
        self._updates += 1
        for tag, value in metrics.items():
            if self._check_at_once:
                number = value.item()
                require_finite(tag, number, step)
                self._sums[tag] = self._sums.get(tag, 0.0) + number
            else:
                self._sums[tag] = self._sums[tag] + value if tag in self._sums else value

    def add_block(self, metrics: Mapping[str, np.ndarray], episodes: list[Episode], steps: Sequence[int]) -> None:
        """metrics: [U] by tag, of updates at U `steps`; {} for none.

        Raises:
            RunFailed: a metric is not finite.
        """
        self._add_episodes(episodes)
        for tag, values in metrics.items():
            total = _number(self._sums.get(tag, 0.0))
            for number, step in zip(values.tolist(), steps, strict=True):
                require_finite(tag, number, step)
                total += number  # one by one: the sum must not depend on what was a block
            self._sums[tag] = total
        self._updates += len(steps)

    def _add_episodes(self, episodes: list[Episode]) -> None:
        for episode in episodes:
            self._returns.append(episode.episode_return)
            self._lengths.append(episode.length)

    def replace_sums(self, sums: Mapping[str, Tensor | float], updates: int, episodes: list[Episode]) -> None:
        """Replace the metrics' sums since the last row, over `updates` updates, by a population's; add its episodes."""
        self._add_episodes(episodes)
        self._updates = updates
        own = sums if updates else {}
        self._sums = {tag: _number(total) if self._check_at_once else total for tag, total in own.items()}

    @property
    def sums(self) -> tuple[Mapping[str, Tensor | float], int]:
        """The sums of the metrics since the last row, each [], and over how many updates."""
        return self._sums, self._updates

    def check(self, step: int) -> None:
        """Raises:
        RunFailed: a metric since the last row is not finite. Waits for the device.
        """
        for tag, total in self._sums.items():
            require_finite(tag, _number(total), step)

    def flush(self, step: int) -> dict[str, float]:
        """The means by tag, of those tags that had any number; begins anew."""
        self.check(step)
        scalars = {tag: _number(total) / self._updates for tag, total in self._sums.items()}
        if self._returns:
            scalars["rollout/episode_return"] = sum(self._returns) / len(self._returns)
            scalars["rollout/episode_length"] = sum(self._lengths) / len(self._lengths)
        self._sums, self._updates, self._returns, self._lengths = {}, 0, [], []
        return scalars

    def state_dict(self) -> dict[str, Any]:
        return {
            "sums": {tag: _number(total) for tag, total in self._sums.items()},
            "updates": self._updates,
            "returns": list(self._returns),
            "lengths": list(self._lengths),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        sums = state["sums"].items()
        self._sums = {tag: t if self._check_at_once else torch.tensor(t, device=self._device) for tag, t in sums}
        self._updates = state["updates"]
        self._returns, self._lengths = list(state["returns"]), list(state["lengths"])


def _number(total: Tensor | float) -> float:
    """Waits for the device, if it is there."""
    return total.item() if isinstance(total, Tensor) else total


def require_finite(tag: str, value: float, step: int) -> None:
    """Raises:
    RunFailed: the metric `tag` is NaN or infinite.
    """
    if not math.isfinite(value):
        raise RunFailed(
            f"{tag} is {value} at environment step {step}; try a smaller algo.optimizer.lr or algo.max_grad_norm=1"
        )
