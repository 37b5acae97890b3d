"""Targets and losses of value learning against hand values."""

from __future__ import annotations

import math

import pytest
import torch

from rltrain.maths.value import (
    TD_LOSSES,
    double_q_next_value,
    munchausen_bonus,
    q_learning_next_value,
    select_action_values,
    soft_next_value,
    td_loss,
    td_target,
)

ONLINE = torch.tensor([[1.0, 5.0, 2.0], [0.0, -1.0, -2.0]])
TARGET = torch.tensor([[9.0, 3.0, 4.0], [-7.0, -5.0, -6.0]])


def test_the_values_of_the_actions_taken() -> None:
    assert select_action_values(ONLINE, torch.tensor([2, 1])).tolist() == [2.0, -1.0]


def test_q_learning_takes_the_targets_own_maximum() -> None:
    assert q_learning_next_value(TARGET).tolist() == [9.0, -5.0]


def test_double_q_learning_values_the_online_choice_with_the_target() -> None:
    assert double_q_next_value(ONLINE, TARGET).tolist() == [3.0, -7.0]


def test_the_target_bootstraps_with_the_discount_alone() -> None:
    reward, discount, value = (
        torch.tensor([1.0, 1.0, -2.0]),
        torch.tensor([0.5, 0.0, 0.25]),
        torch.tensor([10.0, 10.0, 4.0]),
    )
    assert td_target(reward, discount, value).tolist() == [6.0, 1.0, -1.0]


def test_the_soft_policy_is_exact_where_values_are_large_and_close() -> None:
    """exp(Q / 0.03) would overflow, and the logarithm of the softmax be -inf."""
    q = torch.tensor([[1e4, 1e4 - 0.0625, -1e4], [-1e4, -1e4, -1e4]])
    bonus = [munchausen_bonus(q, torch.tensor([a, a]), 0.03125, -1.0) for a in range(3)]
    likelier = 0.03125 * math.log1p(math.exp(-2.0))
    alike = 0.03125 * math.log(3.0)
    torch.testing.assert_close(bonus[0], torch.tensor([-likelier, -alike]))
    torch.testing.assert_close(bonus[1], torch.tensor([-likelier - 0.0625, -alike]))
    torch.testing.assert_close(bonus[2], torch.tensor([-1.0, -alike]))
    # The mean of q - tau log pi is tau log sum exp(q / tau).
    torch.testing.assert_close(soft_next_value(q - 1e4, 0.03125)[:1], torch.tensor([likelier]))
    assert soft_next_value(q, 0.03125).isfinite().all()


def test_mse_is_the_squared_error_and_huber_has_threshold_one() -> None:
    prediction, target = torch.tensor([0.5, 2.0, -3.0, 1.0]), torch.zeros(4)
    assert td_loss("mse", prediction, target).tolist() == [0.25, 4.0, 9.0, 1.0]
    assert td_loss("huber", prediction, target).tolist() == [0.125, 1.5, 2.5, 0.5]


@pytest.mark.parametrize("name", list(TD_LOSSES))
@pytest.mark.parametrize(("prediction", "target"), [((4, 1), (4,)), ((4,), (4, 1)), ((1,), (4,)), ((4,), (5,))])
def test_shapes_that_would_broadcast_are_refused(name: str, prediction: tuple[int], target: tuple[int]) -> None:
    with pytest.raises(ValueError, match="equal shapes"):
        td_loss(name, torch.zeros(prediction), torch.zeros(target))


@pytest.mark.parametrize("name", list(TD_LOSSES))
def test_the_target_carries_no_gradient(name: str) -> None:
    prediction = torch.tensor([0.3, -2.0], requires_grad=True)
    target = torch.tensor([0.1, 3.0], requires_grad=True)
    td_loss(name, prediction, target).sum().backward()
    assert target.grad is None
    assert prediction.grad is not None
    expected = {"mse": [0.4, -10.0], "huber": [0.2, -1.0]}[name]
    assert prediction.grad.tolist() == pytest.approx(expected)
