from __future__ import annotations

import numpy as np
import pytest

from rltrain.maths.persistence import LONGEST, HeldActions, zeta_quantile


@pytest.mark.parametrize("exponent", [1.2, 2.0, 3.5])
def test_durations_have_the_probabilities_of_a_zeta_distribution(exponent: float) -> None:
    ends = np.cumsum(np.arange(1, LONGEST + 1) ** -exponent)
    wanted = np.concatenate([[0], ends / ends[-1]])  # P(n <= k)
    middles, just_below = (wanted[1:] + wanted[:-1]) / 2, wanted[1:] - 1e-9
    assert (zeta_quantile(middles, exponent) == np.arange(1, LONGEST + 1)).all()
    assert (zeta_quantile(just_below[:5], exponent) == np.arange(1, 6)).all()
    assert zeta_quantile(np.array([0.0, np.nextafter(1, 0)]), exponent).tolist() == [1, LONGEST]


def test_half_of_all_actions_are_held_once_with_the_exponent_of_the_paper() -> None:
    """1 / zeta(2) = 6 / pi^2."""
    uniform = np.random.default_rng(0).random(200_000)
    assert (zeta_quantile(uniform, 2.0) == 1).mean() == pytest.approx(6 / np.pi**2, abs=3e-3)


def naive(explore: np.ndarray, action: np.ndarray, duration: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One environment after the other, step by step."""
    exploring, taken = np.zeros_like(explore), np.zeros_like(action)
    for lane in range(explore.shape[1]):
        left, held = 0, 0
        for step in range(len(explore)):
            if left == 0 and explore[step, lane]:
                left, held = duration[step, lane], action[step, lane]
            if left > 0:
                exploring[step, lane], taken[step, lane] = True, held
                left -= 1
    return exploring, taken


def test_an_action_is_held_until_its_steps_are_over_however_they_are_cut_into_blocks() -> None:
    rng = np.random.default_rng(1)
    explore, action = rng.random((200, 3)) < 0.3, rng.integers(0, 5, (200, 3))
    duration = rng.integers(1, 7, (200, 3))
    wanted = naive(explore, action, duration)
    assert 0.4 < wanted[0].mean() < 0.9
    held, at = HeldActions(3), 0
    for size in [1, 1, 64, 3, 100, 31]:
        now = (array[at : at + size].copy() for array in (explore, action, duration))
        exploring, taken, steps = now
        held.hold(exploring, taken, steps)
        assert (exploring == wanted[0][at : at + size]).all()
        assert (np.where(exploring, taken, 0) == wanted[1][at : at + size]).all()
        held_again = HeldActions(3)
        held_again.load_state_dict(held.state_dict(slice(0, 3)), slice(0, 3), 5)
        held, at = held_again, at + size


@pytest.mark.parametrize("state", [[[1, 0], [5, 0]], [[-1, 0], [0, 0]], [[LONGEST + 1, 0], [0, 0]], [[0, 0], [-1, 0]]])
def test_a_strangers_state_is_refused(state: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="held_actions"):
        HeldActions(2).load_state_dict(state, slice(0, 2), 5)
