"""The multilayer perceptron."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from rltrain.config.schema import NetworkConfig
from rltrain.networks.encoder import ObservationEncoder
from rltrain.networks.noisy import dense_in_numpy, noise_parts
from rltrain.networks.orthogonal import init_orthogonal
from rltrain.types import ObservationSpec

_FEW = 16  # inputs; from so many on both orders take as long
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}

IN_NUMPY: dict[str, Callable[[np.ndarray], np.ndarray]] = {"relu": lambda x: np.maximum(x, 0.0), "tanh": np.tanh}


class FewInputs(nn.Linear):
    """`nn.Linear` for few inputs, with a gradient that is quickly computed.

    Autograd multiplies the factors of a weight's gradient in the order that suits the weight's layout in memory. For
    [outputs, inputs] the product has as few columns as there are inputs, and BLAS on the CPU takes up to eight times as
    long for it as for its transpose. A transposed copy of the small weight turns the order round.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        return x @ self.weight.t().contiguous() + self.bias


def dense(
    width: int, hidden: Sequence[int], activation: str, outputs: int | None = None, output_scale: float = 1.0,
    layer_norm: bool = False,
) -> list[nn.Module]:  # fmt: skip
    """Fully connected layers from `width` inputs, each of `hidden` with its activation, then one of `outputs` without.
    With `layer_norm` the units of a hidden layer are normalised before the activation (Ba et al. 2016).

    Weights start as PyTorch's default draws; the last layer's are then multiplied by `output_scale`, so that a small
    scale gives a policy that starts close to uniform.
    """
    layers: list[nn.Module] = []
    for units in hidden:
        kind = FewInputs if width < _FEW else nn.Linear
        norm = [nn.LayerNorm(units)] if layer_norm else []
        layers += [kind(width, units), *norm, ACTIVATIONS[activation]()]
        width = units
    if outputs is not None:
        last = nn.Linear(width, outputs)
        with torch.no_grad():
            for parameter in last.parameters():
                parameter.mul_(output_scale)
        layers.append(last)
    return layers


class MLP(nn.Module):
    """Fully connected layers of `config.hidden` units; `hidden=[]` is a linear function of the observation."""

    def __init__(self, config: NetworkConfig, observation: ObservationSpec, outputs: int) -> None:
        super().__init__()
        encoder = ObservationEncoder(observation)
        width, scale, norms = encoder.out_features, config.output_scale, bool(config.layer_norm)
        layers = dense(width, config.hidden, config.activation, outputs, scale, norms)
        if config.init == "orthogonal":
            init_orthogonal(layers, config.output_scale)
        self.layers = nn.Sequential(encoder, *layers)
        is_vector = observation.kind == "box" and observation.dtype == "float32" and len(observation.shape) == 1
        self._activate_in_numpy = IN_NUMPY.get(config.activation) if is_vector else None

        self.feature_width = config.hidden[0] if config.hidden else width
        self._features = next(
            (i for i, m in enumerate(self.layers, 1) if isinstance(m, ACTIVATIONS[config.activation])), 1
        )

    def forward(self, obs: Tensor) -> Tensor:
        """obs [..., *obs] -> [..., outputs]."""
        output: Tensor = self.layers(obs)
        return output

    def features(self, obs: Tensor) -> Tensor:
        """The output of the first hidden layer, [..., feature_width]."""
        for layer in list(self.layers)[: self._features]:
            obs = layer(obs)
        return obs

    def values(self, features: Tensor) -> Tensor:
        """[..., feature_width] -> [..., outputs]."""
        for layer in list(self.layers)[self._features :]:
            features = layer(features)
        return features

    def in_numpy(self, params: Mapping[str, np.ndarray]) -> Callable[..., np.ndarray] | None:
        """The same function in NumPy, up to rounding, for M networks whose parameters are [M, *shape] by name: of
        float32 vectors [M, N, width], and under noise [M, E]. None where NumPy has not all it takes.

        For the few rows that acting takes, torch's cost per operation is ten times that of the arithmetic.
        """
        activate, named = self._activate_in_numpy, list(self.named_modules())
        linear = {name: layer for name, layer in named if isinstance(layer, nn.Linear)}
        if activate is None or any(array.dtype != np.float32 for array in params.values()):
            return None
        layers = [dense_in_numpy(name, params) for name in linear]
        parts = noise_parts(linear.values())
        norms = [_layer_norm_in_numpy(name, m.eps, params) for name, m in named if isinstance(m, nn.LayerNorm)]
        normalize = norms or [lambda x: x] * len(layers)

        @np.errstate(all="ignore")  # what is not finite is found in the update, by name
        def forward(obs: np.ndarray, *noise: np.ndarray) -> np.ndarray:
            of_layers = iter(parts(*noise) if noise else ())
            x = obs  # [M, N, width]
            for layer, norm in zip(layers[:-1], normalize, strict=False):
                x = activate(norm(layer(x, of_layers)))
            return layers[-1](x, of_layers)  # [M, N, outputs]

        return forward


def _layer_norm_in_numpy(name: str, eps: float, params: Mapping[str, np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """The layer `name` of M networks, whose parameters are [M, units], for x [M, N, units]."""
    gain, shift = params[f"{name}.weight"][:, None], params[f"{name}.bias"][:, None]
    units = gain.shape[-1]
    mean = np.full((units, 1), 1.0 / units, np.float32)  # a product is faster than `np.mean`

    def forward(x: np.ndarray) -> np.ndarray:
        x = x - x @ mean
        x *= 1.0 / np.sqrt((x * x) @ mean + eps)
        x *= gain
        x += shift
        return x

    return forward
