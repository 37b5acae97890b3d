"""Every random number of a run comes from one seed, through one stream per purpose.

All streams descend from `numpy.random.SeedSequence(seed, spawn_key=(purpose, *keys))`, so neighbouring seeds, purposes
and environments share nothing (Gymnasium's own `seed + i` lets environment 1 of seed 0 repeat environment 0 of seed 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

Purpose = Literal[
    "network", "replay", "exploration", "policy", "environment", "evaluation", "minibatches", "acting_noise",
    "learning_noise",
    "fractions",
]  # fmt: skip

# The number is part of the checkpoint format: append, never renumber.
_PURPOSE_KEY: dict[Purpose, int] = {
    "network": 0,
    "replay": 1,
    "exploration": 2,
    "policy": 3,
    "environment": 4,
    "evaluation": 5,
    "minibatches": 6,
    "acting_noise": 7,
    "learning_noise": 8,
    "fractions": 9,
}

# Of NumPy's SeedSequence, whose stream is promised to stay.
_POOL_SIZE = 4
_INIT_A, _MULT_A, _INIT_B, _MULT_B = 0x43B0D7E5, 0x931E8875, 0x8B51F9DD, 0x58F38DED
_MIX_LEFT, _MIX_RIGHT = 0xCA01F9DD, 0x4973F715
_PCG_MULT = 0x2360ED051FC65DA44385DF649FCCF645  # of PCG64


def _sequence(seed: int, purpose: Purpose, keys: tuple[int, ...]) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(_PURPOSE_KEY[purpose], *keys))


def make_generator(seed: int, purpose: Purpose, *keys: int) -> np.random.Generator:
    """The generator of one purpose; `keys` tell apart several users of one purpose."""
    return np.random.Generator(np.random.PCG64(_sequence(seed, purpose, keys)))


def derive_seed(seed: int, purpose: Purpose, *keys: int) -> int:
    """An integer seed in [0, 2**31), for an API that takes one (`env.reset(seed=...)`, `torch.manual_seed`)."""
    return int(_sequence(seed, purpose, keys).generate_state(1)[0]) >> 1


class EpisodeSeeds:
    """`derive_seed(seed, purpose, *keys, number)` of several environments for the numbers of their episodes.

    NumPy's SeedSequence mixes its words in one after the other, so what comes before the last word is shared, and the
    one number that is asked for depends on the first word of its pool alone. One costs as much as four environment
    steps, many little more. O'Neill 2015, "Developing a seed_seq alternative"; constants and order of
    numpy/random/bit_generator.pyx.
    """

    def __init__(self, purpose: Purpose, streams: Sequence[tuple[int, ...]], block_size: int = 64) -> None:
        """streams: seed and keys of each environment."""
        befores = [_before_last_word(seed, purpose, keys) for seed, *keys in streams]
        self._pool = np.array([pool for pool, _ in befores], np.uint32)
        self._multiplier = np.array([multiplier for _, multiplier in befores], np.uint64)
        self._block_size = block_size
        self._blocks: dict[int, tuple[int, list[int]]] = {}  # by environment: number of the block, its seeds

    def __call__(self, env: int, number: int) -> int:
        """Quick where an environment's numbers come one after the other."""
        block = number // self._block_size
        found = self._blocks.get(env)
        if found is None or found[0] != block:
            numbers = np.arange(block * self._block_size, (block + 1) * self._block_size)
            found = self._blocks[env] = block, self.many(np.full(self._block_size, env), numbers).tolist()
        return found[1][number % self._block_size]

    def many(self, envs: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """int64 [K], for pairs of envs [K] and numbers [K] in [0, 2**32)."""
        multiplier = self._multiplier[envs]
        words = numbers.astype(np.uint32) ^ multiplier.astype(np.uint32)
        words *= (multiplier * np.uint64(_MULT_A)).astype(np.uint32)
        words ^= words >> np.uint32(16)
        return _hashed(_mixed(self._pool[envs], words), _INIT_B, _MULT_B).astype(np.int64) >> 1


def _before_last_word(seed: int, purpose: Purpose, keys: Sequence[int]) -> tuple[int, int]:
    """The first word of the pool before one more word is mixed in, and what that is multiplied with."""
    pool = _sequence(seed, purpose, tuple(keys)).pool
    words = max(_POOL_SIZE, _num_words(seed)) + sum(_num_words(key) for key in (_PURPOSE_KEY[purpose], *keys))
    mixed_in = _POOL_SIZE**2 + _POOL_SIZE * (words - _POOL_SIZE)  # how often the multiplier has moved on
    return int(pool[0]), _INIT_A * pow(_MULT_A, mixed_in, 2**32) % 2**32


def first_draws(seeds: np.ndarray, count: int) -> np.ndarray:
    """[count, K]: the first numbers that `Generator(PCG64(seed)).random()` gives for each of K seeds in [0, 2**32).

    Making a generator costs several environment steps. O'Neill 2014, "PCG: A family of simple fast space-efficient
    statistically good algorithms": the 128-bit generator with the output function XSL-RR, seeded as NumPy does.
    """
    words = _generate_state(seeds)
    high_0, low_0, high_1, low_1 = (words[k + 1] << np.uint64(32) | words[k] for k in (0, 2, 4, 6))
    stream = high_1 << np.uint64(1) | low_1 >> np.uint64(63), low_1 << np.uint64(1) | np.uint64(1)
    state = _pcg_step(_add_128(stream, (high_0, low_0)), stream)
    draws = np.empty((count, len(seeds)))
    for k in range(count):
        high, low = state = _pcg_step(state, stream)
        turned, by = high ^ low, high >> np.uint64(58)
        output = turned >> by | turned << (-by & np.uint64(63))
        draws[k] = (output >> np.uint64(11)) * 2.0**-53
    return draws


def _generate_state(seeds: np.ndarray) -> list[np.ndarray]:
    """The eight words of SeedSequence(seed).generate_state(8), each uint64 [K]."""
    pool_size = _POOL_SIZE
    multipliers = _multipliers(_INIT_A, _MULT_A)
    entropy = [seeds.astype(np.uint32), *[np.zeros(len(seeds), np.uint32)] * (pool_size - 1)]
    pool = [_hashed(word, next(multipliers), _MULT_A) for word in entropy]
    for source in range(pool_size):
        for into in range(pool_size):
            if source != into:
                pool[into] = _mixed(pool[into], _hashed(pool[source], next(multipliers), _MULT_A))
    multipliers = _multipliers(_INIT_B, _MULT_B)
    return [_hashed(pool[k % pool_size], next(multipliers), _MULT_B).astype(np.uint64) for k in range(8)]


def _multipliers(first: int, step: int) -> Iterator[int]:
    while True:
        yield first
        first = first * step % 2**32


_Uint128 = tuple[np.ndarray, np.ndarray]
"""The high and the low 64 bits."""


def _pcg_step(state: _Uint128, stream: _Uint128) -> _Uint128:
    """state * multiplier + stream."""
    (high, low), mask, half = state, np.uint64(2**32 - 1), np.uint64(32)
    by_high, by_low = np.uint64(_PCG_MULT >> 64), np.uint64(_PCG_MULT & 2**64 - 1)
    low_0, low_1, by_0, by_1 = low & mask, low >> half, by_low & mask, by_low >> half
    bottom, cross_0, cross_1 = low_0 * by_0, low_0 * by_1, low_1 * by_0
    middle = (bottom >> half) + (cross_0 & mask) + (cross_1 & mask)
    top = low_1 * by_1 + (cross_0 >> half) + (cross_1 >> half) + (middle >> half)
    return _add_128((top + high * by_low + low * by_high, bottom & mask | middle << half), stream)


def _add_128(x: _Uint128, y: _Uint128) -> _Uint128:
    low = x[1] + y[1]
    return x[0] + y[0] + (low < x[1]), low


def _mixed(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    words: np.ndarray = np.uint32(_MIX_LEFT) * x - np.uint32(_MIX_RIGHT) * y
    words ^= words >> np.uint32(16)
    return words


def _hashed(words: np.ndarray, multiplier: int, step: int) -> np.ndarray:
    words = (words ^ np.uint32(multiplier)) * np.uint32(multiplier * step % 2**32)
    return words ^ (words >> np.uint32(16))


def _num_words(key: int) -> int:
    return max(1, (key.bit_length() + 31) // 32)


Kind = Literal["uniform", "normal"]
"""Of random numbers, float64: on [0, 1), or standard."""
_BLOCK_SIZE = 4096
_MOST_DRAWS = 1 << 20  # of a block in a checkpoint, where this version makes smaller ones


class RandomBlock:
    """Draws of one purpose, made a block at a time: one NumPy call serves many steps.

    The checkpoint holds the generator's state from before the current block and the position in it, so a resumed run
    draws exactly what the uninterrupted one draws.

    Args:
        generator: the purpose's own generator.
        block_size: how many numbers one NumPy call draws.
    """

    def __init__(self, generator: np.random.Generator, kind: Kind = "uniform", block_size: int = _BLOCK_SIZE) -> None:
        self._generator = generator
        self._draw = generator.random if kind == "uniform" else generator.standard_normal
        self._block_size = block_size
        self._state_before = generator.bit_generator.state
        self._block = np.empty(0)
        self._position = 0

    def take(self, count: int) -> np.ndarray:
        """The next `count` draws, float64 [count]; read-only use: it may be a view of the block."""
        end = self._position + count
        if end <= len(self._block):
            draws = self._block[self._position : end]
            self._position = end
            return draws
        parts = [self._block[self._position :]]
        missing = count - len(parts[0])
        # Whole blocks: where a block begins must not depend on how many are taken at a time.
        if before := (missing - 1) // self._block_size * self._block_size:
            parts.append(self._draw(before))
        self._state_before = self._generator.bit_generator.state
        self._block = self._draw(self._block_size)
        self._position = missing - before
        return np.concatenate([*parts, self._block[: self._position]])

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self._state_before, "block_length": len(self._block), "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        length, position = int(state["block_length"]), int(state["position"])
        if not 0 <= position <= length <= max(self._block_size, _MOST_DRAWS):
            raise ValueError(f"a block of {length} draws at position {position}")
        self._generator.bit_generator.state = state["generator"]
        self._state_before = state["generator"]
        self._block = self._draw(length) if length else np.empty(0)
        self._position = position


class RandomBlocks:
    """One RandomBlock per member of a population, so that a member draws what the single run of its seed draws."""

    def __init__(
        self, seeds: Sequence[int], purpose: Purpose, kind: Kind = "uniform", block_size: int = _BLOCK_SIZE
    ) -> None:
        """seeds: [M], of the members' runs."""
        self._blocks = [RandomBlock(make_generator(seed, purpose), kind, block_size) for seed in seeds]

    def take(self, count: int, members: Sequence[int] | None = None) -> np.ndarray:
        """The next `count` draws of each of `members` (None: all), float64 [M, count]; 0 in the rows of the others."""
        if len(self._blocks) == 1 and members != []:
            return self._blocks[0].take(count)[None]
        draws = np.zeros((len(self._blocks), count))
        for member in range(len(self._blocks)) if members is None else members:
            draws[member] = self._blocks[member].take(count)
        return draws

    def __getitem__(self, member: int) -> RandomBlock:
        return self._blocks[member]
