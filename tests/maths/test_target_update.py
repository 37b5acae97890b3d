"""When the target network follows, by how much, in each unit; what an agent does with it is in test_dqn.py."""

from __future__ import annotations

import pytest
import torch

from rltrain.config.schema import HardUpdateConfig, SoftUpdateConfig
from rltrain.maths.target_update import TargetUpdate, move_targets_, polyak


def test_k_soft_updates_in_closed_form() -> None:
    params, target = torch.full((3,), 2.0, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for k in range(1, 31):
        target = polyak(target, params, torch.tensor(0.1, dtype=torch.float64))
        torch.testing.assert_close(target, torch.full_like(target, 2.0 * (1.0 - 0.9**k)), rtol=1e-12, atol=0.0)


def test_a_hard_update_copies_exactly_and_into_the_same_memory() -> None:
    params, target = torch.randn(1000), torch.randn(1000) * torch.logspace(-4, 4, 1000)
    memory = target.data_ptr()
    assert torch.equal(polyak(target, params, torch.tensor(1.0)), params)
    move_targets_(target, params, [TargetUpdate(HardUpdateConfig("hard", 1, "env_steps"))], [1])
    assert torch.equal(target, params)
    assert target.data_ptr() == memory != params.data_ptr()


@pytest.mark.parametrize("period", [1, 2, 5])
def test_gradient_steps_are_due_at_each_multiple_of_the_period(period: int) -> None:
    update = TargetUpdate(HardUpdateConfig("hard", period, "gradient_steps"))
    target = torch.zeros(1)
    expected = 0.0
    for count in range(1, 21):
        move_targets_(target, torch.tensor([float(count)]), [update], [update.due_at_gradient_step(count)])
        expected = float(count) if count % period == 0 else expected
        assert target.item() == expected
        move_targets_(
            target, torch.tensor([-1.0]), [update], [update.due_between((0, 1000), (0, 1000))]
        )  # not its unit
        assert target.item() == expected


@pytest.mark.parametrize("period", [1, 3, 10])
@pytest.mark.parametrize("num_envs", [1, 4])
def test_env_steps_are_due_once_a_multiple_is_reached(period: int, num_envs: int) -> None:
    update = TargetUpdate(HardUpdateConfig("hard", period, "env_steps"))
    target = torch.zeros(1)
    expected = 0.0
    for after in range(num_envs, 81, num_envs):
        before = after - num_envs
        move_targets_(target, torch.tensor([float(after)]), [update], [update.due_between((before, after), (0, 0))])
        if any(step % period == 0 for step in range(before + 1, after + 1)):
            expected = float(after)
        assert target.item() == expected
        move_targets_(target, torch.tensor([-1.0]), [update], [update.due_at_gradient_step(period)])  # not its unit
        assert target.item() == expected


@pytest.mark.parametrize("period", [1, 3, 10])
def test_episodes_are_due_at_the_end_of_episodes_0_and_each_multiple(period: int) -> None:
    update = TargetUpdate(HardUpdateConfig("hard", period, "episodes"))
    target = torch.zeros(1)
    expected, finished = 0.0, 0
    for step, ends in enumerate([0, 1, 0, 1, 1, 2, 0, 3, 1, 4, 1, 1, 0, 2, 4], start=1):
        ended = range(finished, finished + ends)  # episodes by their number from 0
        move_targets_(
            target,
            torch.tensor([float(step)]),
            [update],
            [update.due_between((step - 1, step), (finished, finished + ends))],
        )
        finished += ends
        if any(episode % period == 0 for episode in ended):
            expected = float(step)
        assert target.item() == expected


@pytest.mark.parametrize(("unit", "counts"), [("env_steps", ((0, 8), (0, 0))), ("episodes", ((0, 0), (0, 7)))])
def test_soft_updates_that_fall_into_one_vector_step_are_all_made(
    unit: str, counts: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    """Eight steps, or the ends of episodes 0, 2, 4 and 6, at a period of 2: four updates."""
    update = TargetUpdate(SoftUpdateConfig("soft", 0.5, 2, unit))  # type: ignore[arg-type]
    target = torch.zeros(1)
    move_targets_(target, torch.ones(1), [update], [update.due_between(*counts)])
    assert target.item() == 1.0 - 0.5**4


def test_members_follow_each_by_its_own_tau_and_only_when_due() -> None:
    updates = [
        TargetUpdate(HardUpdateConfig("hard", 1, "env_steps")),
        TargetUpdate(SoftUpdateConfig("soft", 0.25, 1, "env_steps")),
        TargetUpdate(SoftUpdateConfig("soft", 0.5, 1, "env_steps")),
    ]
    params, target = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    before = target.clone()
    move_targets_(target, params, updates, [1, 2, 0])
    assert torch.equal(target[0], params[0])
    torch.testing.assert_close(target[1], params[1] + 0.75**2 * (before[1] - params[1]), rtol=1e-12, atol=0.0)
    assert torch.equal(target[2], before[2])
