"""The picture of a table: which cell shows which state, and where its arrow points."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from halves import often
from matplotlib.figure import Figure
from small_runs import env_config

from rltrain.envs.grid_world import GridWorld, grid_world
from rltrain.report.q_values import plot_q_values, q_values

ENVS = ["FrozenLake-v1", "FrozenLake8x8-v1", "CliffWalking-v1", "Taxi-v4"]


def grid_of(id: str) -> GridWorld:
    grid = grid_world(env_config(id))
    assert grid is not None
    return grid


@pytest.mark.parametrize("id", ENVS)
def test_an_action_leads_where_the_environment_says(id: str) -> None:
    """From every cell: one step in the direction of the action, or nowhere."""
    model = gymnasium.make(id, **({"is_slippery": False} if "Frozen" in id else {})).unwrapped.P  # type: ignore[attr-defined]
    grid, moved = grid_of(id), set()
    for _, cells in grid.cells:
        assert cells.shape == grid.marks.shape
        place = {int(state): np.array(cell) for cell, state in np.ndenumerate(cells)}
        for state, (row, column) in place.items():
            for action, direction in enumerate(grid.actions):
                successor = int(model[state][action][0][1])
                if isinstance(direction, str) or successor not in place:
                    continue
                step = tuple(place[successor] - (row, column))
                if step != (0, 0) and not (id.startswith("Cliff") and successor == 36):
                    assert step == (direction[1], direction[0])
                    moved.add(action)
    assert moved == {action for action, direction in enumerate(grid.actions) if not isinstance(direction, str)}


def test_every_state_that_can_be_is_in_the_picture_once() -> None:
    for id, states in zip(ENVS, (16, 64, 48, 400), strict=True):
        shown = np.concatenate([cells.reshape(-1) for _, cells in grid_of(id).cells])
        assert len(shown) == len(set(shown.tolist())) == states
    lake = gymnasium.make("FrozenLake-v1").unwrapped.desc.astype(str)  # type: ignore[attr-defined]
    marks = grid_of("FrozenLake-v1").marks
    assert ((marks == lake) | ((lake == "F") & (marks == ""))).all()


def test_another_environment_is_no_grid() -> None:
    assert grid_world(env_config("CartPole-v1")) is None


def arrows(figure: Figure, axes: int = 0) -> dict[tuple[int, int], tuple[int, int]]:
    """(row, column) -> (right, down)."""
    found = {}
    for text in figure.axes[axes].texts:
        if getattr(text, "arrow_patch", None) is not None:
            head, tail = np.array(text.xy), np.array(text.xyann)  # type: ignore[attr-defined]
            middle = (head + tail) / 2
            found[round(middle[1]), round(middle[0])] = tuple(np.sign(np.round(head - tail, 3)).astype(int).tolist())
    return found


def test_an_arrow_per_cell_points_along_the_greedy_action() -> None:
    grid, table, visits = grid_of("FrozenLake-v1"), np.zeros((16, 4)), np.zeros((16, 4), np.int64)
    for state, action in ((0, 2), (4, 1), (14, 3), (9, 0)):
        table[state, action], visits[state, action] = 0.5 + state / 100, 3
    figure = q_values(table, visits, grid, "a run")
    assert arrows(figure) == {(0, 0): (1, 0), (1, 0): (0, 1), (3, 2): (0, -1), (2, 1): (-1, 0)}
    written = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"0.50", "0.54", "0.64", "0.59", "H", "G", "S"} <= written


@pytest.mark.parametrize("id", often(["FrozenLake-v1", "CliffWalking-v1", "Taxi-v4"], ["FrozenLake-v1"]))
@pytest.mark.parametrize("tried", [0, 7])
def test_it_is_written_whatever_was_tried(id: str, tried: int, tmp_path: Path) -> None:
    space = gymnasium.make(id).unwrapped
    shape = int(space.observation_space.n), int(space.action_space.n)  # type: ignore[attr-defined]
    path = plot_q_values(tmp_path, np.full(shape, -3.0), np.full(shape, tried), grid_of(id), "a run")
    assert path == tmp_path / "q_values.png" and path.read_bytes()[1:4] == b"PNG"
