"""IQN against NumPy, written as Dabney et al. 2018 (ICML) write it: its network, and the loss of an update."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from numpy_reference import NumpyMLP
from small_runs import CPU, DISCRETE, VECTOR, ScriptedEnvs, dqn_config, drive, make_agent, network_of, run_config

from rltrain.agents.iqn import IQN
from rltrain.config.schema import IQNConfig, NetworkConfig, QNetworkConfig
from rltrain.engine.algorithm import Build, State
from rltrain.experience import Batch
from rltrain.maths.optimizers import eager_gradient
from rltrain.seeding import make_generator

N, N_TARGET, K, COSINES, SIZE = 4, 3, 5, 6, 7
PSI, REST = NumpyMLP(3, 5), NumpyMLP(5, 4, 3)
Network = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def config(**changes: Any) -> Any:
    shared = {field.name: getattr(dqn_config(), field.name) for field in fields(QNetworkConfig)}
    own = {"name": "iqn", "quantiles": N, "target_quantiles": N_TARGET, "acting_quantiles": K, "cosines": COSINES}
    network = NetworkConfig("mlp", (5, 4), "tanh", 1.0)
    return run_config(IQNConfig(**{**shared, "max_grad_norm": None, **own, **changes}), network=network, seed=3)


def parts(named: dict[str, torch.Tensor]) -> Network:
    """Parameters of psi, of the layers after it, and of the embedding."""
    flat = {name: tensor.numpy().ravel() for name, tensor in named.items()}
    of_network = [array for name, array in flat.items() if name.startswith("network.")]
    return (
        np.concatenate(of_network[:2]),
        np.concatenate(of_network[2:]),
        np.concatenate([flat["embedding.weight"], flat["embedding.bias"]]),
    )


def quantiles(network: Network, obs: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """Equation 4: obs [B, 3], tau [B, n] -> [B, n, A]."""
    psi, rest, embedding = network
    features = np.tanh(PSI.forward(psi, obs))
    found = np.empty((*tau.shape, 3))
    weight, bias = embedding[:-5].reshape(5, COSINES), embedding[-5:]
    for row, column in np.ndindex(*tau.shape):
        phi = np.zeros(5)
        for j in range(5):
            phi[j] = max(
                0.0, sum(np.cos(np.pi * i * tau[row, column]) * weight[j, i] for i in range(COSINES)) + bias[j]
            )
        found[row, column] = REST.forward(rest, (features[row] * phi)[None])[0]
    return found


def midpoints(rows: int) -> np.ndarray:
    return np.tile((np.arange(K) + 0.5) / K, (rows, 1))


def loss_by_hand(own: Network, target: Network, batch: Any, tau: np.ndarray, next_tau: np.ndarray, double: bool) -> Any:
    """Equations 2 and 3, of each sample."""
    obs, action, reward, next_obs, discount = batch
    found, of_next = quantiles(own, obs, tau), quantiles(target, next_obs, next_tau)
    best = quantiles(own if double else target, next_obs, midpoints(len(obs))).mean(1).argmax(1)
    loss = np.zeros(len(obs))
    for row in range(len(obs)):
        for i in range(tau.shape[1]):
            for j in range(next_tau.shape[1]):
                delta = reward[row] + discount[row] * of_next[row, j, best[row]] - found[row, i, action[row]]
                huber = 0.5 * delta**2 if abs(delta) <= 1 else abs(delta) - 0.5
                loss[row] += abs(tau[row, i] - (delta < 0)) * huber / next_tau.shape[1]
    return loss


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("double", [False, True])
def test_the_loss_of_an_update_is_the_paper_s(double: bool) -> None:
    iqn, generator = IQN(Build(config(double=double), VECTOR, DISCRETE, CPU)), np.random.default_rng(0)
    network = iqn.networks["q_network"]
    target = network.params + 0.3 * torch.randn(len(network.params))
    state = State({"q_network": network.params, "target_network": target}, iqn.init_optimizer())
    obs, next_obs = generator.normal(size=(2, SIZE, 3))
    discount = 0.9 * generator.integers(0, 2, SIZE)
    batch = obs, generator.integers(0, 3, SIZE), 2 * generator.normal(size=SIZE), next_obs, discount
    fractions = generator.random((SIZE, N + N_TARGET))
    knobs = {"lr": torch.tensor(1e-3), "fractions": torch.from_numpy(fractions)}
    _, metrics, _ = iqn.learn(state, Batch(*map(torch.from_numpy, batch)), knobs, eager_gradient)
    own, of_target = (parts(network.state_dict(params)) for params in (network.params, target))
    expected = loss_by_hand(own, of_target, batch, fractions[:, :N], fractions[:, N:], double)
    assert metrics["train/td_loss"].item() == pytest.approx(expected.mean(), rel=1e-9)
    chosen = quantiles(own, obs, fractions[:, :N])[np.arange(SIZE), :, batch[1]]
    assert metrics["train/q_value"].item() == pytest.approx(chosen.mean(), rel=1e-9)
    output = network(torch.from_numpy(obs))
    q_values = quantiles(own, obs, midpoints(SIZE)).mean(1)
    np.testing.assert_allclose(iqn.q_values(torch, output).numpy(), q_values, rtol=1e-9)
    assert iqn.greedy(output).tolist() == q_values.argmax(1).tolist()


def test_each_update_draws_probabilities_of_its_own() -> None:
    agent: Any = make_agent(config(learning_starts=15))
    stream, uniform = make_generator(3, "fractions"), make_generator(3, "replay").random(8 * 50)
    network, target = network_of(agent), None
    updates = 0
    for step, before, metrics in watched(agent, ScriptedEnvs(1), 25):
        target = before if step % 7 == 1 else target
        if metrics and target is not None:
            rows = (uniform[8 * updates : 8 * updates + 8] * step).astype(int)
            fractions = stream.random(8 * (N + N_TARGET)).reshape(8, -1)
            batch = [column.numpy()[rows] for column in agent.replay.memory.arrays]
            expected = loss_by_hand(before, target, batch, fractions[:, :N], fractions[:, N:], True)
            assert float(metrics["train/td_loss"]) == pytest.approx(expected.mean(), rel=1e-4)
            updates += 1
    assert updates == 10 and network


def watched(agent: Any, envs: ScriptedEnvs, steps: int) -> Iterator[tuple[int, Network, Any]]:
    """The number of each vector step from 1, the network before its update, the update's metrics."""
    before = parts(agent.networks["q_network"].state_dict())
    for step, metrics in enumerate(drive(agent, envs, steps), start=1):
        yield step, before, metrics
        before = parts(agent.networks["q_network"].state_dict())
