"""MinAtar's Breakout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rltrain.envs.batched.environment import Array
from rltrain.envs.batched.minatar.draws import Draws
from rltrain.envs.batched.minatar.game import (
    LEFT,
    NOTHING,
    RIGHT,
    SIDE,
    STICKY_WORDS,
    MinAtarGame,
    across,
    fields,
    within,
)

_SCALARS = 7


@dataclass(frozen=True)
class Breakout(MinAtarGame):
    """A paddle on the bottom, a ball that flies diagonally, three rows of bricks.

    Rows: paddle, ball x and y, its direction (0 up left, 1 up right, 2 down right, 3 down left), whether it struck a
    brick in the last step, its last x and y; 100 fields, whether a brick is there.
    """

    batched_from: ClassVar[int] = 24
    minimal_actions: ClassVar[tuple[int, ...]] = (NOTHING, LEFT, RIGHT)

    def begin(self, draws: Draws) -> tuple[Sequence[Any], int]:
        right = draws.words[0] & 1
        x, y = 9 * right, 0 * right + 3
        return (y + 1, x, y, 2 + right, 0 * x, x, y, _wall(fields(np, x)) | (x < 0)), 1

    def act(self, xp: Any, game: Array, action: Array, draws: Draws) -> tuple[Sequence[Array], Array, Array, Any]:
        paddle, last_x, last_y, direction, struck = game[:5]
        paddle = within(xp, paddle + across(xp, action), 0, 9)
        x = last_x + xp.where((direction == 1) | (direction == 2), 1, -1)
        y = last_y + xp.where(direction >= 2, 1, -1)

        direction = xp.where((x < 0) | (x > 9), direction ^ 1, direction)
        direction = xp.where(y < 0, 3 - direction, direction)
        x, y = within(xp, x, 0, 9), within(xp, y, 0, 9)

        bricks, field, place = game[_SCALARS:] != 0, fields(xp, game), SIDE * y + x
        hit = game[_SCALARS + place, draws.lanes] != 0
        broken = hit & (struck == 0)
        bricks = bricks & ~(broken & (field == place))
        low = ~hit & (y == 9)
        bricks = bricks | _wall(field) & low & ~bricks.any(0)
        above = low & (last_x == paddle)
        beside = low & ~above & (x == paddle)
        direction = xp.where(broken | above, 3 - direction, xp.where(beside, direction ^ 2, direction))
        y = xp.where(broken | above | beside, last_y, y)
        rows = paddle, x, y, direction, hit, last_x, last_y, bricks
        return rows, 1 * broken, low & ~above & ~beside, STICKY_WORDS

    def planes(self, xp: Any, game: Array) -> list[Array]:
        paddle, x, y, _, _, last_x, last_y = game[:_SCALARS]
        field = fields(xp, game)
        places = 90 + paddle, SIDE * y + x, SIDE * last_y + last_x
        return [*(field == place for place in places), game[_SCALARS:] != 0]


def _wall(field: Array) -> Array:
    return (field >= SIDE) & (field < 4 * SIDE)
