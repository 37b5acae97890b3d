"""Returns, normalisation, log-probabilities and entropies against loops, NumPy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rltrain.maths.policy import (
    approx_kl,
    categorical_entropy,
    categorical_log_prob,
    clip_fraction,
    clipped_policy_loss,
    clipped_value_loss,
    gaussian_entropy,
    gaussian_log_prob,
    masked_mean,
    normalize,
    policy_gradient_loss,
    reward_to_go,
    sample_categorical,
    sample_categorical_in_numpy,
    split_gaussian,
)

PER_EPISODE, WHOLE_BATCH = (-1,), (-2, -1)


def episodes_of(lengths: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random values [K, 8], zero behind each length, and the mask."""
    mask = (np.arange(8) < np.array(lengths)[:, None]).astype(np.float64)
    return np.random.default_rng(seed).normal(2.0, 3.0, mask.shape) * mask, mask


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 64), min_size=1, max_size=4),
    gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    seed=st.integers(0, 1000),
)
def test_reward_to_go_equals_the_backward_loop(lengths: list[int], gamma: float, seed: int) -> None:
    steps = 1 << (max(lengths) - 1).bit_length()
    reward = np.zeros((len(lengths), steps))
    expected = np.zeros_like(reward)
    generator = np.random.default_rng(seed)
    for k, length in enumerate(lengths):
        reward[k, :length] = generator.normal(size=length)
        following = 0.0
        for t in reversed(range(length)):
            following = reward[k, t] + gamma * following
            expected[k, t] = following
    found = reward_to_go(torch.from_numpy(reward), torch.tensor(gamma, dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-12)


def test_reward_to_go_refuses_a_length_that_doubling_would_get_wrong() -> None:
    with pytest.raises(ValueError, match="power of two, got 6"):
        reward_to_go(torch.ones(2, 6), torch.tensor(0.9))


@pytest.mark.parametrize("lengths", [[8, 3, 1], [2, 2, 2], [5, 8, 7]])
def test_means_and_deviations_see_no_padding(lengths: list[int]) -> None:
    x, mask = episodes_of(lengths)
    noisy = torch.from_numpy(x + 100.0 * (1.0 - mask))  # what lies in the padding must not matter
    inside = x[mask == 1.0]
    mean = masked_mean(noisy, torch.from_numpy(mask), WHOLE_BATCH)
    assert mean.item() == pytest.approx(inside.mean())
    batch = normalize(noisy, torch.from_numpy(mask), WHOLE_BATCH).numpy()
    np.testing.assert_allclose(batch[mask == 1.0], (inside - inside.mean()) / inside.std(ddof=1), rtol=1e-6)
    assert (batch[mask == 0.0] == 0.0).all()
    each = normalize(noisy, torch.from_numpy(mask), PER_EPISODE).numpy()
    for row, found, length in zip(x, each, lengths, strict=True):
        values = row[:length]
        expected = (values - values.mean()) / values.std(ddof=1) if length > 1 else values
        np.testing.assert_allclose(found[:length], expected, rtol=1e-6)
        assert (found[length:] == 0.0).all()


def test_an_episode_of_one_step_keeps_its_return() -> None:
    x, mask = torch.tensor([[3.5, 0.0]]), torch.tensor([[1.0, 0.0]])
    assert normalize(x, mask, PER_EPISODE).tolist() == [[3.5, 0.0]]
    assert normalize(x, mask, WHOLE_BATCH).tolist() == [[3.5, 0.0]]


@pytest.mark.parametrize("value", [0.1, -200.3, 1e4 / 3.0])
def test_equal_values_normalise_to_zero_whatever_their_mean_was_rounded_to(value: float) -> None:
    x, mask = torch.full((7, 64), value), torch.ones(7, 64)
    mask[:, 51:] = 0.0
    assert normalize(x * mask, mask, WHOLE_BATCH).abs().max() < 0.01


def test_log_probabilities_do_not_underflow() -> None:
    logits = torch.tensor([[0.0, 200.0]], requires_grad=True)
    log_prob = categorical_log_prob(logits, torch.tensor([0]))
    assert log_prob.tolist() == [-200.0]
    log_prob.sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[1.0, -1.0]]
    assert categorical_entropy(logits).item() == 0.0


def test_categorical_against_hand_values() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])) + torch.tensor([[7.0], [-3.0]])
    log_prob = categorical_log_prob(logits, torch.tensor([1, 2]))
    assert log_prob.tolist() == pytest.approx([math.log(0.25), math.log(0.6)], abs=1e-5)
    entropy = [1.5 * math.log(2.0), -(0.4 * math.log(0.2) + 0.6 * math.log(0.6))]
    assert categorical_entropy(logits).tolist() == pytest.approx(entropy, abs=1e-5)


def test_categorical_keeps_leading_axes() -> None:
    logits, action = torch.randn(2, 5, 3), torch.randint(0, 3, (2, 5))
    reference = torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(categorical_log_prob(logits, action), reference.log_prob(action))
    torch.testing.assert_close(categorical_entropy(logits), reference.entropy())


def test_a_uniform_draw_selects_the_action_whose_share_it_falls_in() -> None:
    probabilities = torch.tensor([0.5, 0.0, 0.25, 0.25])
    draws = torch.tensor([0.0, 0.49, 0.5, 0.74, 0.75, 0.99999994, 1.0])  # float64 draws below 1 may round to 1
    found = sample_categorical(torch.log(probabilities).expand(7, 4), draws)
    assert found.tolist() == [0, 0, 2, 2, 3, 3, 3]


@pytest.mark.parametrize("actions", [1, 2, 5, 18])
def test_in_numpy_the_same_actions_are_drawn_bit_for_bit(actions: int) -> None:
    """Draws are put where rounding decides: on the cumulative probabilities themselves."""
    logits = 3 * torch.randn(2_000, actions)
    draws = torch.softmax(logits, -1).cumsum(-1)[:, actions // 2]
    found = sample_categorical_in_numpy(logits.numpy(), draws.numpy())
    assert found.dtype == np.int64 and np.array_equal(found, sample_categorical(logits, draws).numpy())


def test_sampled_actions_have_the_policys_frequencies() -> None:
    logits = torch.tensor([0.3, -1.0, 1.2])
    draws = torch.from_numpy(np.random.default_rng(0).random(20_000).astype(np.float32))
    counts = np.bincount(sample_categorical(logits.expand(20_000, 3), draws).numpy(), minlength=3)
    expected = 20_000 * np.exp(logits.numpy()) / np.exp(logits.numpy()).sum()
    assert ((counts - expected) ** 2 / expected).sum() < 13.8  # chi-square with 2 degrees of freedom, p = 0.001


def two_dimensional_gaussians() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mean, log_std, action = torch.randn(3, 3, 2, generator=generator)
    return mean, log_std, action


def test_gaussian_log_prob_sums_over_action_dimensions() -> None:
    mean, log_std, action = two_dimensional_gaussians()
    found = gaussian_log_prob(mean, log_std, action)
    m, s, a = mean.double().numpy(), np.exp(log_std.double().numpy()), action.double().numpy()
    density = np.prod(np.exp(-0.5 * ((a - m) / s) ** 2) / (s * np.sqrt(2.0 * np.pi)), axis=1)
    assert found.shape == (3,)
    np.testing.assert_allclose(found.numpy(), np.log(density), rtol=1e-5)
    torch.testing.assert_close(found, torch.distributions.Normal(mean, log_std.exp()).log_prob(action).sum(-1))


def test_gaussian_entropy_in_closed_form() -> None:
    _, log_std, _ = two_dimensional_gaussians()
    variance = np.exp(2.0 * log_std.double().numpy())
    expected = 0.5 * np.log(2.0 * np.pi * np.e * variance).sum(axis=1)
    np.testing.assert_allclose(gaussian_entropy(log_std).numpy(), expected, rtol=1e-5)


def test_the_head_is_means_then_log_deviations_in_a_range_that_cannot_overflow() -> None:
    mean, log_std = split_gaussian(torch.tensor([[50.0, -60.0, 70.0, -80.0]]))
    assert mean.tolist() == [[50.0, -60.0]]
    assert log_std.tolist() == [[2.0, -5.0]]


def test_the_advantage_carries_no_gradient() -> None:
    log_prob = torch.tensor([[-0.5, -2.0]], requires_grad=True)
    advantage = torch.tensor([[3.0, -4.0]], requires_grad=True)
    loss = policy_gradient_loss(log_prob, advantage)
    assert loss.tolist() == [[1.5, -8.0]]
    loss.sum().backward()
    assert advantage.grad is None
    assert log_prob.grad is not None
    assert log_prob.grad.tolist() == [[-3.0, 4.0]]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.0),
        (1.5, 2.0, -2.4, 0.0),  # far enough the right way: nothing is gained
        (0.5, 2.0, -1.0, -2.0),  # the wrong way: it comes back
        (0.5, -2.0, 1.6, 0.0),
        (1.5, -2.0, 3.0, 2.0),
    ],
)
def test_the_clipped_loss_and_its_slope(ratio: float, advantage: float, loss: float, slope: float) -> None:
    log_ratio = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    found = clipped_policy_loss(log_ratio, torch.tensor([advantage], dtype=torch.float64), torch.tensor(0.2))
    assert found.item() == pytest.approx(loss)
    (gradient,) = torch.autograd.grad(found.sum(), log_ratio)
    assert gradient.item() == pytest.approx(slope * ratio)  # d/d log rho = rho d/d rho


def test_the_approximate_kl_has_the_mean_of_the_exact_one_and_is_never_negative() -> None:
    old, new = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])
    estimate = approx_kl(new.log() - old.log())
    assert (estimate >= 0).all()
    assert (old * estimate).sum().item() == pytest.approx((old * (old / new).log()).sum().item(), rel=1e-5)


def test_the_share_of_ratios_that_are_clipped() -> None:
    log_ratio = torch.tensor([0.0, 0.15, 0.25, -0.15, -0.25]).log1p()
    assert clip_fraction(log_ratio, torch.tensor(0.2)).tolist() == [0.0, 0.0, 1.0, 0.0, 1.0]


def test_the_clipped_value_loss_is_the_larger_of_the_two() -> None:
    value, returns = torch.tensor([1.5, 1.5, 0.9]), torch.tensor([2.0, 0.0, 1.0])
    found = clipped_value_loss(value, torch.ones(3), returns, 0.2)
    torch.testing.assert_close(found, torch.tensor([0.8**2, 1.5**2, 0.1**2]))
