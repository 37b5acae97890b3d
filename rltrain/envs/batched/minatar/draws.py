"""The numbers that `numpy.random.RandomState` draws, for many lanes: MT19937, one word at a time.

Matsumoto & Nishimura (1998), "Mersenne Twister"; `rand` and `randint` as in numpy/random/mtrand.pyx, whose stream is
frozen.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rltrain.envs.batched.environment import Array

WORDS = 624  # of a generator's state
_MIDDLE = 397
_MATRIX = 0x9908B0DF - 2**32  # words are int32, of which torch has all operations
_TEMPER_B, _TEMPER_C = 0x9D2C5680 - 2**32, 0xEFC60000 - 2**32
_BITS = np.random.MT19937(0)
_GENERATOR = np.random.RandomState(_BITS)  # seeding it again takes a fiftieth of the time of a new one
_KEY = np.ctypeslib.as_array((ctypes.c_int32 * WORDS).from_address(_BITS.ctypes.state_address))  # its words


def first_words(seeds: np.ndarray) -> np.ndarray:
    """int32 [WORDS, K], those that `RandomState(seed)` draws first, before tempering; seeds [K]."""
    words = np.empty((len(seeds), WORDS), np.int32)
    for row, seed in zip(words, seeds.tolist(), strict=True):
        _GENERATOR.seed(seed)
        _GENERATOR.random_sample()  # makes the first block of words
        row[:] = _KEY
    return words.T


class Draws:
    """The next words of each lane.

    Attributes:
        words: int32 [ahead, L], drawn next; how many of them are used is said afterwards.
        lanes: [L], 0, 1, ..., to index with.
    """

    def __init__(self, xp: Any, ring: Array, cursor: Array, ahead: int) -> None:
        """ring: int32 [WORDS, L], the next words before tempering, from row `cursor` [L] on."""
        self._xp, self._ring, self._cursor, self._ahead = xp, ring, cursor, ahead
        self.lanes = numbers(xp, ring.shape[-1], ring)
        self._offset = numbers(xp, ahead + 1, ring)[:, None]
        self._rows = (cursor + self._offset) % WORDS
        self._raw = ring[self._rows, self.lanes]  # [ahead + 1, L]
        self.words = _tempered(self._raw[:ahead])

    def below(self, place: Any, limit: float) -> Array:
        """`rand() < limit`, bool [..., L], where rand takes the words at `place`, an int or [..., L], and after it."""
        first, second = (self.words[place + k] if isinstance(place, int) else self.words[place + k, self.lanes]
                         for k in (0, 1))  # fmt: skip
        high, low = first >> 5 & 0x7FFFFFF, second >> 6 & 0x3FFFFFF  # of 53 bits
        top, rest = divmod(math.ceil(limit * 2**53), 2**26)
        return (high < top) | (high == top) & (low < rest)

    def take(self, count: Any) -> tuple[Array, Callable[[Array], None]]:
        """`cursor` once the first `count` (an int or [L]) of the words are drawn, and what writes those that come in
        their place into a copy of `ring`."""
        ahead = count if isinstance(count, int) else self._ahead
        if isinstance(count, np.ndarray):
            ahead = int(count.max())  # no more than are drawn
        rows, raw = self._rows[:ahead], self._raw[: ahead + 1]
        both = raw[:-1] & -(2**31) | raw[1:] & (2**31 - 1)
        middle = self._ring[(rows + _MIDDLE) % WORDS, self.lanes]
        later = middle ^ (both >> 1 & (2**31 - 1)) ^ (raw[1:] & 1) * _MATRIX
        if not isinstance(count, int):
            later = self._xp.where(self._offset[:ahead] < count, later, raw[:-1])

        def write(ring: Array) -> None:
            ring[rows, self.lanes] = later

        return (self._cursor + count) % WORDS, write


def numbers(xp: Any, count: int, like: Array) -> Array:
    """0, 1, ... on the device of `like`."""
    return np.arange(count) if xp is np else xp.arange(count, device=like.device)


def _tempered(words: Array) -> Array:
    words = words ^ (words >> 11 & 0x1FFFFF)
    words = words ^ (words << 7 & _TEMPER_B)
    words = words ^ (words << 15 & _TEMPER_C)
    return words ^ (words >> 18 & 0x3FFF)
