"""Numbers that an environment tells apart and float32, in which networks compute, does not: timestamps, prices."""

from __future__ import annotations

import numpy as np

_ROUNDING = 2.0**-44  # of a number: smaller changes are what float64 itself rounds
_SPAN = 2.0**-23  # of all that a number has been: smaller changes float32 would not hold either, were it normalized
_COARSE = 0.25  # of a change: an error above it, as it comes of a change below some 4 spacings of float32
_TIMES = 8
_AT_FIRST, _EVERY = 256, 64  # all observations at first, then two neighbours of so many


class Precision:
    """Looks at observations of one environment; changes nothing, so that nothing of it is saved.

    A number is said to be too coarse in float32 once it has changed so slightly, against its size, that float32 made
    more than a quarter of an error of the change, eight times, and in at least half of its changes.
    """

    def __init__(self) -> None:
        self._seen = 0
        self._before: np.ndarray | None = None
        self._low = self._high = self._changed = self._coarse = np.empty(0)
        self.said = False

    def begin(self) -> None:
        """The next observation is the first of an episode: it is no change of the one before."""
        self._before = None

    def wants(self) -> bool:
        """Whether the next observation is to be seen; asked once for each."""
        self._seen += 1
        if self.said:
            return False
        if self._seen <= _AT_FIRST or self._seen % _EVERY <= 1:
            return True
        self._before = None
        return False

    def see(self, obs: np.ndarray) -> str | None:
        """obs [*obs] float64; returns, once, which number float32 does not tell apart."""
        now, before = obs.ravel().copy(), self._before
        self._before = now
        if not self._low.size:
            self._low, self._high = now, now
            self._changed, self._coarse = np.zeros(now.size, np.int64), np.zeros(now.size, np.int64)
        self._low, self._high = np.minimum(self._low, now), np.maximum(self._high, now)
        if before is None:
            return None
        with np.errstate(all="ignore"):  # what is not finite is refused elsewhere
            change = now - before
            changed = abs(change) > np.maximum(_ROUNDING * abs(now), _SPAN * (self._high - self._low))
            error = abs((now.astype(np.float32).astype(np.float64) - before.astype(np.float32)) - change)
            coarse = changed & (error > _COARSE * abs(change))
        self._changed += changed
        self._coarse += coarse
        found = np.flatnonzero(coarse & (self._coarse >= _TIMES) & (2 * self._coarse >= self._changed))
        if not found.size:
            return None
        self.said = True
        place = [int(i) for i in np.unravel_index(found[0], obs.shape)]
        first, then = before[found[0]], now[found[0]]
        one = np.float32(first) == np.float32(then)
        seen = f"{float(np.float32(first))!r} for both" if one else f"{np.float32(then) - np.float32(first):g} apart"
        at = f" {place}" if place else ""
        return f"number{at} of its observations was {float(first)!r}, then {float(then)!r}, and is {seen} in float32"
