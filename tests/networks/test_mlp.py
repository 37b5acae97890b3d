"""The multilayer perceptron and its encoder against NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rltrain.config.schema import CNNConfig, NetworkConfig
from rltrain.networks import make_network
from rltrain.networks.encoder import ObservationEncoder
from rltrain.networks.mlp import ACTIVATIONS, MLP
from rltrain.types import ObservationSpec

VECTOR = ObservationSpec("box", (3,), "float32")
FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0.0),
    "tanh": np.tanh,
    "elu": lambda x: np.where(x > 0.0, x, np.exp(x) - 1.0),
    "gelu": lambda x: 0.5 * x * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0))),
    "silu": lambda x: x / (1.0 + np.exp(-x)),
}


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_the_forward_pass_equals_numpy(activation: str) -> None:
    torch.manual_seed(0)
    network = MLP(NetworkConfig("mlp", (5, 4), activation, 1.0), VECTOR, 2)  # type: ignore[arg-type]
    obs = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    x = obs.astype(np.float64)
    parameters = [p.detach().double().numpy() for p in network.parameters()]
    for layer, (weight, bias) in enumerate(zip(parameters[::2], parameters[1::2], strict=True)):
        x = x @ weight.T + bias
        x = FUNCTIONS[activation](x) if layer < 2 else x
    np.testing.assert_allclose(network(torch.from_numpy(obs)).detach().numpy(), x, rtol=1e-4, atol=1e-5)


def test_hidden_layers_are_normalised_before_their_activation() -> None:
    torch.manual_seed(0)
    network = MLP(NetworkConfig("mlp", (5, 4), "relu", 1.0, layer_norm=True), VECTOR, 2)
    x = obs = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))  # gains are no longer 1, shifts no longer 0
    weights = [p.detach().double().numpy() for p in network.parameters()]
    for weight, bias, gain, shift in (weights[:4], weights[4:8]):
        x = x @ weight.T + bias
        mean, variance = x.mean(1, keepdims=True), x.var(1, keepdims=True)
        x = np.maximum(gain * (x - mean) / np.sqrt(variance + 1e-5) + shift, 0.0)
    x = x @ weights[8].T + weights[9]
    np.testing.assert_allclose(network(torch.from_numpy(obs)).detach().numpy(), x, rtol=1e-4, atol=1e-5)


def test_without_hidden_layers_it_is_linear() -> None:
    network = MLP(NetworkConfig("mlp", (), "relu", 1.0), VECTOR, 2)
    assert [tuple(p.shape) for p in network.parameters()] == [(2, 3), (2,)]
    a, b, zero = torch.randn(3), torch.randn(3), torch.zeros(3)
    torch.testing.assert_close(network(a + b) - network(zero), network(a) + network(b) - 2 * network(zero))


def test_the_output_scale_shrinks_the_last_layer_only() -> None:
    def parameters(scale: float) -> list[torch.Tensor]:
        torch.manual_seed(0)
        return list(MLP(NetworkConfig("mlp", (5,), "tanh", scale), VECTOR, 2).parameters())

    plain, scaled = parameters(1.0), parameters(0.01)
    assert all(torch.equal(a, b) for a, b in zip(plain[:2], scaled[:2], strict=True))
    assert all(torch.equal(0.01 * a, b) for a, b in zip(plain[2:], scaled[2:], strict=True))


def test_discrete_observations_become_one_hot() -> None:
    encoder = ObservationEncoder(ObservationSpec("discrete", (), "int64", n=4))
    assert encoder.out_features == 4
    assert encoder(torch.tensor([2, 0])).tolist() == [[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    assert encoder(torch.tensor([[1, 3, 0]])).shape == (1, 3, 4)


def test_images_are_flattened_and_scaled_once() -> None:
    encoder = ObservationEncoder(ObservationSpec("box", (2, 2), "uint8"))
    image = torch.tensor([[[0, 51], [102, 255]]], dtype=torch.uint8)
    assert encoder(image).tolist()[0] == pytest.approx([0.0, 0.2, 0.4, 1.0])
    assert encoder(image.expand(3, 5, 2, 2)).shape == (3, 5, 4)


def test_scalar_and_shaped_boxes_keep_their_leading_axes() -> None:
    assert ObservationEncoder(ObservationSpec("box", (), "float32"))(torch.zeros(6, 2)).shape == (6, 2, 1)
    shaped = ObservationEncoder(ObservationSpec("box", (2, 3), "float32"))
    assert shaped.out_features == 6
    obs = torch.arange(12.0).reshape(2, 2, 3)
    assert shaped(obs).tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("hidden", [(), (8,), (16, 8)])
def test_in_numpy_it_is_the_same_function_of_the_present_weights(
    activation: Any, hidden: tuple[int, ...], layer_norm: bool
) -> None:
    config = NetworkConfig("mlp", hidden, activation, 1.0, layer_norm=layer_norm)
    networks = [
        make_network(config, ObservationSpec("box", (4,), "float32"), 3, seed, torch.device("cpu")) for seed in (0, 1)
    ]
    params = torch.stack([network.params for network in networks])
    in_numpy = networks[0].in_numpy(params)
    assert in_numpy is not None
    obs = np.random.default_rng(0).standard_normal((2, 5, 4), dtype=np.float32)
    for _ in range(2):
        found = in_numpy(obs)
        for member, own in enumerate(params):
            expected = networks[0].apply(own, torch.from_numpy(obs[member])).numpy()
            np.testing.assert_allclose(found[member], expected, atol=2e-6)
        params.mul_(1.5).add_(0.01)


@pytest.mark.parametrize(
    ("observation", "activation"),
    [
        (ObservationSpec("discrete", (), "int64", n=4), "relu"),
        (ObservationSpec("box", (2, 2), "float32"), "relu"),
        (ObservationSpec("box", (4,), "uint8"), "relu"),
        (ObservationSpec("box", (4,), "float32"), "gelu"),
    ],
)
def test_where_numpy_would_need_more_it_is_left_to_torch(observation: ObservationSpec, activation: Any) -> None:
    network = make_network(NetworkConfig("mlp", (8,), activation, 1.0), observation, 3, 0, torch.device("cpu"))
    assert network.in_numpy(network.params) is None


@pytest.mark.parametrize("dueling", [False, True])
def test_orthogonal_weights_keep_lengths_and_the_last_layer_has_its_scale(dueling: bool) -> None:
    def check(weight: torch.Tensor, gain: float) -> None:
        rows = weight.detach().flatten(1)
        gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
        torch.testing.assert_close(gram, gain**2 * torch.eye(len(gram)), rtol=1e-4, atol=1e-5)

    mlp = MLP(NetworkConfig("mlp", (5, 4), "tanh", 0.01, "orthogonal"), VECTOR, 2)
    layers = CNNConfig("cnn", (3,), (2,), (1,), (8,), dueling, "auto", "relu", 0.5, "orthogonal")
    cnn = make_network(layers, ObservationSpec("box", (4, 4, 3), "uint8"), 2, 0, torch.device("cpu")).module()
    for network, scale in ((mlp, 0.01), (cnn, 0.5)):
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                assert not parameter.any()
            else:
                is_last = parameter.shape[0] == 2 or (dueling and parameter.shape[0] == 1)
                check(parameter, scale if is_last else math.sqrt(2.0))
