"""The action distributions of stochastic policies: how a head's numbers become actions and log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from rltrain.maths.policy import (
    categorical_entropy,
    categorical_log_prob,
    gaussian_entropy,
    gaussian_log_prob,
    sample_categorical,
    sample_categorical_in_numpy,
    split_gaussian,
)
from rltrain.seeding import Kind
from rltrain.types import ActionSpec


class Distribution(Protocol):
    """A family of distributions; `output` is what the policy network returns, [..., outputs]."""

    outputs: int
    noise: Kind
    noise_size: int

    def sample(self, output: Tensor, noise: Tensor) -> Tensor:
        """output [N, outputs], noise [N, noise_size] -> action [N, *action]."""
        ...

    def sample_in_numpy(self, output: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """The same actions, bit for bit."""
        ...

    def mode(self, output: Tensor) -> Tensor:
        """The most likely action."""
        ...

    def log_prob(self, output: Tensor, action: Tensor) -> Tensor:
        """log pi(a|s) [...] of the action that the agent chose, before the environment's bounds clip it."""
        ...

    def entropy(self, output: Tensor) -> Tensor:
        """Of each distribution, in nats [...]."""
        ...


class Categorical:
    """One of n actions; the head's numbers are logits [..., n]."""

    noise: Kind = "uniform"
    noise_size = 1

    def __init__(self, action: ActionSpec) -> None:
        self.outputs = action.n

    def sample(self, output: Tensor, noise: Tensor) -> Tensor:
        return sample_categorical(output, noise.squeeze(-1))

    def sample_in_numpy(self, output: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return sample_categorical_in_numpy(output, noise[:, 0])

    def mode(self, output: Tensor) -> Tensor:
        return output.argmax(-1)

    def log_prob(self, output: Tensor, action: Tensor) -> Tensor:
        return categorical_log_prob(output, action)

    def entropy(self, output: Tensor) -> Tensor:
        return categorical_entropy(output)


class MultiCategorical:
    """Several numbers at once, independent given the state, number d one of sizes[d]; the head's numbers are the logits
    of the first, then those of the second, and so on: [..., sum of sizes]."""

    noise: Kind = "uniform"

    def __init__(self, action: ActionSpec) -> None:
        self._shape, self._sizes = action.shape, list(action.sizes)
        self.noise_size = len(action.sizes)  # D
        self.outputs = sum(action.sizes)

    def _parts(self, output: Any) -> list[Any]:
        """The logits of each number, [..., 1, size]; where all have as many choices, together: [..., D, size]."""
        sizes, lead = self._sizes, output.shape[:-1]
        if len(set(sizes)) == 1:
            return [output.reshape(*lead, len(sizes), sizes[0])]
        ends = np.cumsum(sizes).tolist()
        return [output[..., end - size : end].reshape(*lead, 1, size) for end, size in zip(ends, sizes, strict=True)]

    def _of_parts(self, numbers: Any) -> list[Any]:
        """[..., D] of any kind, as `_parts` divides the numbers."""
        return [numbers] if len(set(self._sizes)) == 1 else [numbers[..., d : d + 1] for d in range(self.noise_size)]

    def sample(self, output: Tensor, noise: Tensor) -> Tensor:
        pairs = zip(self._parts(output), self._of_parts(noise), strict=True)
        return torch.cat([sample_categorical(*pair) for pair in pairs], -1).reshape(-1, *self._shape)

    def sample_in_numpy(self, output: np.ndarray, noise: np.ndarray) -> np.ndarray:
        pairs = zip(self._parts(output), self._of_parts(noise), strict=True)
        return np.concatenate([sample_categorical_in_numpy(*pair) for pair in pairs], -1).reshape(-1, *self._shape)

    def mode(self, output: Tensor) -> Tensor:
        return torch.cat([part.argmax(-1) for part in self._parts(output)], -1).reshape(-1, *self._shape)

    def log_prob(self, output: Tensor, action: Tensor) -> Tensor:
        numbers = action.reshape(*output.shape[:-1], self.noise_size)
        pairs = zip(self._parts(output), self._of_parts(numbers), strict=True)
        return torch.cat([categorical_log_prob(*pair) for pair in pairs], -1).sum(-1)

    def entropy(self, output: Tensor) -> Tensor:
        return torch.cat([categorical_entropy(part) for part in self._parts(output)], -1).sum(-1)


class DiagonalGaussian:
    """A Gaussian with independent dimensions; the head gives each its mean and the logarithm of its deviation."""

    noise: Kind = "normal"

    def __init__(self, action: ActionSpec) -> None:
        self._shape = action.shape
        self.noise_size = math.prod(action.shape)
        self.outputs = 2 * self.noise_size

    def sample(self, output: Tensor, noise: Tensor) -> Tensor:
        mean, log_std = split_gaussian(output)  # [N, A]
        return (mean + log_std.exp() * noise).reshape(-1, *self._shape)

    def sample_in_numpy(self, output: np.ndarray, noise: np.ndarray) -> np.ndarray:
        # NumPy's exponential rounds otherwise than torch's: one seed acts alike wherever it is asked.
        return self.sample(torch.from_numpy(output), torch.from_numpy(noise)).cpu().numpy()

    def mode(self, output: Tensor) -> Tensor:
        mean, _ = split_gaussian(output)
        return mean.reshape(-1, *self._shape)

    def log_prob(self, output: Tensor, action: Tensor) -> Tensor:
        mean, log_std = split_gaussian(output)
        return gaussian_log_prob(mean, log_std, action.reshape(mean.shape))

    def entropy(self, output: Tensor) -> Tensor:
        return gaussian_entropy(split_gaussian(output)[1])


DISTRIBUTIONS: dict[str, Callable[[ActionSpec], Distribution]] = {
    "discrete": Categorical,
    "multi_discrete": MultiCategorical,
    "box": DiagonalGaussian,
}
