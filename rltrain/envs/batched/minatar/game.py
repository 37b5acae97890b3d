"""The shared parts of MinAtar's games."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rltrain.envs.batched.environment import Array, SeededStart
from rltrain.envs.batched.minatar.draws import WORDS, Draws, first_words, numbers

NOTHING, LEFT, UP, RIGHT, DOWN, FIRE = range(6)
SIDE = 10  # fields
STICKY_WORDS = 2


@dataclass(frozen=True)
class MinAtarGame(SeededStart):
    """A game with the numbers of rltrain/envs/minatar.py, its draws too.

    The state is int32: where the next word of the generator lies, the last action, the game's own rows, the generator's
    words. Fields are numbered row by row, 0 to 99.
    """

    game: str = ""
    use_minimal_action_set: bool = False
    sticky_action_prob: float = 0.1
    difficulty_ramping: bool = True

    minimal_actions: ClassVar[tuple[int, ...]] = tuple(range(6))
    batched_from: ClassVar[int]  # environments; fewer are stepped sooner one by one
    ahead: ClassVar[int] = STICKY_WORDS  # words that a start or a step may draw

    def begin(self, draws: Draws) -> tuple[Sequence[Any], Any]:
        """The game's first rows, and how many words were drawn, as `act` returns them."""
        raise NotImplementedError

    def act(self, xp: Any, game: Array, action: Array, draws: Draws) -> tuple[Sequence[Array], Array, Array, Any]:
        """game [rows, L] and action [L], of all six -> its next rows ([L] or [n, L] each), reward [L], terminated [L],
        and how many words were drawn (an int or [L]), the sticky action's with them."""
        raise NotImplementedError

    def planes(self, xp: Any, game: Array) -> list[Array]:
        """game [rows, L] -> bool [100, L] for each kind of object."""
        raise NotImplementedError

    def from_seeds(self, seeds: np.ndarray) -> np.ndarray:
        words, zero = first_words(seeds), np.zeros(len(seeds), np.int32)
        draws = Draws(np, words, zero, self.ahead)
        rows, count = self.begin(draws)
        cursor, write = draws.take(count)
        state: np.ndarray = _state(np, (cursor, zero, *rows, words))
        write(state[-WORDS:])
        return state

    def step(self, xp: Any, state: Array, action: Array) -> tuple[Array, Array, Array]:
        if self.use_minimal_action_set:
            for index in reversed(range(len(self.minimal_actions))):  # what is put in is never looked at again
                action = xp.where(action == index, self.minimal_actions[index], action)
        draws = Draws(xp, state[-WORDS:], state[0], self.ahead)
        action = xp.where(draws.below(0, self.sticky_action_prob), state[1], action)
        game, reward, terminated, count = self.act(xp, state[2:-WORDS], action, draws)
        cursor, write = draws.take(count)
        after = _state(xp, (cursor, action, *game, state[-WORDS:]))
        write(after[-WORDS:])
        return after, reward, terminated

    def observe(self, xp: Any, state: Array) -> Array:
        planes = self.planes(xp, state[2:-WORDS])
        if xp is not np:  # compiled code writes bytes in a tenth of the time that it takes for bools
            planes = [xp.where(plane, 1, 0).to(xp.uint8) for plane in planes]
        stacked = xp.stack(planes, 1).reshape(SIDE, SIDE, len(planes), -1)
        return stacked if xp is np else stacked.view(xp.bool)


def across(xp: Any, action: Array) -> Array:
    """dx [L] of an action."""
    return xp.where(action == RIGHT, 1, xp.where(action == LEFT, -1, 0))


def down(xp: Any, action: Array) -> Array:
    """dy [L] of an action."""
    return xp.where(action == DOWN, 1, xp.where(action == UP, -1, 0))


def within(xp: Any, x: Array, low: int, high: int) -> Array:
    """`clip`, which takes NumPy ten times as long for a few numbers."""
    return np.minimum(np.maximum(x, low), high) if xp is np else x.clamp(low, high)


def fields(xp: Any, like: Array) -> Array:
    """[100, 1], to be compared with where something is."""
    return numbers(xp, SIDE * SIDE, like)[:, None]


def in_columns(xp: Any, columns: Array) -> Array:
    """The fields, bool [100, L], of what is in these columns [8, L] of rows 1 to 8; negative ones are none."""
    edge = 0 * columns[:1] - 1
    rows = xp.concatenate((edge, columns, edge))[:, None]  # [10, 1, L]
    return (rows == numbers(xp, SIDE, columns)[:, None]).reshape(SIDE * SIDE, -1)


def _state(xp: Any, parts: Sequence[Array]) -> Array:
    rows = [part if part.ndim > 1 else part[None] for part in parts]
    if xp is np:
        return np.concatenate(rows, dtype=np.int32, casting="unsafe")
    return xp.cat([row.int() for row in rows])
