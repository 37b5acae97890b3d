"""C51 against NumPy: the loss of Bellemare et al. 2017, algorithm 1, and the priorities of Hessel et al. 2018."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import CPU, DISCRETE, VECTOR, dqn_config, run_config

from rltrain.agents.c51 import C51
from rltrain.config.schema import C51Config, NetworkConfig, QNetworkConfig
from rltrain.engine.algorithm import Build
from rltrain.experience import Batch

ATOMS, SIZE, LOW, HIGH = 6, 9, -2.0, 3.0


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def made(double: bool) -> C51:
    shared = {field.name: getattr(dqn_config(), field.name) for field in fields(QNetworkConfig)}
    config: Any = C51Config(**{**shared, "name": "c51", "double": double, "atoms": ATOMS, "v_min": LOW, "v_max": HIGH})
    return C51(
        Build(run_config(config, network=NetworkConfig("mlp", (5,), "tanh", 1.0), seed=3), VECTOR, DISCRETE, CPU)
    )


def probabilities(c51: C51, params: torch.Tensor, obs: np.ndarray) -> np.ndarray:
    """[B, A, Z]."""
    logits = c51.apply(params, torch.from_numpy(obs)).numpy().reshape(SIZE, 3, ATOMS)
    found: np.ndarray = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return found


def target_of(reward: float, discount: float, next_p: np.ndarray) -> np.ndarray:
    """Algorithm 1: each atom's probability goes to the two atoms beside where it moves."""
    step, found = (HIGH - LOW) / (ATOMS - 1), np.zeros(ATOMS)
    for j in range(ATOMS):
        b = (min(max(reward + discount * (LOW + j * step), LOW), HIGH) - LOW) / step
        lower, upper = int(np.floor(b)), int(np.ceil(b))
        found[lower] += next_p[j] * (upper - b if upper > lower else 1.0)
        found[upper] += next_p[j] * (b - lower)
    return found


@pytest.mark.parametrize("double", [False, True])
def test_the_loss_is_the_cross_entropy_and_priorities_follow_the_divergence(double: bool) -> None:
    c51, generator = made(double), np.random.default_rng(0)
    own = c51.networks["q_network"].params
    old = own + 0.3 * torch.randn(len(own))
    obs, next_obs = generator.normal(size=(2, SIZE, 3))
    action, reward = generator.integers(0, 3, SIZE), generator.normal(size=SIZE)
    discount = 0.9 * generator.integers(0, 2, SIZE)
    batch = Batch(*map(torch.from_numpy, (obs, action, reward, next_obs, discount)))
    found = c51.losses(own, old, batch)

    p, of_next = probabilities(c51, own, obs), probabilities(c51, old, next_obs)
    chooser = probabilities(c51, own, next_obs) if double else of_next
    best = (chooser * np.linspace(LOW, HIGH, ATOMS)).sum(-1).argmax(-1)
    for row in range(SIZE):
        target, q = target_of(reward[row], discount[row], of_next[row, best[row]]), p[row, action[row]]
        assert found.loss[row].item() == pytest.approx(-(target * np.log(q)).sum())
        divergence = sum(m * np.log(m / x) for m, x in zip(target, q, strict=True) if m > 0)
        assert found.error[row].item() == pytest.approx(divergence)
        assert found.q_value[row].item() == pytest.approx((q * np.linspace(LOW, HIGH, ATOMS)).sum())
    assert not found.error.requires_grad


def test_what_is_right_has_no_priority_however_uncertain_it_is() -> None:
    c51 = made(double=False)
    params, obs = c51.networks["q_network"].params, torch.zeros(SIZE, 3)
    flat = torch.zeros_like(params)  # every return as likely as another
    still = torch.zeros(SIZE), torch.ones(SIZE)
    found = c51.losses(flat, flat, Batch(obs, torch.zeros(SIZE, dtype=torch.int64), still[0], obs, still[1]))
    torch.testing.assert_close(found.error, torch.zeros(SIZE))
    torch.testing.assert_close(found.loss, torch.full((SIZE,), float(np.log(ATOMS))))
