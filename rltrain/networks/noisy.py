"""Noisy networks with factorised Gaussian noise. Fortunato et al. 2018.

A noisy layer has y = (mu + sigma * f(eps_out) f(eps_in)^T) x + mu_b + sigma_b * f(eps_out), f(x) = sgn(x) sqrt|x|. The
module's `weight` and `bias` are the means, with which alone it computes; noise makes other parameters of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor, nn

SIGMA_0 = 0.5
"""Deviations start as sigma_0 / sqrt(inputs)."""
_SIGMA = "_sigma"


def add_deviations(module: nn.Module) -> None:
    """Gives every fully connected layer `weight_sigma` and `bias_sigma`; convolutions have none.

    The means keep PyTorch's own draws, uniform on +-1 / sqrt(inputs), which are the paper's too.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            for name in ("weight", "bias"):
                mean, sigma = getattr(layer, name), SIGMA_0 / math.sqrt(layer.in_features)
                layer.register_parameter(name + _SIGMA, nn.Parameter(torch.full_like(mean, sigma)))


class LayerNoise:
    """The noise of all layers of a module that have deviations.

    Attributes:
        size: E, standard normal numbers that one draw of the noise takes: those of each layer's inputs, then outputs.
    """

    def __init__(self, module: nn.Module) -> None:
        layers = {name: layer for name, layer in module.named_modules() if hasattr(layer, "weight" + _SIGMA)}
        self._prefixes = [f"{name}." if name else "" for name in layers]
        self._sizes = [size for layer in layers.values() for size in reversed(layer.weight.shape)]
        self.size = sum(self._sizes)

    def added(self, named: dict[str, Tensor], noise: Tensor) -> dict[str, Tensor]:
        """The parameters by name, with means moved by deviations times `noise` [E]."""
        of_layers = iter(torch.split(noise.sign() * noise.abs().sqrt(), self._sizes))
        moved = dict(named)
        for prefix, inputs, outputs in zip(self._prefixes, of_layers, of_layers, strict=True):
            weight, bias = prefix + "weight", prefix + "bias"
            moved[weight] = named[weight] + named[weight + _SIGMA] * (outputs.unsqueeze(-1) * inputs)
            moved[bias] = named[bias] + named[bias + _SIGMA] * outputs
        return moved


def noise_parts(layers: Iterable[nn.Linear]) -> Callable[[np.ndarray], list[np.ndarray]]:
    """From noise [M, E] to f(noise) of each layer's inputs, then outputs, each [M, 1, size]."""
    sizes = [size for layer in layers for size in reversed(layer.weight.shape)]
    places = [slice(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]

    def parts(noise: np.ndarray) -> list[np.ndarray]:
        scaled = np.sign(noise) * np.sqrt(np.abs(noise))
        return [scaled[:, None, place] for place in places]

    return parts


def dense_in_numpy(
    name: str, params: Mapping[str, np.ndarray]
) -> Callable[[np.ndarray, Iterator[np.ndarray]], np.ndarray]:
    """The fully connected layer `name` of M networks, whose parameters are [M, *shape], for x [M, N, inputs], under the
    noise of its inputs and outputs that comes next, if any does.

    Noise on the numbers that go in and out takes a second product, and no second matrix of weights.
    """
    weight, bias = params[f"{name}.weight"].swapaxes(-1, -2), params[f"{name}.bias"][:, None]
    if noisy := f"{name}.weight{_SIGMA}" in params:
        sigma, bias_sigma = params[f"{name}.weight{_SIGMA}"].swapaxes(-1, -2), params[f"{name}.bias{_SIGMA}"][:, None]

    def forward(x: np.ndarray, noise: Iterator[np.ndarray]) -> np.ndarray:
        y: np.ndarray = x @ weight  # [M, N, outputs]
        y += bias
        if noisy and (inputs := next(noise, None)) is not None:
            y += ((x * inputs) @ sigma + bias_sigma) * next(noise)
        return y

    return forward
