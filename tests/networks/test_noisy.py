"""Noisy networks against NumPy, written as Fortunato et al. 2018 write them, and where their noise comes from."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy_reference import NumpyAdam, NumpyMLP
from small_runs import CPU, VECTOR, ScriptedEnvs, dqn_config, drive, make_agent, optimizer, run_config

from rltrain.config.schema import AnyNetworkConfig, CNNConfig, ConstantConfig, DuelingConfig, NetworkConfig
from rltrain.networks import make_network
from rltrain.seeding import make_generator
from rltrain.types import ObservationSpec

MLP = NetworkConfig("mlp", (5, 4), "tanh", 1.0, noisy=True)
SIZES = (3, 5, 4, 3)
PLAIN = NumpyMLP(*SIZES)
NOISE = 3 + 5 + 5 + 4 + 4 + 3
Parts = tuple[np.ndarray, np.ndarray]


def means_and_deviations(named: dict[str, torch.Tensor]) -> Parts:
    """Both [P of the plain network], weight, bias, weight, ..."""
    split = [[t.numpy().ravel() for n, t in named.items() if n.endswith("_sigma") == sigma] for sigma in (False, True)]
    return np.concatenate(split[0]), np.concatenate(split[1])


def epsilon(noise: np.ndarray) -> np.ndarray:
    """Equations 10 and 11 for all layers: f(eps_i) f(eps_j) of each weight, f(eps_j) of each bias."""
    f, found = np.sign(noise) * np.sqrt(np.abs(noise)), []
    for inputs, outputs in pairwise(SIZES):
        into, out, f = f[:inputs], f[inputs : inputs + outputs], f[inputs + outputs :]
        found += [np.outer(out, into).ravel(), out]
    assert not len(f)
    return np.concatenate(found)


def test_under_noise_it_is_the_paper_s_layer_and_without_it_the_means() -> None:
    network, generator = make_network(MLP, VECTOR, 3, 0, CPU), np.random.default_rng(0)
    noise, obs = (generator.normal(size=size).astype(np.float32) for size in (NOISE, (7, 3)))
    mean, sigma = means_and_deviations(network.state_dict())
    assert network.noise_size == NOISE
    found = network.apply(network.perturbed(network.params, torch.from_numpy(noise)), torch.from_numpy(obs))
    expected = PLAIN.forward(mean + sigma * epsilon(noise), obs)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)
    in_numpy = network.in_numpy(torch.stack([network.params] * 2))
    assert in_numpy is not None
    noises, both = np.stack([noise, np.zeros_like(noise)]), np.stack([obs, obs])
    under_noise, without = in_numpy(both, noises)
    np.testing.assert_allclose(under_noise, expected, rtol=1e-4, atol=1e-5)
    for plain in (network(torch.from_numpy(obs)).numpy(), without, *in_numpy(both)):
        np.testing.assert_allclose(plain, PLAIN.forward(mean, obs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "observation", "inputs"),
    [
        (MLP, VECTOR, [3, 5, 4]),
        (DuelingConfig("dueling", (5,), (4,), "tanh", 1.0, noisy=True), VECTOR, [3, 5, 4, 5, 4]),
        (CNNConfig("cnn", (2,), (2,), (1,), (6,), False, "auto", "relu", 1.0, noisy=True),
         ObservationSpec("box", (3, 3, 1), "uint8"), [8, 6]),
    ],
    ids=["mlp", "dueling", "cnn"],
)  # fmt: skip
def test_deviations_begin_as_the_paper_s_in_fully_connected_layers_alone(
    config: AnyNetworkConfig, observation: ObservationSpec, inputs: list[int]
) -> None:
    network = make_network(config, observation, 3, 0, CPU)
    named = network.state_dict()
    sigmas = [tensor for name, tensor in named.items() if name.endswith(".weight_sigma")]
    assert [sigma.shape[1] for sigma in sigmas] == inputs
    for name, tensor in named.items():
        if name.endswith("weight_sigma"):
            bound = tensor.shape[1] ** -0.5
            mean = named[name.removesuffix("_sigma")]
            assert tensor.numpy() == pytest.approx(0.5 * bound)
            assert named[name.replace("weight", "bias")].numpy() == pytest.approx(0.5 * bound)
            assert mean.abs().max() <= bound
    plain = make_network(replace(config, noisy=False), observation, 3, 0, CPU)
    means = torch.cat([tensor.ravel() for name, tensor in named.items() if not name.endswith("_sigma")])
    assert torch.equal(means, plain.params), "the means are the seed's, with noise and without"


def noisy_agent(seed: int = 3, num_envs: int = 1, **algo: Any) -> Any:
    config = dqn_config(**{"optimizer": optimizer(lr=1e-2, eps=1e-2), "max_grad_norm": None, **algo})
    greedy = ConstantConfig("constant", 0.0)
    return make_agent(run_config(config, network=MLP, seed=seed, exploration=greedy, num_envs=num_envs))


def test_each_step_of_acting_has_noise_of_its_own_and_evaluation_none() -> None:
    agent = noisy_agent(num_envs=4, learning_starts=1000)
    mean, sigma = means_and_deviations(agent.networks["q_network"].state_dict())
    stream, obs = make_generator(3, "acting_noise"), np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    acted = []
    for _ in range(30):
        q_values = PLAIN.forward(mean + sigma * epsilon(stream.standard_normal(NOISE)), obs)
        acted.append(agent.act(obs).tolist())
        assert acted[-1] == q_values.argmax(1).tolist()
        assert agent.act_greedy(obs).tolist() == PLAIN.forward(mean, obs).argmax(1).tolist()
    assert len({tuple(action) for action in acted}) > 3


@pytest.mark.parametrize("double", [False, True])
def test_updates_are_those_by_hand_with_noise_of_its_own_for_either_network(double: bool) -> None:
    """dL/dmu is the plain network's gradient at mu + sigma * eps, and dL/dsigma the same times eps."""
    agent = noisy_agent(double=double, loss="mse", learning_starts=20)
    stream, uniform = make_generator(3, "learning_noise"), make_generator(3, "replay").random(8 * 200)
    adam, updates = NumpyAdam(1e-2, eps=1e-2), 0
    mean, sigma = (part.astype(np.float64) for part in means_and_deviations(agent.networks["q_network"].state_dict()))
    target = mean, sigma
    for step, metrics in enumerate(drive(agent, ScriptedEnvs(1), 40), start=1):
        if metrics:
            size = min(step, 50)
            rows = (uniform[8 * updates : 8 * updates + 8] * size).astype(int)
            updates += 1
            obs, action, reward, next_obs, discount = (column.numpy()[rows] for column in agent.replay.memory.arrays)
            eps, of_target = (epsilon(stream.standard_normal(NOISE)) for _ in range(2))
            params, target_params = mean + sigma * eps, target[0] + target[1] * of_target
            target_next, index = PLAIN.forward(target_params, next_obs), np.arange(8)
            best = (PLAIN.forward(params, next_obs) if double else target_next).argmax(1)
            q_values, slope = PLAIN.forward(params, obs), np.zeros((8, 3))
            error = q_values[index, action] - (reward + discount * target_next[index, best])
            assert float(metrics["train/td_loss"]) == pytest.approx((error**2).mean(), rel=1e-3)
            slope[index, action] = 2 * error / 8
            grad = PLAIN.gradient(params, obs, slope)
            mean, sigma = np.split(adam.step(np.concatenate([mean, sigma]), np.concatenate([grad, grad * eps])), 2)
        if step % 7 == 0:
            target = mean, sigma
    assert updates == 20
    found = means_and_deviations(agent.networks["q_network"].state_dict())
    np.testing.assert_allclose(found[0], mean, atol=2e-4)
    np.testing.assert_allclose(found[1], sigma, atol=2e-4)
