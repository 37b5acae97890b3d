"""n-step transitions against a naive implementation, over random episode ends of both kinds."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import DISCRETE

from rltrain.experience.n_step import NStepWindow
from rltrain.types import ObservationSpec, Transition

OBSERVATION = ObservationSpec("box", (1,), "float32")
GAMMA = 0.5  # with small whole rewards every sum is exact
RUNS, CUT, TERMINATED, BOTH = 0, 1, 2, 3


def transition_at(t: int, ends: list[int]) -> Transition:
    """Step t of N environments: obs tells the environment and the step, next_obs is obs + 0.5, never the next obs."""
    envs = np.arange(len(ends))
    obs = (1000.0 * envs + t)[:, None].astype(np.float32)
    reward = ((7 * t + 3 * envs) % 5 - 2).astype(np.float32)
    kinds = np.array(ends)
    terminated, truncated = (kinds & TERMINATED) > 0, (kinds & CUT) > 0
    return Transition(obs, (t + envs) % 3, reward, obs + 0.5, terminated, truncated, np.ones(len(ends), bool))


def naive(steps: list[list[int]], n: int, now: int) -> list[tuple[float, ...]]:
    """All windows that end with step `now`: (obs, action, reward, next_obs, discount), straight from the definition."""
    found = []
    for env in range(len(steps[0])):
        episode_start = max([t + 1 for t in range(now) if steps[t][env] != RUNS], default=0)
        end = steps[now][env]
        for start in range(max(episode_start, now - n + 1), now + 1):
            length = now - start + 1
            if length < n and end == RUNS:
                continue
            window = [transition_at(t, steps[t]) for t in range(start, now + 1)]
            reward = sum(GAMMA**k * float(step.reward[env]) for k, step in enumerate(window))
            discount = 0.0 if end & TERMINATED else GAMMA**length
            first, last = window[0], window[-1]
            row = (first.obs[env, 0], first.action[env], reward, last.next_obs[env, 0], discount)
            found.append(tuple(map(float, row)))
    return sorted(found)


def pushed(window: NStepWindow, transition: Transition) -> list[tuple[float, ...]]:
    rows = []
    for _, (obs, action, reward, next_obs, discount) in window.push(transition):
        assert obs.dtype == next_obs.dtype == reward.dtype == discount.dtype == np.float32
        assert reward.shape == discount.shape == action.shape == (len(obs),)
        columns = (obs[:, 0], action, reward, next_obs[:, 0], discount)
        rows += [tuple(map(float, row)) for row in zip(*columns, strict=True)]
    return sorted(rows)


ends = st.sampled_from([RUNS, RUNS, RUNS, CUT, TERMINATED, BOTH])
scripts = st.integers(1, 3).flatmap(
    lambda num_envs: st.lists(st.lists(ends, min_size=num_envs, max_size=num_envs), min_size=1, max_size=14)
)


@settings(max_examples=300, deadline=None)
@given(steps=scripts, n=st.integers(1, 4), saved_at=st.integers(0, 13))
def test_each_step_completes_exactly_the_windows_that_end_with_it(
    steps: list[list[int]], n: int, saved_at: int
) -> None:
    def make() -> NStepWindow:
        return NStepWindow(n, GAMMA, len(steps[0]), OBSERVATION, DISCRETE)

    window = make()
    for now, kinds in enumerate(steps):
        if now == saved_at:
            state: dict[str, Any] = {name: tensor.clone() for name, tensor in window.state_dict().items()}
            window = make()
            window.load_state_dict(state)
        assert pushed(window, transition_at(now, kinds)) == naive(steps, n, now)


def test_hand_values_of_three_steps() -> None:
    window = NStepWindow(3, 0.5, 1, OBSERVATION, DISCRETE)
    rows = []
    for t, (reward, terminated, truncated) in enumerate([(1, 0, 0), (2, 0, 0), (4, 0, 0), (8, 1, 0), (16, 0, 1)]):
        step = Transition(
            np.full((1, 1), t, np.float32), np.array([t]), np.array([reward], np.float32),
            np.full((1, 1), t + 1, np.float32), np.array([bool(terminated)]), np.array([bool(truncated)]),
            np.ones(1, bool),
        )  # fmt: skip
        rows.append(pushed(window, step))
    assert rows[:2] == [[], []]
    assert rows[2] == [(0, 0, 1 + 1 + 1, 3, 0.125)]
    assert rows[3] == [(1, 1, 2 + 2 + 2, 4, 0.0), (2, 2, 4 + 4, 4, 0.0), (3, 3, 8, 4, 0.0)]
    assert rows[4] == [(4, 4, 16, 5, 0.5)]  # one step, cut: discounted once, and the episode before is forgotten


def test_windows_of_abandoned_episodes_are_dropped() -> None:
    window = NStepWindow(2, GAMMA, 2, OBSERVATION, DISCRETE)
    window.push(transition_at(0, [RUNS, RUNS]))
    window.forget(np.array([True, False]))
    assert [row[0] for row in pushed(window, transition_at(1, [RUNS, RUNS]))] == [1000.0]
    assert [row[0] for row in pushed(window, transition_at(2, [RUNS, RUNS]))] == [1.0, 1001.0]


@pytest.mark.parametrize("n", [1, 3])
def test_a_saved_window_is_a_copy(n: int) -> None:
    window = NStepWindow(n, GAMMA, 1, OBSERVATION, DISCRETE)
    window.push(transition_at(0, [RUNS]))
    state = window.state_dict()
    before = {name: tensor.tolist() for name, tensor in state.items()}
    for t in range(1, 6):
        window.push(transition_at(t, [RUNS]))
    assert {name: tensor.tolist() for name, tensor in state.items()} == before


@pytest.mark.parametrize("n", [1, 3])
def test_idle_environments_give_nothing(n: int) -> None:
    window = NStepWindow(n, GAMMA, 2, OBSERVATION, DISCRETE)
    for t in range(3):
        window.push(transition_at(t, [RUNS, RUNS]))
    for t, kind in enumerate([RUNS, RUNS, TERMINATED], start=3):
        step = replace(transition_at(t, [RUNS, kind]), active=np.array([False, True]))
        found = window.push(step)
        assert len(found) == (n if kind == TERMINATED else 1)
        assert all(envs.tolist() == [1] and len(columns[0]) == 1 for envs, columns in found)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_windows_saved_at_different_moments_continue_together(n: int) -> None:
    alone = [NStepWindow(n, GAMMA, 1, OBSERVATION, DISCRETE) for _ in range(2)]
    together = NStepWindow(n, GAMMA, 2, OBSERVATION, DISCRETE)
    for env, (window, count) in enumerate(zip(alone, (5, 4), strict=True)):
        for t in range(count):
            window.push(transition_at(t, [RUNS]))
        together.load_state_dict(window.state_dict(), slice(env, env + 1))
    for t in range(5, 10):
        steps = [transition_at(t + 20 * env, [RUNS if t < 8 else CUT]) for env in range(2)]
        expected = [row for window, step in zip(alone, steps, strict=True) for row in pushed(window, step)]
        both = Transition(*(np.concatenate([getattr(step, f.name) for step in steps]) for f in fields(Transition)))
        assert pushed(together, both) == sorted(expected)


def test_each_environment_has_its_own_gamma() -> None:
    window = NStepWindow(2, np.array([0.5, 0.25]), 2, OBSERVATION, DISCRETE)
    window.push(transition_at(0, [RUNS, RUNS]))
    ((_, (_, _, reward, _, discount)),) = window.push(transition_at(1, [RUNS, RUNS]))
    rewards = [transition_at(t, [RUNS, RUNS]).reward for t in range(2)]
    assert reward.tolist() == (rewards[0] + np.array([0.5, 0.25]) * rewards[1]).tolist()
    assert discount.tolist() == [0.25, 0.0625]
