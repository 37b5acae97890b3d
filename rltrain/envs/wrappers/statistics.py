"""Mean and variance of everything seen so far, of M members apart from each other, in float64.

Chan, Golub & LeVeque (1983), "Algorithms for computing the sample variance", equations 2.1: a batch at a time. Pure
functions of arrays, which NumPy or torch (`xp`) computes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rltrain.envs.wrappers.computed import Kept, at_least, cast


def nothing_seen(members: int, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The statistics of M members before the first observation, each [*shape]: `m2` is the sum of squared deviations
    from the mean."""
    return {"count": np.zeros(members), "mean": np.zeros((members, *shape)), "m2": np.zeros((members, *shape))}


def updated(xp: Any, kept: Kept, x: Any, seen: Any) -> Kept:
    """The statistics with x [M, N, *shape] float64 too, where `seen` (bool [M, N]) says so."""
    count, mean, m2 = (kept[name] for name in ("count", "mean", "m2"))
    axes = (len(count), *[1] * (x.ndim - 2))
    added = cast(xp, seen.sum(1), "float64")  # [M]
    mask = seen.reshape(*seen.shape, *axes[1:])
    batch_mean = xp.where(mask, x, 0.0).sum(1) / at_least(xp, added, 1.0).reshape(axes)  # [M, *shape]
    batch_m2 = xp.square(xp.where(mask, x - batch_mean[:, None], 0.0)).sum(1)
    total = count + added
    share = (added / at_least(xp, total, 1.0)).reshape(axes)
    delta = xp.where(added.reshape(axes) > 0, batch_mean - mean, 0.0)
    m2 = m2 + batch_m2 + xp.square(delta) * share * count.reshape(axes)
    return {"count": total, "mean": mean + delta * share, "m2": m2}


def deviation(xp: Any, kept: Kept, epsilon: float) -> Any:
    """[M, *shape]: the standard deviation; 1 where the variance is at most `epsilon`, as it is of one value."""
    count, m2 = kept["count"], kept["m2"]
    variance = m2 / at_least(xp, count, 1.0).reshape(len(count), *[1] * (m2.ndim - 1))
    return xp.sqrt(xp.where(variance > epsilon, variance, 1.0))
