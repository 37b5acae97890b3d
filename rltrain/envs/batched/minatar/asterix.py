"""MinAtar's Asterix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rltrain.envs.batched.environment import Array
from rltrain.envs.batched.minatar.draws import Draws, numbers
from rltrain.envs.batched.minatar.game import (
    DOWN,
    LEFT,
    NOTHING,
    RIGHT,
    SIDE,
    STICKY_WORDS,
    UP,
    MinAtarGame,
    across,
    down,
    fields,
    in_columns,
    within,
)

_SCALARS = 8
_SLOTS = 8  # in rows 1 to 8
_FREE = -9  # the column of no entity
_RAMP, _SPAWN, _MOVE = 100, 10, 5  # steps
# Words in which a slot is found, where at least 5 in 8 are accepted: all but once in 10^13 times.
_TRIED = 32
_SPAWN_WORDS = 4  # before the slot's


@dataclass(frozen=True)
class Asterix(MinAtarGame):
    """A player among enemies and gold that come from the sides, faster and faster.

    Rows: the player's x and y, the steps between two entities, until the next one, between two moves of theirs, until
    the next one, until they become faster, and how often they did; of the entity in each of the rows 1 to 8 its column,
    whether it goes to the right, and whether it is gold.
    """

    batched_from: ClassVar[int] = 96
    minimal_actions: ClassVar[tuple[int, ...]] = (NOTHING, LEFT, UP, RIGHT, DOWN)
    ahead: ClassVar[int] = STICKY_WORDS + _SPAWN_WORDS + _TRIED + 1

    def begin(self, draws: Draws) -> tuple[Sequence[Any], int]:
        zero = 0 * draws.lanes
        free = np.full((_SLOTS, len(zero)), _FREE)
        scalars = (5, 5, _SPAWN, _SPAWN, _MOVE, _MOVE, _RAMP, 0)
        return (*(zero + scalar for scalar in scalars), free, 0 * free, 0 * free), 0

    def act(self, xp: Any, game: Array, action: Array, draws: Draws) -> tuple[Sequence[Array], Array, Array, Any]:
        player_x, player_y, spawn_speed, spawn_timer, move_speed, move_timer, ramp_timer, ramps = game[:_SCALARS]
        x, right, gold = game[_SCALARS:].reshape(3, _SLOTS, -1)
        right, gold = right != 0, gold != 0

        spawns = spawn_timer == 0
        slot, count = _slot(xp, x < 0, draws)
        slot = slot & spawns
        to_right, is_gold = draws.below(2, 1 / 2), draws.below(4, 1 / 3)
        x = xp.where(slot, xp.where(to_right, 0, 9), x)
        right, gold = xp.where(slot, to_right, right), xp.where(slot, is_gold, gold)
        spawn_timer = xp.where(spawns, spawn_speed, spawn_timer) - 1

        player_x = within(xp, player_x + across(xp, action), 0, 9)
        player_y = within(xp, player_y + down(xp, action), 1, 8)
        here = numbers(xp, _SLOTS, game)[:, None] + 1 == player_y
        met = here & (x == player_x)
        moves = move_timer == 0
        moved = xp.where(met & gold, _FREE, x) + xp.where(right, 1, -1)
        moved = xp.where((moved < 0) | (moved > 9), _FREE, moved)
        x = xp.where(moves, moved, xp.where(met & gold, _FREE, x))
        met_then = here & (x == player_x) & moves
        x = xp.where(met_then & gold, _FREE, x)
        move_timer = xp.where(moves, move_speed, move_timer) - 1

        rows = player_x, player_y, spawn_speed, spawn_timer, move_speed, move_timer, ramp_timer, ramps
        reward = (met & gold).sum(0) + (met_then & gold).sum(0)
        terminated = ((met | met_then) & ~gold).any(0)
        count = xp.where(spawns, count, STICKY_WORDS)
        return (*self._ramped(xp, rows), x, right, gold), reward, terminated, count

    def _ramped(self, xp: Any, rows: Sequence[Array]) -> Sequence[Array]:
        """The first rows, a step nearer to more speed, or with it."""
        *player, spawn_speed, spawn_timer, move_speed, move_timer, ramp_timer, ramps = rows
        if not self.difficulty_ramping:
            return rows
        ramps_on = (spawn_speed > 1) | (move_speed > 1)
        ramped = ramps_on & (ramp_timer < 0)
        ramp_timer = xp.where(ramped, _RAMP, ramp_timer - 1 * ramps_on)
        move_speed = move_speed - 1 * (ramped & (move_speed > 1) & (ramps % 2 == 1))
        spawn_speed = spawn_speed - 1 * (ramped & (spawn_speed > 1))
        return *player, spawn_speed, spawn_timer, move_speed, move_timer, ramp_timer, ramps + 1 * ramped

    def planes(self, xp: Any, game: Array) -> list[Array]:
        x, right, gold = game[_SCALARS:].reshape(3, _SLOTS, -1)
        behind = xp.where(x < 0, _FREE, x - xp.where(right != 0, 1, -1))
        columns = xp.where(gold == 0, x, _FREE), behind, xp.where(gold != 0, x, _FREE)
        of_entities = (in_columns(xp, of) for of in columns)
        return [fields(xp, game) == SIDE * game[1] + game[0], *of_entities]


def _slot(xp: Any, free: Array, draws: Draws) -> tuple[Array, Array]:
    """One of the slots that are free [8, L] as `randint` chooses it, bool [8, L]; and how many words are drawn then."""
    rank = xp.cumsum(1 * free, 0)
    last = rank[-1] - 1
    mask = xp.where(last > 3, 7, xp.where(last > 1, 3, last))
    first = STICKY_WORDS + _SPAWN_WORDS
    accepted = draws.words[first : first + _TRIED] & mask <= last
    refused = xp.amin(xp.where(accepted, numbers(xp, _TRIED, free)[:, None], _TRIED), 0)
    chosen = draws.words[first + refused, draws.lanes] & mask
    return free & (rank - 1 == chosen), first + xp.where(last > 0, refused + 1, 0)
