"""MinAtar's Seaquest."""

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
    RIGHT,
    SIDE,
    STICKY_WORDS,
    MinAtarGame,
    across,
    down,
    fields,
    within,
)
from rltrain.envs.wrappers.computed import cast

_OXYGEN, _SPAWN, _DIVER_SPAWN, _MOVE, _SHOT, _COOL_DOWN = 200, 20, 30, 5, 10, 5
_HELD = 6  # divers, at most
_SCALARS = 12
# The newest is in slot 0. A bullet flies for 9 steps, and 5 lie between two; a diver swims for 60, and 30 lie between
# two; an enemy stays for 30 where they come in every step, and for 60 while they come in every 15th.
_BULLETS, _DIVERS, _ENEMIES = 2, 2, 30
_GONE = -9  # the column of what is not there
_ENEMY_WORDS, _DIVER_WORDS = 5, 3


@dataclass(frozen=True)
class Seaquest(MinAtarGame):
    """A submarine that shoots fish and submarines, picks up divers, and brings them to the surface for oxygen.

    Rows: oxygen, divers on board, x, y, whether it looks right, the steps between two enemies, until the next one,
    until the next diver, between two moves of an enemy, how often they became faster, the steps until it may shoot,
    whether it has surfaced; slots of bullets (x, y, right), divers (x, y, right, steps until they move), enemies (the
    same, steps until they shoot, whether they are submarines); 100 fields each with their bullets to the right and to
    the left.
    """

    batched_from: ClassVar[int] = 160
    ahead: ClassVar[int] = STICKY_WORDS + _ENEMY_WORDS + _DIVER_WORDS

    def begin(self, draws: Draws) -> tuple[Sequence[Any], int]:
        zero = 0 * draws.lanes
        scalars = (_OXYGEN, 0, 5, 0, 0, _SPAWN, _SPAWN, _DIVER_SPAWN, _MOVE, 0, 0, 1)
        slots = [np.full((kinds * of, len(zero)), _GONE) for kinds, of in ((3, _BULLETS), (4, _DIVERS), (6, _ENEMIES))]
        return (*(zero + scalar for scalar in scalars), *slots, np.zeros((2 * SIDE * SIDE, len(zero)), int)), 0

    def act(self, xp: Any, game: Array, action: Array, draws: Draws) -> tuple[Sequence[Array], Array, Array, Any]:
        oxygen, held, x, y, right, spawn_speed, spawn_timer, diver_timer, speed, ramps, wait, surfaced = game[:_SCALARS]
        bullets, divers, enemies, theirs = _slots(game)
        rest = enemies[:, (most := _in_use(xp, enemies)) :]
        enemies = enemies[:, :most]
        spawns, dives = spawn_timer == 0, diver_timer == 0
        enemies = _spawned(xp, enemies, spawns, speed, draws)
        place = xp.where(spawns, STICKY_WORDS + _ENEMY_WORDS, STICKY_WORDS)
        to_right, row = draws.below(place, 1 / 2), 1 + (draws.words[place + 2, draws.lanes] & 7)
        divers = _pushed(xp, divers, dives, (xp.where(to_right, 0, 9), row, to_right, _MOVE))
        spawn_timer = xp.where(spawns, spawn_speed, spawn_timer)
        diver_timer = xp.where(dives, _DIVER_SPAWN, diver_timer)

        fires = (action == FIRE) & (wait == 0)
        bullets, wait = _pushed(xp, bullets, fires, (x, y, right)), xp.where(fires, _COOL_DOWN, wait)
        right = xp.where(action == RIGHT, 1, xp.where(action == LEFT, 0, right))
        x, y = within(xp, x + across(xp, action), 0, 9), within(xp, y + down(xp, action), 0, 8)

        bullets, enemies, shot = _fly(xp, bullets, enemies)
        divers, held = _swim(xp, divers, held, x, y)
        bullets, enemies, hit, fired, met = _sail(xp, bullets, enemies, speed, x, y)
        theirs, struck = _fly_back(xp, theirs, fired, SIDE * y + x)

        below = y > 0
        rises = ~below & (surfaced == 0)
        dead = met | struck | (oxygen <= 0) | rises & (held == 0)
        rises = rises & (held != 0)
        full = rises & (held == _HELD)
        reward = shot + hit + xp.where(full, oxygen * 10 // _OXYGEN, 0)
        held = xp.where(full, 0, held) - 1 * rises
        oxygen = xp.where(rises, _OXYGEN, oxygen - 1 * below)
        surfaced = ~below & (rises | (surfaced != 0))
        ramped = rises & ((spawn_speed > 1) | (speed > 2)) & self.difficulty_ramping
        speed = speed - 1 * (ramped & (speed > 2) & (ramps % 2 == 1))
        spawn_speed = spawn_speed - 1 * (ramped & (spawn_speed > 1))
        spawn_timer, diver_timer, wait = (timer - 1 * (timer > 0) for timer in (spawn_timer, diver_timer, wait))
        rows = (
            oxygen,
            held,
            x,
            y,
            right,
            spawn_speed,
            spawn_timer,
            diver_timer,
            speed,
            ramps + 1 * ramped,
            wait,
            surfaced,
        )
        count = STICKY_WORDS + _ENEMY_WORDS * spawns + _DIVER_WORDS * dives
        kept = (
            row for of in zip(enemies, rest, strict=True) for row in (xp.where(enemies[0] < 0, _GONE, of[0]), of[1])
        )
        return (*rows, *bullets, *divers, *kept, *theirs), reward, dead, count

    def planes(self, xp: Any, game: Array) -> list[Array]:
        oxygen, held, x, y, right = game[:5]
        bullets, divers, enemies, theirs = _slots(game)
        enemies = enemies[:, : _in_use(xp, enemies)]
        field, column = fields(xp, game), fields(xp, game) % SIDE
        place, behind = SIDE * y + x, xp.where(right != 0, -1, 1)
        trails = [[at + xp.where(to_right != 0, -1, 1), row] for at, row, to_right, *_ in (divers, enemies)]
        # A trail beyond an edge is none; that of what is gone lies far beyond.
        of_fish = xp.where(enemies[5] == 0, enemies[0], _GONE)
        of_subs = xp.where(enemies[5] != 0, enemies[0], _GONE)
        return [
            field == place,
            field == place + behind,
            _marked(xp, bullets[0], bullets[1]),
            _marked(xp, trails[0][0], trails[0][1]) | _marked(xp, trails[1][0], trails[1][1]),
            theirs[0] | theirs[1],
            _marked(xp, of_fish, enemies[1]),
            _marked(xp, of_subs, enemies[1]),
            (field >= 90) & (column < within(xp, oxygen, 0, _OXYGEN) * 10 // _OXYGEN),
            (field >= 90) & (column >= 9 - held) & (column < 9),
            _marked(xp, divers[0], divers[1]),
        ]


Slots = Sequence[Array]
"""What is known of bullets, divers or enemies, [slots, L] each, in the order of `Seaquest`'s rows."""


def _slots(game: Array) -> tuple[Slots, Slots, Array, Array]:
    """Bullets, divers, enemies, and the fields of the enemies' bullets, bool [2, 100, L]."""
    parts, first = [], _SCALARS
    for kinds, count in ((3, _BULLETS), (4, _DIVERS), (6, _ENEMIES), (2, SIDE * SIDE)):
        parts.append(game[first : first + kinds * count].reshape(kinds, count, -1))
        first += kinds * count
    return parts[0], parts[1], parts[2], parts[3] != 0


def _in_use(xp: Any, enemies: Array) -> int:
    """How many slots are to be looked at, one free one among them; of arrays as few as possible."""
    if xp is not np:
        return _ENEMIES
    used = (enemies[0] >= 0).any(1).nonzero()[0]
    return min(_ENEMIES, 2 + int(used.max(initial=-1)))


def _pushed(xp: Any, slots: Slots, when: Array, new: Sequence[Any]) -> Slots:
    """A new thing in slot 0 where `when` [L], all others a slot further."""
    return [xp.concatenate((xp.where(when, value, of[:1]), xp.where(when, of[:-1], of[1:])))
            for of, value in zip(slots, new, strict=True)]  # fmt: skip


def _spawned(xp: Any, enemies: Slots, spawns: Array, speed: Array, draws: Draws) -> Slots:
    """None comes into a row where another swims in the opposite direction."""
    first = STICKY_WORDS
    to_right, is_sub = draws.below(first, 1 / 2), draws.below(first + 2, 1 / 3)
    row = 1 + (draws.words[first + 4] & 7)
    opposite = ((enemies[0] >= 0) & (enemies[1] == row) & ((enemies[2] != 0) != to_right)).any(0)
    new = xp.where(to_right, 0, 9), row, to_right, speed, _SHOT, is_sub
    return _pushed(xp, enemies, spawns & ~opposite, new)


def _ahead(xp: Any, x: Array, right: Array) -> Array:
    """The column that follows, `_GONE` beyond an edge."""
    x = x + xp.where(right != 0, 1, -1)
    return xp.where((x < 0) | (x > 9), _GONE, x)


def _fly(xp: Any, bullets: Slots, enemies: Slots) -> tuple[Slots, Slots, Array]:
    """Bullets move; each hits the oldest fish where it is, or the oldest submarine. Returns how many did."""
    x, y, _, _, _, is_sub = enemies
    columns, hits, slot = [*_ahead(xp, bullets[0], bullets[2])], 0, numbers(xp, len(x), x)[:, None]
    for k, row in enumerate(bullets[1]):
        at = (x == columns[k]) & (y == row) & (x >= 0)
        fish = at & (is_sub == 0)
        at = xp.where(fish.any(0), fish, at)
        x = xp.where(slot == xp.amax(xp.where(at, slot, -1), 0), _GONE, x)
        columns[k], hits = xp.where(at.any(0), _GONE, columns[k]), hits + 1 * at.any(0)
    return (xp.stack(columns), *bullets[1:]), (x, *enemies[1:]), hits


def _swim(xp: Any, divers: Slots, held: Array, x: Array, y: Array) -> tuple[Slots, Array]:
    """Divers move, and are picked up before or after, the newest first."""
    columns, timers = [], []
    for column, row, right, timer in zip(*divers, strict=True):
        met = (column == x) & (row == y) & (held < _HELD)
        moves = ~met & (timer == 0)
        moved = xp.where(moves, _ahead(xp, column, right), column)
        met = met | moves & (moved == x) & (row == y) & (held < _HELD)
        held = held + 1 * met
        columns.append(xp.where(met, _GONE, moved))
        timers.append(xp.where(moves, _MOVE, timer - 1))
    return (xp.stack(columns), divers[1], divers[2], xp.stack(timers)), held


def _sail(
    xp: Any, bullets: Slots, enemies: Slots, speed: Array, player_x: Array, player_y: Array
) -> tuple[Slots, Slots, Array, Sequence[Array], Array]:
    """Enemies move and shoot; the newest that moves onto a bullet is hit, submarines before fish.

    Returns bullets and enemies, how many were hit, the fields of new bullets to the right and to the left, and whether
    an enemy met the player."""
    x, y, right, timer, shot, is_sub = enemies
    is_sub, is_there, moves = is_sub != 0, x >= 0, (x >= 0) & (timer == 0)
    met = (x == player_x) & (y == player_y)
    x = xp.where(moves, _ahead(xp, x, right), x)
    meets = moves & (x == player_x) & (y == player_y)
    shoots = is_there & is_sub & (shot == 0)
    fired = [_marked(xp, xp.where(shoots & way, x, _GONE), y) for way in (right != 0, right == 0)]
    timer, shot = xp.where(moves, speed, timer - 1), xp.where(shoots, _SHOT, shot - 1)
    columns, hits, slot = [*bullets[0]], 0, numbers(xp, len(x), x)[:, None]
    for kind in (is_sub, ~is_sub):
        for k, row in enumerate(bullets[1]):
            at = kind & moves & ~meets & (x == columns[k]) & (y == row) & (x >= 0)
            hit = at.any(0)
            x = xp.where(slot == xp.amin(xp.where(at, slot, _ENEMIES), 0), _GONE, x)
            columns[k], hits = xp.where(hit, _GONE, columns[k]), hits + 1 * hit
    bullets = xp.stack(columns), *bullets[1:]
    return bullets, (x, y, right, timer, shot, is_sub), hits, fired, (met | meets).any(0)


def _fly_back(xp: Any, theirs: Array, fired: Sequence[Array], place: Array) -> tuple[list[Array], Array]:
    """The enemies' bullets move; whether one was or is where the player is."""
    to_right, to_left = (of | new for of, new in zip(theirs, fired, strict=True))
    here = numbers(xp, SIDE * SIDE, place)[:, None] == place
    met = ((to_right | to_left) & here).any(0)
    grids = [of.reshape(SIDE, SIDE, -1) for of in (to_right, to_left)]
    edge = grids[0][:, :1] & False
    moved = xp.concatenate((edge, grids[0][:, :-1]), 1), xp.concatenate((grids[1][:, 1:], edge), 1)
    to_right, to_left = (of.reshape(SIDE * SIDE, -1) for of in moved)
    return [to_right, to_left], met | ((to_right | to_left) & here).any(0)


def _marked(xp: Any, x: Array, y: Array) -> Array:
    """bool [100, L], the fields of x, y [slots, L]; a column beyond an edge has none."""
    place = xp.where((x >= 0) & (x <= 9), SIDE * y + x, SIDE * SIDE)
    marks = cast(xp, numbers(xp, SIDE * SIDE + 1, x)[:, None] * 0 + 0 * x[:1], "uint8")
    marks[place, numbers(xp, x.shape[-1], x)] = 1
    return marks[:-1] != 0
