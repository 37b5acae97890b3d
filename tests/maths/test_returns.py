"""Advantages and sums of trajectories that hold several episodes, against loops over time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_rollouts import advantages, lambda_returns

from rltrain.maths.returns import discounted_sum, explained_variance, generalized_advantage, lambda_return


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(1, 40),
    num_envs=st.integers(1, 3),
    gamma=st.sampled_from([0.0, 0.9, 1.0]),
    lam=st.sampled_from([0.0, 0.95, 1.0]),
    seed=st.integers(0, 1000),
)
def test_advantages_are_summed_within_each_episode(
    steps: int, num_envs: int, gamma: float, lam: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    reward, value, next_value = generator.normal(size=(3, steps, num_envs))
    terminated, cut = generator.random((2, steps, num_envs)) < 0.2
    expected = advantages(reward, value, next_value, terminated, cut, gamma, lam)
    tensors = [torch.from_numpy(x) for x in (reward, gamma * ~terminated, value, next_value, terminated | cut)]
    found = generalized_advantage(*tensors, torch.tensor(gamma * lam, dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(1, 40),
    num_envs=st.integers(1, 3),
    gamma=st.sampled_from([0.0, 0.9, 1.0]),
    lam=st.sampled_from([0.0, 0.65, 1.0]),
    seed=st.integers(0, 1000),
)
def test_lambda_returns_are_computed_backwards_within_each_episode(
    steps: int, num_envs: int, gamma: float, lam: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    reward, next_value = generator.normal(size=(2, steps, num_envs))
    terminated, cut = generator.random((2, steps, num_envs)) < 0.2
    expected = lambda_returns(reward, next_value, terminated, cut, gamma, lam)
    tensors = [torch.from_numpy(x) for x in (reward, gamma * ~terminated, next_value, terminated | cut)]
    found = lambda_return(*tensors, torch.tensor(lam, dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-12)


def test_lambda_returns_are_generalized_advantages_above_the_values() -> None:
    reward, value, last = torch.randn(7, 2), torch.randn(7, 2), torch.randn(1, 2)
    next_value, no_end = torch.cat([value[1:], last]), torch.zeros(7, 2, dtype=torch.bool)
    discount, lam = torch.full((7, 2), 0.9), torch.tensor(0.7)
    advantage = generalized_advantage(reward, discount, value, next_value, no_end, 0.9 * lam)
    torch.testing.assert_close(lambda_return(reward, discount, next_value, no_end, lam), advantage + value)


def test_a_lambda_of_one_gives_the_return_and_of_zero_one_step() -> None:
    reward = torch.tensor([[1.0], [2.0], [4.0]])
    value, next_value = torch.tensor([[10.0], [20.0], [30.0]]), torch.tensor([[20.0], [30.0], [40.0]])
    discount, ended = torch.full((3, 1), 0.5), torch.zeros(3, 1, dtype=torch.bool)
    arguments = reward, discount, value, next_value, ended
    returns = generalized_advantage(*arguments, torch.tensor(0.5)) + value
    assert returns.squeeze(1).tolist() == [1 + 0.5 * 2 + 0.25 * 4 + 0.125 * 40, 2 + 0.5 * 4 + 0.25 * 40, 4 + 0.5 * 40]
    one_step = generalized_advantage(*arguments, torch.tensor(0.0))
    assert torch.equal(one_step, reward + 0.5 * next_value - value)


def test_a_discount_of_zero_ends_a_sum() -> None:
    x, discount = torch.tensor([[1.0], [1.0], [1.0], [1.0]]), torch.tensor([[1.0], [0.0], [1.0], [1.0]])
    assert discounted_sum(x, discount).squeeze(1).tolist() == [2.0, 1.0, 2.0, 1.0]


def test_explained_variance() -> None:
    target = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert explained_variance(target, target).item() == 1.0
    assert explained_variance(target + 5.0, target).item() == pytest.approx(1.0, abs=1e-6)
    assert explained_variance(torch.zeros(2, 2), target).item() == 0.0
    assert explained_variance(-target, target).item() == pytest.approx(-3.0)
    assert explained_variance(target, torch.ones(2, 2)).item() == 0.0, "nothing to explain"
