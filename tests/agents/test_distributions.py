"""How a head's numbers become actions and log-probabilities."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from rltrain.agents.distributions import DISTRIBUTIONS, Distribution
from rltrain.types import ActionSpec

CATEGORICAL = DISTRIBUTIONS["discrete"](ActionSpec("discrete", (), n=3))
GAUSSIAN = DISTRIBUTIONS["box"](ActionSpec("box", (2, 2)))
UNLIKE = DISTRIBUTIONS["multi_discrete"](ActionSpec("multi_discrete", (3,), sizes=(2, 4, 3)))
ALIKE = DISTRIBUTIONS["multi_discrete"](ActionSpec("multi_discrete", (2, 1), sizes=(3, 3)))


def test_what_each_asks_of_the_network_and_of_the_random_stream() -> None:
    assert (CATEGORICAL.outputs, CATEGORICAL.noise, CATEGORICAL.noise_size) == (3, "uniform", 1)
    assert (GAUSSIAN.outputs, GAUSSIAN.noise, GAUSSIAN.noise_size) == (8, "normal", 4)
    assert (UNLIKE.outputs, UNLIKE.noise, UNLIKE.noise_size) == (9, "uniform", 3)


def test_a_categorical_action_is_an_index() -> None:
    output = torch.log(torch.tensor([[0.2, 0.5, 0.3]])).expand(3, 3)
    assert CATEGORICAL.sample(output, torch.tensor([[0.1], [0.6], [0.71]])).tolist() == [0, 1, 2]
    assert CATEGORICAL.mode(output).tolist() == [1, 1, 1]
    assert CATEGORICAL.log_prob(output[:1], torch.tensor([2])).tolist() == pytest.approx([math.log(0.3)])


def test_a_gaussian_action_is_mean_plus_deviation_times_noise_in_the_actions_shape() -> None:
    mean, log_std = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.log(torch.tensor([[1.0, 0.5, 2.0, 0.1]]))
    output = torch.cat([mean, log_std], -1)
    action = GAUSSIAN.sample(output, torch.tensor([[1.0, -2.0, 0.5, 10.0]]))
    torch.testing.assert_close(action, torch.tensor([[[2.0, 1.0], [4.0, 5.0]]]))
    assert GAUSSIAN.mode(output).tolist() == [[[1.0, 2.0], [3.0, 4.0]]]
    reference = torch.distributions.Normal(mean, log_std.exp())
    torch.testing.assert_close(GAUSSIAN.log_prob(output, action), reference.log_prob(action.reshape(1, 4)).sum(-1))
    torch.testing.assert_close(GAUSSIAN.entropy(output), reference.entropy().sum(-1))


@pytest.mark.parametrize(("several", "sizes"), [(UNLIKE, (2, 4, 3)), (ALIKE, (3, 3))])
def test_several_numbers_are_as_one_of_all_their_combinations(several: Distribution, sizes: tuple[int, ...]) -> None:
    """The probabilities of all combinations, as products of softmaxes that NumPy computes."""
    output = torch.randn(1, sum(sizes), generator=torch.Generator().manual_seed(0))
    parts = np.split(output.double().numpy()[0], np.cumsum(sizes)[:-1])
    each = [np.exp(part) / np.exp(part).sum() for part in parts]
    combinations = list(itertools.product(*map(range, sizes)))
    expected = np.array(
        [np.prod([p[k] for p, k in zip(each, combination, strict=True)]) for combination in combinations]
    )
    shape = several.mode(output).shape[1:]
    actions = torch.tensor(combinations).reshape(-1, *shape)
    found = several.log_prob(output.expand(len(actions), -1), actions).exp().double().numpy()
    assert found == pytest.approx(expected, rel=1e-5) and found.sum() == pytest.approx(1.0, rel=1e-5)
    assert several.entropy(output).item() == pytest.approx(-(expected * np.log(expected)).sum(), rel=1e-5)
    assert several.mode(output).reshape(-1).tolist() == list(combinations[int(expected.argmax())])


@pytest.mark.parametrize(("several", "sizes"), [(UNLIKE, (2, 4, 3)), (ALIKE, (3, 3))])
def test_several_numbers_are_drawn_each_by_its_own_draw(several: Distribution, sizes: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    output, noise = torch.randn(500, sum(sizes), generator=generator), torch.rand(500, len(sizes), generator=generator)
    drawn = several.sample(output, noise).reshape(500, -1)
    for number, (part, size) in enumerate(zip(output.split(sizes, -1), sizes, strict=True)):
        alone = DISTRIBUTIONS["discrete"](ActionSpec("discrete", (), n=size))
        assert torch.equal(drawn[:, number], alone.sample(part, noise[:, number : number + 1]))
    in_numpy = several.sample_in_numpy(output.numpy(), noise.numpy())
    assert np.array_equal(in_numpy, several.sample(output, noise).numpy()) and in_numpy.dtype == np.int64


def test_the_log_probability_is_of_the_action_as_drawn_however_far_outside_the_bounds() -> None:
    """The density of 5 under a standard Gaussian in each of four dimensions, not of what bounds of 1 make of it."""
    expected = 4.0 * (-12.5 - 0.5 * math.log(2.0 * math.pi))
    assert GAUSSIAN.log_prob(torch.zeros(1, 8), torch.full((1, 2, 2), 5.0)).item() == pytest.approx(expected)


def test_rollouts_keep_their_two_leading_axes() -> None:
    assert GAUSSIAN.log_prob(torch.zeros(5, 7, 8), torch.zeros(5, 7, 2, 2)).shape == (5, 7)
    assert UNLIKE.log_prob(torch.zeros(5, 7, 9), torch.zeros(5, 7, 3, dtype=torch.int64)).shape == (5, 7)
    assert ALIKE.log_prob(torch.zeros(5, 7, 6), torch.zeros(5, 7, 2, 1, dtype=torch.int64)).shape == (5, 7)
    assert CATEGORICAL.log_prob(torch.zeros(5, 7, 3), torch.zeros(5, 7, dtype=torch.int64)).shape == (5, 7)
