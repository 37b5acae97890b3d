"""MinAtar's Space Invaders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rltrain.envs.batched.environment import Array
from rltrain.envs.batched.minatar.draws import Draws, numbers
from rltrain.envs.batched.minatar.game import (
    FIRE,
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
_COOL_DOWN, _MOVE, _SHOT = 5, 12, 10  # steps


@dataclass(frozen=True)
class SpaceInvaders(MinAtarGame):
    """A cannon below aliens that come down, shoot, and move faster the fewer they are.

    Rows: the cannon's x, the steps until it may shoot, the aliens' direction (-1 or 1), the steps between two moves of
    all of them, until the next move, until the next shot, and how often they became faster; 100 fields each with
    aliens, with the cannon's bullets, with the aliens' bullets.
    """

    batched_from: ClassVar[int] = 16
    minimal_actions: ClassVar[tuple[int, ...]] = (NOTHING, LEFT, RIGHT, FIRE)

    def begin(self, draws: Draws) -> tuple[Sequence[Any], int]:
        zero = 0 * draws.lanes
        aliens = _wave(fields(np, zero)) | (zero < 0)
        scalars = (zero + scalar for scalar in (5, 0, -1, _MOVE, _MOVE, _SHOT, 0))
        return (*scalars, aliens, aliens & False, aliens & False), 0

    def act(self, xp: Any, game: Array, action: Array, draws: Draws) -> tuple[Sequence[Array], Array, Array, Any]:
        x, shot_timer, direction, interval, move_timer, enemy_timer, ramps = game[:_SCALARS]
        aliens, ours, theirs = (game[_SCALARS:] != 0).reshape(3, SIDE * SIDE, -1)
        field = fields(xp, game)
        fires = (action == FIRE) & (shot_timer == 0)
        shot_timer = xp.where(fires, _COOL_DOWN, shot_timer)
        ours = ours | fires & (field == 90 + x)
        x = within(xp, x + across(xp, action), 0, 9)

        none = aliens[:SIDE] & False
        ours, theirs = xp.concatenate((ours[SIDE:], none)), xp.concatenate((none, theirs[:-SIDE]))
        dead = _at(xp, theirs | aliens, x)
        moves = move_timer == 0
        move_timer = xp.where(moves, xp.minimum(aliens.sum(0), interval), move_timer) - 1
        aliens, turns, landed = _advanced(xp, aliens, direction, moves)
        direction = xp.where(turns, -direction, direction)
        dead = dead | landed | moves & _at(xp, aliens, x)
        shoots = enemy_timer == 0
        enemy_timer = xp.where(shoots, _SHOT, enemy_timer) - 1
        theirs = theirs | shoots & (field == _nearest(xp, aliens, x, draws.lanes))

        killed = aliens & ours
        aliens, ours = aliens & ~killed, ours & ~killed
        cleared = ~aliens.any(0)
        faster = cleared & (interval > 6) & self.difficulty_ramping
        aliens = aliens | cleared & _wave(field)
        timers = shot_timer - 1 * (shot_timer > 0), direction, interval - 1 * faster, move_timer, enemy_timer
        return (x, *timers, ramps + 1 * faster, aliens, ours, theirs), killed.sum(0), dead, STICKY_WORDS

    def planes(self, xp: Any, game: Array) -> list[Array]:
        aliens, ours, theirs = (game[_SCALARS:] != 0).reshape(3, SIDE * SIDE, -1)
        to_left = game[2] < 0
        return [fields(xp, game) == 90 + game[0], aliens, aliens & to_left, aliens & ~to_left, ours, theirs]


def _wave(field: Array) -> Array:
    return (field < 40) & (field % SIDE >= 2) & (field % SIDE < 8)


def _at(xp: Any, grid: Array, x: Array) -> Array:
    """The field [L] of the cannon, of bool [100, L]."""
    return (grid[90:] & (numbers(xp, SIDE, grid)[:, None] == x)).any(0)


def _advanced(xp: Any, aliens: Array, direction: Array, moves: Array) -> tuple[Array, Array, Array]:
    """The aliens [100, L] after a move where it is due [L]; where they turned, one row down; where they landed."""
    grid = aliens.reshape(SIDE, SIDE, -1)
    turns = moves & xp.where(direction < 0, grid[:, 0], grid[:, 9]).any(0)
    aside = xp.where(direction < 0, xp.roll(grid, -1, 1), xp.roll(grid, 1, 1))
    grid = xp.where(turns, xp.roll(grid, 1, 0), xp.where(moves, aside, grid))
    return grid.reshape(aliens.shape), turns, turns & aliens[90:].any(0)


def _nearest(xp: Any, aliens: Array, x: Array, lanes: Array) -> Array:
    """The field [L] of the lowest alien in the column nearest to x, the left one of two."""
    grid = aliens.reshape(SIDE, SIDE, -1)
    line = numbers(xp, SIDE, x)[:, None]
    distance = 2 * abs(line - x) + 1 * (line > x)
    column = xp.where(grid.any(0), distance, 99).argmin(0)
    lowest = xp.amax(xp.where(grid, line[:, None], -1), 0)  # [10, L]
    return SIDE * lowest[column, lanes] + column
