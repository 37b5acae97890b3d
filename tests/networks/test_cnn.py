"""The convolutional network against loops over pixels, and the layers that a config means for an image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_runs import CPU

from rltrain.config.schema import CNNConfig, NetworkConfig
from rltrain.errors import RequestError
from rltrain.maths.images import convolutions, image_of
from rltrain.networks import make_network
from rltrain.networks.cnn import CNN
from rltrain.networks.encoder import as_float
from rltrain.networks.mlp import MLP
from rltrain.types import ObservationSpec

AUTO = CNNConfig("cnn", "auto", "auto", "auto", "auto", False, "auto", "relu", 1.0)
SMALL = CNNConfig("cnn", (3, 2), (2, 3), (1, 2), (4,), False, "auto", "tanh", 1.0)
LAST = ObservationSpec("box", (6, 7, 2), "uint8")
FIRST = ObservationSpec("box", (2, 6, 7), "uint8")
Array = np.ndarray


def box(*shape: int, dtype: str = "uint8") -> ObservationSpec:
    return ObservationSpec("box", shape, dtype)


def convolve(image: Array, weight: Array, bias: Array, stride: int) -> Array:
    """image [C, H, W], weight [K, C, k, k] -> [K, H', W']: the definition, pixel by pixel."""
    planes, size = weight.shape[0], weight.shape[2]
    rows, columns = ((side - size) // stride + 1 for side in image.shape[1:])
    out = np.zeros((planes, rows, columns))
    for plane in range(planes):
        for row in range(rows):
            for column in range(columns):
                top, left = row * stride, column * stride
                window = image[:, top : top + size, left : left + size]
                out[plane, row, column] = (window * weight[plane]).sum() + bias[plane]
    return out


def by_hand(network: CNN, pixels: Array, layer_norm: bool = False) -> Array:
    """pixels [C, H, W] as the layers shall see them."""
    p = {name: parameter.detach().double().numpy() for name, parameter in network.named_parameters()}

    def normalized(x: Array, layer: str) -> Array:
        if not layer_norm:
            return x
        gain, shift = (p[f"{layer}.{name}"].reshape(-1, *[1] * (x.ndim - 1)) for name in ("weight", "bias"))
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * gain + shift

    x, stride_of = pixels.astype(np.float64), {0: 1, 1: 2}
    for number, stride in stride_of.items():
        at = number * (2 + layer_norm)
        x = convolve(x, p[f"convolutions.{at}.weight"], p[f"convolutions.{at}.bias"], stride)
        x = np.tanh(normalized(x, f"convolutions.{at + 1}"))
    x = normalized(p["head.0.weight"] @ x.reshape(-1) + p["head.0.bias"], "head.1")
    last = f"head.{2 + layer_norm}"
    return p[f"{last}.weight"] @ np.tanh(x) + p[f"{last}.bias"]


@pytest.mark.parametrize("spec", [LAST, FIRST])
@pytest.mark.parametrize("dtype", ["uint8", "bool", "float32"])
def test_the_forward_pass_equals_loops_over_pixels(spec: ObservationSpec, dtype: str) -> None:
    torch.manual_seed(0)
    spec = replace(spec, dtype=dtype)
    network = CNN(SMALL, spec, 3)
    obs = np.random.default_rng(0).integers(0, 256, (5, *spec.shape))
    obs = (obs > 128 if dtype == "bool" else obs).astype(dtype)
    scale = 255.0 if dtype == "uint8" else 1.0
    if dtype == "float32":
        obs = obs / np.float32(100.0)
    expected = []
    for image in obs:
        chw = np.moveaxis(image, -1, 0) if spec.shape[-1] == 2 else image
        expected.append(by_hand(network, chw.astype(np.float64) / scale))
    found = network(torch.from_numpy(obs)).detach().numpy()
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-4, atol=1e-5)


def test_with_layer_norm_each_image_is_normalised_alone_in_single_networks_and_in_stacked_ones() -> None:
    network = make_network(replace(SMALL, layer_norm=True), LAST, 3, 0, CPU)
    params = torch.stack([network.params, network.params]) + 0.1 * torch.randn(2, len(network.params))
    obs = np.random.default_rng(0).integers(0, 256, (2, 5, *LAST.shape)).astype(np.uint8)
    found = torch.vmap(network.apply)(params, torch.from_numpy(obs))
    for member in range(2):
        network.params.copy_(params[member])
        module = network.module()
        assert isinstance(module, CNN)
        expected = np.array([by_hand(module, np.moveaxis(image, -1, 0) / 255.0, True) for image in obs[member]])
        np.testing.assert_allclose(network(torch.from_numpy(obs[member])).numpy(), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[member].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_leading_axes_stay() -> None:
    network, obs = CNN(SMALL, LAST, 3), torch.randint(0, 256, (2, 4, 6, 7, 2), dtype=torch.uint8)
    assert network(obs).shape == (2, 4, 3)
    torch.testing.assert_close(network(obs)[1, 2], network(obs[1, 2]))


@pytest.mark.parametrize(
    ("shape", "axis", "expected"),
    [
        ((84, 84, 3), "auto", (3, 84, 84, 2)),
        ((4, 84, 84), "auto", (4, 84, 84, 0)),
        ((210, 160, 3), "auto", (3, 210, 160, 2)),
        ((10, 10, 10), "auto", (10, 10, 10, 2)),
        ((10, 10, 16), "auto", (16, 10, 10, 2)),
        ((16, 10, 10), "auto", (16, 10, 10, 0)),
        ((3, 210, 160), "auto", (3, 210, 160, 0)),
        ((10, 10, 4), "first", (10, 10, 4, 0)),
        ((4, 84, 84), "last", (84, 4, 84, 2)),
        ((84, 84), "auto", (1, 84, 84, None)),
    ],
)
def test_which_axis_holds_the_channels(shape: tuple[int, ...], axis: str, expected: tuple[object, ...]) -> None:
    assert tuple(image_of(box(*shape), axis)) == expected


def test_the_sizes_of_atari_and_of_minatar() -> None:
    """Parameters as the papers' layers give them: 20x20x32 and 9x9x64 and 7x7x64 for Atari, 8x8x16 for MinAtar."""
    atari = make_network(AUTO, box(4, 84, 84), 18, 0, CPU)
    convs = 32 * (4 * 64 + 1) + 64 * (32 * 16 + 1) + 64 * (64 * 9 + 1)
    assert atari.params.numel() == convs + 512 * (7 * 7 * 64 + 1) + 18 * 513
    minatar = make_network(AUTO, box(10, 10, 4, dtype="bool"), 6, 0, CPU)
    assert minatar.params.numel() == 16 * (4 * 9 + 1) + 128 * (8 * 8 * 16 + 1) + 6 * 129
    assert convolutions(AUTO, box(36, 36, 1)).kernels == (8, 4, 3)
    assert convolutions(AUTO, box(35, 36, 1)).kernels == (3,)
    assert convolutions(AUTO, box(36, 36, 1)).out_features == 64


def test_dueling_streams_have_the_hidden_layers_each() -> None:
    network = make_network(replace(SMALL, dueling=True), LAST, 3, 0, CPU)
    names = set(network.state_dict())
    assert {"head.value.0.weight", "head.value.2.bias", "head.advantage.0.weight"} <= names
    obs = torch.randint(0, 256, (5, 6, 7, 2), dtype=torch.uint8)
    assert network(obs).shape == (5, 3)


def test_no_convolutions_and_no_hidden_layers_are_a_linear_map() -> None:
    linear = CNN(replace(SMALL, channels=(), kernels=(), strides=(), hidden=()), LAST, 3)
    assert [tuple(p.shape) for p in linear.parameters()] == [(3, 84), (3,)]


def test_what_is_no_image_or_too_small_is_refused() -> None:
    for spec, what in [(box(4), r"Box\[4\]"), (box(4, 84, 84, 3), r"Box\[4, 84, 84, 3\]")]:
        with pytest.raises(RequestError, match=f"network=cnn: needs images .* not {what}"):
            convolutions(AUTO, spec)
    with pytest.raises(RequestError, match="not Discrete"):
        convolutions(AUTO, ObservationSpec("discrete", (), "int64", 4))
    with pytest.raises(RequestError, match=r"network.kernels\[0\]=3: is larger than the 2x9 pixels"):
        convolutions(AUTO, box(2, 9, 1))
    with pytest.raises(RequestError, match=r"network.kernels\[1\]=3: is larger than the 2x3 pixels"):
        convolutions(SMALL, box(3, 4, 1))
    assert convolutions(SMALL, box(4, 4, 1)).out_features == 2


def test_the_scale_is_applied_once_and_only_to_bytes() -> None:
    assert as_float(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0.0, 0.2, 1.0])
    assert as_float(torch.tensor([False, True])).tolist() == [0.0, 1.0]
    assert as_float(torch.tensor([0.5, 255.0])).tolist() == [0.5, 255.0]


def test_an_mlp_takes_images_flattened() -> None:
    network = MLP(NetworkConfig("mlp", (), "relu", 1.0), box(2, 2, 1, dtype="bool"), 1)
    weight, bias = (p.detach() for p in network.parameters())
    obs = torch.tensor([[[[True], [False]], [[False], [True]]]])
    assert network(obs).item() == pytest.approx((weight[0, 0] + weight[0, 3] + bias[0]).item())


@pytest.mark.parametrize("spec", [LAST, FIRST])
@pytest.mark.parametrize("members", [None, 2])
def test_channels_last_is_the_same_up_to_rounding(spec: ObservationSpec, members: int | None) -> None:
    """Alone and under vmap; the convolutions get what they are promised."""
    plain, last = (CNN(replace(SMALL, memory_format=how), spec, 3) for how in (None, "channels_last"))
    last.load_state_dict(plain.state_dict())
    obs = torch.randint(0, 256, (*([] if members is None else [members]), 5, *spec.shape), dtype=torch.uint8)
    seen = []
    last.convolutions[0].register_forward_pre_hook(lambda layer, given: seen.append(given[0].stride()))
    run = (lambda network: network(obs)) if members is None else (lambda network: torch.vmap(network)(obs))
    torch.testing.assert_close(run(last), run(plain))
    assert seen == [(84, 1, 14, 2)], "of [5, 2, 6, 7]"
