"""Distributional losses against NumPy, written as the papers write them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rltrain.maths.distributional import project, quantile_huber_loss, select_action_distributions

ATOMS = np.linspace(-2.0, 4.0, 7)


def project_by_hand(reward: float, discount: float, next_p: np.ndarray) -> np.ndarray:
    """Bellemare et al. 2017, algorithm 1: each atom's mass goes to its neighbours."""
    target, step = np.zeros(len(ATOMS)), ATOMS[1] - ATOMS[0]
    for p, z in zip(next_p, ATOMS, strict=True):
        b = (np.clip(reward + discount * z, ATOMS[0], ATOMS[-1]) - ATOMS[0]) / step
        low, high = int(np.floor(b)), int(np.ceil(b))
        if low == high:  # on an atom: the paper's line would lose its mass
            target[low] += p
        else:
            target[low] += p * (high - b)
            target[high] += p * (b - low)
    return target


def test_the_projection_is_the_paper_s() -> None:
    generator = np.random.default_rng(0)
    reward = np.concatenate([generator.normal(size=20) * 3, [0.0, 0.0, 1.0]])
    discount = np.concatenate([generator.random(20), [1.0, 0.0, 0.0]])  # exactly on atoms, and terminated
    next_p = generator.dirichlet(np.ones(len(ATOMS)), len(reward))
    found = project(*(torch.from_numpy(x) for x in (reward, discount, next_p, ATOMS)))
    expected = [project_by_hand(*row) for row in zip(reward, discount, next_p, strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(found.sum(-1).numpy(), 1.0)


@pytest.mark.parametrize("drawn", [False, True])
def test_the_quantile_loss_is_the_paper_s(drawn: bool) -> None:
    """Dabney et al. 2018, algorithm 1, and IQN's equation 3. Other numbers of quantiles than of target values: no axis
    can be swapped."""
    generator = np.random.default_rng(0)
    quantiles, target = generator.normal(size=(6, 5)) * 2, generator.normal(size=(6, 3)) * 2
    tau = generator.random((6, 5)) if drawn else np.tile((np.arange(5) + 0.5) / 5, (6, 1))
    expected = np.zeros(6)
    for row in range(6):
        for i in range(5):
            for y in target[row]:
                u = y - quantiles[row, i]
                huber = 0.5 * u**2 if abs(u) <= 1 else abs(u) - 0.5
                expected[row] += abs(tau[row, i] - (u < 0)) * huber / 3
    given = [torch.from_numpy(x) for x in ((quantiles, target, tau) if drawn else (quantiles, target))]
    found = quantile_huber_loss(*given)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_descending_the_quantile_loss_finds_the_quantiles() -> None:
    samples = torch.from_numpy(np.random.default_rng(0).exponential(size=4000) * 20)  # so wide that kappa is small
    quantiles = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    for _ in range(400):
        (slope,) = torch.autograd.grad(quantile_huber_loss(quantiles, samples[None]).sum(), [quantiles])
        quantiles.data -= 2.0 * slope
    expected = torch.quantile(samples, torch.tensor([0.125, 0.375, 0.625, 0.875], dtype=torch.float64))
    torch.testing.assert_close(quantiles[0].detach(), expected, rtol=0.03, atol=0.3)


def test_the_distribution_of_the_action_is_taken() -> None:
    of_actions = torch.arange(24).view(2, 3, 4)
    found = select_action_distributions(of_actions, torch.tensor([2, 0]))
    assert found.tolist() == [of_actions[0, 2].tolist(), of_actions[1, 0].tolist()]
