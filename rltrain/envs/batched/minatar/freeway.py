"""MinAtar's Freeway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rltrain.envs.batched.environment import Array
from rltrain.envs.batched.minatar.draws import Draws, numbers
from rltrain.envs.batched.minatar.game import (
    DOWN,
    NOTHING,
    SIDE,
    STICKY_WORDS,
    UP,
    MinAtarGame,
    down,
    fields,
    in_columns,
    within,
)

_CARS = 8  # in rows 1 to 8
_COLUMN = 4  # of the chicken
_WAIT, _STEPS = 3, 2500
# Words in which 8 are found that are below 5 in their last three bits, as 5 in 8 are: all but once in 10^14 times.
_TRIED = 56


@dataclass(frozen=True)
class Freeway(MinAtarGame):
    """A chicken that crosses eight lanes of cars; each crossing draws new cars.

    Rows: the chicken's row, the steps until it may move, the steps that are left; of each car its column, the steps
    until it moves, and its speed: it moves every so many steps, to the left where that is negative.
    """

    batched_from: ClassVar[int] = 48
    minimal_actions: ClassVar[tuple[int, ...]] = (NOTHING, UP, DOWN)
    ahead: ClassVar[int] = STICKY_WORDS + _TRIED + 2 * _CARS + 1

    def begin(self, draws: Draws) -> tuple[Sequence[Any], Any]:
        speed, count = _speeds(np, draws, 0)
        zero = 0 * count
        return (zero + 9, zero + _WAIT, zero + _STEPS, 0 * speed, abs(speed), speed), count

    def act(self, xp: Any, game: Array, action: Array, draws: Draws) -> tuple[Sequence[Array], Array, Array, Any]:
        row, wait, left = game[:3]
        x, timer, speed = game[3:].reshape(3, _CARS, -1)
        dy = xp.where(wait == 0, down(xp, action), 0)
        row, wait = within(xp, row + dy, 0, 9), xp.where(dy != 0, _WAIT, wait)

        crossed = row == 0
        other, count = _speeds(xp, draws, STICKY_WORDS)
        speed, timer = xp.where(crossed, other, speed), xp.where(crossed, abs(other), timer)
        row = xp.where(crossed, 9, row)

        moves = timer == 0
        moved = xp.where(moves, (x + xp.where(speed > 0, 1, -1)) % SIDE, x)
        timer = xp.where(moves, abs(speed), timer - 1)
        lane = numbers(xp, _CARS, game)[:, None] + 1
        hit = (((x == _COLUMN) | (moved == _COLUMN)) & (lane == row)).any(0)
        row = xp.where(hit, 9, row)
        rows = row, wait - 1 * (wait > 0), left - 1, moved, timer, speed
        return rows, 1 * crossed, left < 1, xp.where(crossed, count, STICKY_WORDS)

    def planes(self, xp: Any, game: Array) -> list[Array]:
        x, _, speed = game[3:].reshape(3, _CARS, -1)
        behind, every = (x - xp.where(speed > 0, 1, -1)) % SIDE, abs(speed)
        trails = (in_columns(xp, xp.where(every == steps, behind, -1)) for steps in range(1, 6))
        return [fields(xp, game) == SIDE * game[0] + _COLUMN, in_columns(xp, x), *trails]


def _speeds(xp: Any, draws: Draws, place: int) -> tuple[Array, Array]:
    """`randint(1, 6, 8) * sign(rand(8) - 0.5)` [8, L] from the words at `place` on, and where they end."""
    values = draws.words[place : place + _TRIED] & 7
    found = xp.cumsum(1 * (values < 5), 0)  # [tried, L]
    car = numbers(xp, _CARS, values)[:, None]
    index = (found <= car[:, None]).sum(1)  # [8, L]
    after = place + index[-1] + 1
    left = draws.below(after + 2 * car, 0.5)
    return xp.where(left, -1, 1) * (1 + (draws.words[place + index, draws.lanes] & 7)), after + 2 * _CARS
