"""A perceptron with its gradient, and Adam, written out in NumPy: the other side of the tests of the updates."""

from __future__ import annotations

from itertools import pairwise

import numpy as np


class NumpyMLP:
    """Layers of `sizes`, tanh between them, on one flat float64 vector [P] in the order weight, bias, weight, ..."""

    def __init__(self, *sizes: int) -> None:
        self._sizes = sizes
        self.num_parameters = sum(a * b + b for a, b in pairwise(sizes))

    def layers(self, params: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        found, start = [], 0
        for inputs, outputs in pairwise(self._sizes):
            weight = params[start : start + inputs * outputs].reshape(outputs, inputs)
            start += inputs * outputs
            found.append((weight, params[start : start + outputs]))
            start += outputs
        return found

    def forward(self, params: np.ndarray, obs: np.ndarray) -> np.ndarray:
        """params [P], obs [B, inputs] -> [B, outputs]."""
        return self._activations(params, obs)[-1]

    def gradient(self, params: np.ndarray, obs: np.ndarray, output_gradient: np.ndarray) -> np.ndarray:
        """dL/dparams [P] from dL/doutput [B, outputs]."""
        activations = self._activations(params, obs)
        pieces: list[np.ndarray] = []
        delta = output_gradient
        for (weight, _), inputs in zip(reversed(self.layers(params)), reversed(activations[:-1]), strict=True):
            pieces = [(delta.T @ inputs).reshape(-1), delta.sum(0), *pieces]
            delta = (delta @ weight) * (1.0 - inputs**2)  # of tanh; what reaches the observations is not used
        return np.concatenate(pieces)

    def _activations(self, params: np.ndarray, obs: np.ndarray) -> list[np.ndarray]:
        activations = [obs]
        layers = self.layers(params)
        for index, (weight, bias) in enumerate(layers):
            x = activations[-1] @ weight.T + bias
            activations.append(np.tanh(x) if index < len(layers) - 1 else x)
        return activations


class NumpyAdam:
    """Kingma & Ba 2015, algorithm 1, line by line."""

    def __init__(self, lr: float, eps: float = 1e-8) -> None:
        self.lr, self.eps = lr, eps
        self.t, self.m, self.v = 0, 0.0, 0.0

    def step(self, params: np.ndarray, grad: np.ndarray) -> np.ndarray:
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * grad
        self.v = 0.999 * self.v + 0.001 * grad**2
        corrected_m, corrected_v = self.m / (1.0 - 0.9**self.t), self.v / (1.0 - 0.999**self.t)
        return params - self.lr * corrected_m / (np.sqrt(corrected_v) + self.eps)


def clipped(grad: np.ndarray, max_norm: float | None) -> np.ndarray:
    """At most max_norm long; the 1e-6 is torch.nn.utils.clip_grad_norm_'s."""
    norm = np.sqrt((grad**2).sum())
    return grad * min(1.0, max_norm / (norm + 1e-6)) if max_norm is not None else grad
