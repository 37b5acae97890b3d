"""A network as a function of one flat parameter vector.

With all parameters in one vector [P], the optimiser, gradient clipping, the target network's average, a population's
stacking and finiteness checks are each a single tensor operation instead of one per layer, and a checkpoint is a view.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from rltrain.networks.mlp import ACTIVATIONS
from rltrain.networks.noisy import LayerNoise
from rltrain.networks.requirements import check_parameters

InNumpy = Callable[..., np.ndarray]
"""obs [M, N, *obs], and of noisy networks perhaps noise [M, E] -> outputs [M, N, outputs]."""


class FlatNetwork:
    """A module, and one vector that holds all its parameters.

    `network(obs)` runs the module on `network.params`; `network.apply(params, obs)` is the same maths as a pure
    function of any vector of that size, for `torch.func`. `params` changes in place only, so the module's parameters,
    which are views of it, and whatever captured its memory, always see the present weights.

    Attributes:
        noise_size: E, of a noisy network the standard normal numbers that `perturbed` takes; 0 of any other.

    Raises:
        ValueError: as `check_parameters`.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        check_parameters(module)
        self._module = module.to(device)
        named = dict(module.named_parameters())
        self._names = list(named)
        self._shapes = [parameter.shape for parameter in named.values()]
        self._sizes = [parameter.numel() for parameter in named.values()]
        self.params = _concatenated([parameter.detach() for parameter in named.values()])  # [P]
        for parameter, view in zip(named.values(), self.named(self.params).values(), strict=True):
            parameter.requires_grad_(False)
            parameter.data = view
        self._own = list(named.values())
        self._slots = [self._slot(name) for name in self._names]
        self._noise = LayerNoise(module)
        self.noise_size = self._noise.size

    def __call__(self, obs: Tensor) -> Tensor:
        output: Tensor = self._module(obs)
        return output

    def apply(self, params: Tensor, obs: Tensor, *more: Tensor) -> Tensor:
        """The network's output for obs [B, ...] with `params` [P] in place of its own; differentiable in both. `more`
        is what the module takes beside observations."""
        if torch.compiler.is_compiling():
            compiled: Tensor = functional_call(self._module, self.named(params), (obs, *more))
            return compiled
        # functional_call does the same and costs as much as a small network itself.
        pieces = self.named(params).values()
        for (owner, name), piece in zip(self._slots, pieces, strict=True):
            owner[name] = piece
        try:
            output: Tensor = self._module(obs, *more)
        finally:
            for (owner, name), own in zip(self._slots, self._own, strict=True):
                owner[name] = own
        return output

    def activations(self, params: Tensor, obs: Tensor) -> list[Tensor]:
        """The outputs [B, ...] of the module's activation functions, in the order of the layers."""
        kinds = tuple(ACTIVATIONS.values())
        return [output for layer, output in self._outputs(params, obs) if isinstance(layer, kinds)]

    def multiply_adds(self, obs: Tensor) -> int:
        """Products of a weight and a number in one pass forward for obs [B, *obs], of dense layers and convolutions."""
        weights = ((getattr(layer, "weight", None), output) for layer, output in self._outputs(self.params, obs))
        # Each number that such a layer returns is a sum over the weights of one output unit.
        return sum(w[0].numel() * output.numel() for w, output in weights if w is not None and w.dim() > 1)

    def _outputs(self, params: Tensor, obs: Tensor) -> list[tuple[nn.Module, Tensor]]:
        """The layers in the order in which a pass forward calls them, each with its output."""
        found: list[tuple[nn.Module, Tensor]] = []
        layers = [module for module in self._module.modules() if not list(module.children())]
        hooks = [
            layer.register_forward_hook(lambda module, _, output: found.append((module, output))) for layer in layers
        ]
        try:
            self.apply(params, obs)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def in_numpy(self, stacked: Tensor) -> InNumpy | None:
        """M networks with the parameters `stacked` [M, P] on the same memory, in NumPy, where the module offers it."""
        make: Callable[..., InNumpy | None] | None = getattr(self._module, "in_numpy", None)
        if make is None or stacked.device.type != "cpu":
            return None
        pieces = zip(self._names, torch.split(stacked, self._sizes, -1), self._shapes, strict=True)
        return make({name: piece.view(-1, *shape).numpy() for name, piece, shape in pieces})

    def perturbed(self, params: Tensor, noise: Tensor) -> Tensor:
        """The parameters [P] with which `apply` computes under `noise` [E]; differentiable in `params` [P]."""
        moved = self._noise.added(self.named(params), noise)
        return torch.cat([moved[name].reshape(-1) for name in self._names])

    def module(self) -> nn.Module:
        """A copy of the module, with parameters of its own."""
        return copy.deepcopy(self._module)

    def named(self, params: Tensor) -> dict[str, Tensor]:
        """Views of `params` [P] by parameter name, in the module's own shapes."""
        pieces = torch.split(params, self._sizes)
        return {name: piece.view(shape) for name, piece, shape in zip(self._names, pieces, self._shapes, strict=True)}

    def _slot(self, name: str) -> tuple[dict[str, Any], str]:
        """The dict entry through which a submodule reads the parameter called `name`."""
        path, _, attribute = name.rpartition(".")
        return self._module.get_submodule(path)._parameters, attribute

    def state_dict(self, params: Tensor | None = None) -> dict[str, Tensor]:
        """Copies by parameter name, of `params` [P] or the network's own."""
        return {name: view.clone() for name, view in self.named(self.params if params is None else params).items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copies in place; raises as `flatten` does."""
        self.params.copy_(self.flatten(state))

    def flatten(self, state: Mapping[str, Tensor]) -> Tensor:
        """The inverse of `state_dict`: params [P] on the network's device.

        Raises:
            ValueError: names or shapes differ from this network's.
        """
        expected = {name: tuple(shape) for name, shape in zip(self._names, self._shapes, strict=True)}
        found = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if expected != found:
            raise ValueError(f"the weights do not fit the network: {_difference(expected, found)}")
        return _concatenated([state[name].to(self.params) for name in self._names])


def _difference(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The first one between the shapes of a network's arrays and those of weights, by name."""
    name = next(name for name in (*expected, *found) if expected.get(name) != found.get(name))
    if name not in found:
        return f"{name} is missing"
    if name not in expected:
        return f"it has no {name}"
    return f"{name} has the shape {expected[name]}, and in the file {found[name]}"


def _concatenated(tensors: Sequence[Tensor]) -> Tensor:
    """Their numbers [P], one tensor after the other."""
    if tensors[0].device.type == "meta":
        # Here torch.cat imports the whole compiler, seconds of every `resume` and `evaluate`.
        return torch.empty(sum(tensor.numel() for tensor in tensors), dtype=tensors[0].dtype, device="meta")
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
