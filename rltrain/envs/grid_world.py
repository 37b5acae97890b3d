"""Which states of a tabular environment are cells of a grid, and which of its actions lead where: for pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rltrain.config.schema import EnvConfig
from rltrain.envs.make import find_environment

Direction = tuple[int, int]
"""(right, down), each -1, 0 or 1."""
LEFT, DOWN, RIGHT, UP = (-1, 0), (0, 1), (1, 0), (0, -1)


@dataclass(frozen=True)
class GridWorld:
    """An environment whose states are the cells of one grid, or of one per situation."""

    cells: tuple[tuple[str, np.ndarray], ...]
    """Per situation its title and the state of every cell, int [rows, columns]."""
    marks: np.ndarray
    """The letter in each cell, or nothing, [rows, columns]."""
    actions: tuple[Direction | str, ...]
    """Where each action leads, or a letter for one that does not move."""
    legend: str
    """The meanings of the letters."""
    columns: int = 1
    """Situations side by side in a picture."""


def grid_world(config: EnvConfig) -> GridWorld | None:
    """The grid of FrozenLake, CliffWalking or Taxi; None of any other environment."""
    env = find_environment(config)()
    try:
        describe = _GRIDS.get(type(env.unwrapped).__name__)
        return None if describe is None else describe(env.unwrapped)
    finally:
        env.close()


def _frozen_lake(env: Any) -> GridWorld:
    marks = env.desc.astype(str)
    return GridWorld(
        (("", _numbered(marks.shape)),),
        np.where(marks == "F", "", marks),
        (LEFT, DOWN, RIGHT, UP),
        "S start, G goal, H hole",
    )


def _cliff_walking(env: Any) -> GridWorld:
    cells = _numbered(env.shape)
    marks = np.where(cells == env.start_state_index, "S", np.where(cells == cells.max(), "G", ""))
    # The cliff has no attribute of its own: its states are those that nothing leads to.
    marks[-1, 1:-1] = "C"
    return GridWorld((("", cells),), marks, (UP, RIGHT, DOWN, LEFT), "S start, G goal, C cliff")


def _taxi(env: Any) -> GridWorld:
    names = ("R", "G", "Y", "B")
    marks = np.full((5, 5), "", dtype="<U1")
    for name, place in zip(names, env.locs, strict=True):
        marks[place] = name
    cells = [
        (
            f"{'in the taxi' if passenger == 4 else 'waits at ' + names[passenger]}, to {names[goal]}",
            np.array([[env.encode(row, column, passenger, goal) for column in range(5)] for row in range(5)]),
        )
        for passenger in range(5)
        for goal in range(4)
        if passenger != goal
    ]
    return GridWorld(tuple(cells), marks, (DOWN, UP, RIGHT, LEFT, "P", "D"), "P pick up, D drop off", columns=4)


def _numbered(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(int(np.prod(shape))).reshape(shape)


_GRIDS: dict[str, Callable[[Any], GridWorld]] = {
    "FrozenLakeEnv": _frozen_lake,
    "CliffWalkingEnv": _cliff_walking,
    "TaxiEnv": _taxi,
}
