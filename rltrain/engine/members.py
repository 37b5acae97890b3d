"""One network per member of a population, their parameters stacked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from rltrain.compute.compiling import Bound
from rltrain.compute.staging import StagingBuffers
from rltrain.networks.flat import FlatNetwork, InNumpy

# Rows times parameters of a member: beyond, torch's products win, and NumPy's would start threads of their own.
_LARGEST_IN_NUMPY = 2**18


class MemberNetworks:
    """M networks of one structure. A single run is M = 1, without the population axis.

    `params` is [P], or [M, P]; it changes in place only. `apply(params [P], obs)` is one member's network as a pure
    function. Calling the object runs every member's own network, a noisy one without noise, on its own observations.

    Attributes:
        forward: the networks of all members as a pure function of `params`, observations [M, N, *obs] and, where they
            are noisy, noise [M, E]; of a single run without the axis M.
        noise_size: E, 0 where they are not noisy.
    """

    def __init__(self, networks: Sequence[FlatNetwork], cuda_graphs: bool = False) -> None:
        self._first = networks[0]
        self.members = len(networks)
        self.apply, self.activations = self._first.apply, self._first.activations
        self.params = self._first.params if self.members == 1 else torch.stack([n.params for n in networks])
        self.noise_size = self._first.noise_size
        self.forward: Callable[..., Tensor] = self._apply if self.members == 1 else torch.vmap(self._apply)
        self._numpy = self._first.in_numpy(self.params.view(self.members, -1))
        self._cuda_graphs, self._compiles = cuda_graphs, False
        self._program: ActingProgram | None = None

    def _apply(self, params: Tensor, obs: Tensor, *noise: Tensor) -> Tensor:
        return self.apply(self._first.perturbed(params, *noise) if noise else params, obs)

    def __call__(self, obs: Tensor, *noise: Tensor) -> Tensor:
        """obs [M * N, *obs], member by member, and perhaps noise [M, E] -> outputs [M * N, outputs]. For any N."""
        return self._first(obs) if self.members == 1 and not noise else self.all(self.params, obs, *noise)

    def all(self, params: Tensor, obs: Tensor, *noise: Tensor) -> Tensor:
        """The same as a pure function of `params` [P] or [M, P]."""
        if self.members == 1:
            return self.forward(params, obs, *(of_members[0] for of_members in noise))
        return self.forward(params, obs.view(self.members, -1, *obs.shape[1:]), *noise).flatten(0, 1)

    def compile(self) -> None:
        """From the next call on, `act` is compiled where that pays."""
        self._compiles = self.members > 1 and not self._cuda_graphs

    def act(self, obs: np.ndarray, *noise: np.ndarray) -> Tensor:
        """The outputs [M * N, outputs] for observations [M * N, *obs] of an N that never changes, the fastest way;
        under noise [M, E] where it is given.

        What it returns is good until the next call.
        """
        if (found := self._in_numpy(obs, *noise)) is not None:
            return found
        with torch.no_grad():
            if self._cuda_graphs or self._compiles:
                self._program = self._program or ActingProgram(self, (obs, *noise), self._cuda_graphs)
                return self._program(obs, *noise)
            return self(*(torch.from_numpy(array).to(self.params.device) for array in (obs, *noise)))

    def outputs(self, obs: np.ndarray) -> Tensor:
        """Outputs [M * N, outputs] without noise, for observations [M * N, *obs] of any N, the fastest way."""
        if (found := self._in_numpy(obs)) is not None:
            return found
        return self(torch.from_numpy(obs).to(self.params.device))

    def outputs_of(self, members: Sequence[int], rows: int) -> Callable[[np.ndarray], Tensor] | None:
        """`outputs` of the networks of K members alone, as they are now, for observations [K * rows, *obs]: the same
        bits. None where these would not be computed in NumPy, which takes one member after the other."""
        if self._numpy is None or self._too_large_for_numpy(rows):
            return None
        forward = self._first.in_numpy(self.params.view(self.members, -1)[list(members)])
        assert forward is not None
        return partial(_of_stacked, forward, len(members))

    def _in_numpy(self, obs: np.ndarray, *noise: np.ndarray) -> Tensor | None:
        """The outputs [M * N, outputs], computed in NumPy; None where that is not the fastest way for so many rows."""
        if self._numpy is None or self._too_large_for_numpy(len(obs) // self.members):
            return None
        return _of_stacked(self._numpy, self.members, obs, *noise)

    def _too_large_for_numpy(self, rows: int) -> bool:
        return rows * self.params.shape[-1] > _LARGEST_IN_NUMPY

    def module(self) -> nn.Module:
        """The network of the only member, as a module of its own."""
        assert self.members == 1
        return self._first.module()

    def of_member(self, stacked: Tensor, member: int) -> Tensor:
        """The member's part [P] of [P] or [M, P]; a view."""
        return stacked if self.members == 1 else stacked[member]

    def state_dict(self, member: int = 0, stacked: Tensor | None = None) -> dict[str, Tensor]:
        """Copies by parameter name, of `stacked` (like `params`) or of the network's own."""
        return self._first.state_dict(self.of_member(self.params if stacked is None else stacked, member))

    def load_state_dict(self, state: Mapping[str, Tensor], member: int = 0, stacked: Tensor | None = None) -> None:
        """Copies in place, into `stacked` or the network's own; raises as `FlatNetwork.flatten` does."""
        self.of_member(self.params if stacked is None else stacked, member).copy_(self._first.flatten(state))


def _of_stacked(forward: InNumpy, members: int, obs: np.ndarray, *noise: np.ndarray) -> Tensor:
    """The outputs [M * N, outputs] of M networks in NumPy for obs [M * N, *obs], member by member."""
    outputs = forward(obs.reshape(members, -1, *obs.shape[1:]), *noise)  # [M, N, outputs]
    return torch.from_numpy(outputs.reshape(len(obs), outputs.shape[-1]))


class ActingProgram:
    """The networks of M members for inputs of one shape, as one program: captured as a CUDA graph, or compiled."""

    def __init__(self, networks: MemberNetworks, like: Sequence[np.ndarray], cuda_graphs: bool) -> None:
        """like: observations [M * N, *obs], and of noisy networks noise [M, E]."""
        device = networks.params.device
        forms = {str(number): (array.shape, torch.from_numpy(array).dtype) for number, array in enumerate(like)}
        self._inputs = StagingBuffers(forms, device)
        inputs = tuple(self._inputs.on_device.values())
        self._outputs = torch.empty_like(networks(*inputs))  # [M * N, outputs]

        def act(params: Tensor, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
            outputs.copy_(networks.all(params, *inputs))

        self._act = Bound(act, act, (networks.params, inputs, self._outputs), cuda_graphs=cuda_graphs)
        if not cuda_graphs:
            self._act.compile()

    def __call__(self, *inputs: np.ndarray) -> Tensor:
        for here, array in zip(self._inputs.host.values(), inputs, strict=True):
            here[:] = array
        self._inputs.send()
        self._act()
        return self._outputs


def stack_members(trees: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """One mapping with the members' tensors stacked along a first axis; a single member's as they are."""
    if len(trees) == 1:
        return dict(trees[0])
    return {name: torch.stack([tree[name] for tree in trees]) for name in trees[0]}


def member_of(tree: Mapping[str, Tensor], member: int, members: int) -> dict[str, Tensor]:
    """The inverse of `stack_members`: views of one member's tensors."""
    return dict(tree) if members == 1 else {name: tensor[member] for name, tensor in tree.items()}


class GreedyModule(nn.Module):
    """A network and the choice that is made from its outputs, as one module: what is exported."""

    def __init__(self, network: nn.Module, choose: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        self._choose = choose

    def forward(self, obs: Tensor) -> Tensor:
        """obs [B, *obs] -> actions [B, *action]."""
        return self._choose(self.network(obs))
