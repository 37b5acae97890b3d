"""Mean and variance of everything seen so far."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


class RunningStatistics:
    """Of M members apart from each other, in float64. Chan, Golub & LeVeque (1983), "Algorithms for computing the
    sample variance", equations 2.1: a batch at a time.

    Args:
        members: M.
        shape: of one observation.
    """

    def __init__(self, members: int, shape: tuple[int, ...]) -> None:
        self._axes = (members, *[1] * len(shape))
        self.count = np.zeros(members)
        self.mean = np.zeros((members, *shape))
        self.m2 = np.zeros((members, *shape))  # the sum of squared deviations from the mean

    def update(self, x: np.ndarray, seen: np.ndarray) -> None:
        """Takes in x [M, N, *shape] float64, where `seen` (bool [M, N]) says so."""
        added = seen.sum(1).astype(np.float64)  # [M]
        mask = seen.reshape(*seen.shape, *self._axes[1:])
        batch_mean = np.where(mask, x, 0.0).sum(1) / np.maximum(added, 1.0).reshape(self._axes)  # [M, *shape]
        batch_m2 = np.square(np.where(mask, x - batch_mean[:, None], 0.0)).sum(1)
        total = self.count + added
        share = (added / np.maximum(total, 1.0)).reshape(self._axes)
        delta = np.where(added.reshape(self._axes) > 0, batch_mean - self.mean, 0.0)
        self.mean = self.mean + delta * share
        self.m2 = self.m2 + batch_m2 + np.square(delta) * share * self.count.reshape(self._axes)
        self.count = total

    def deviation(self, epsilon: float) -> np.ndarray:
        """[M, *shape]: the standard deviation; 1 where the variance is at most `epsilon`, as it is of one value."""
        variance = self.m2 / np.maximum(self.count, 1.0).reshape(self._axes)
        return np.sqrt(np.where(variance > epsilon, variance, 1.0))

    def arrays(self) -> dict[str, np.ndarray]:
        return {"count": self.count, "mean": self.mean, "m2": self.m2}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.count, self.mean, self.m2 = (arrays[name].copy() for name in ("count", "mean", "m2"))
