"""The requirements on a network's module, which a plug-in's may miss: it is asked when it is built, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from rltrain.errors import RequestError, one_line
from rltrain.terminal.places import at_origin
from rltrain.types import ObservationSpec

_LONGEST = 160
"""Characters of a plug-in's exception: torch's own messages go on for paragraphs."""


def called(function: Callable[..., Any], *args: Any) -> Any:
    """Calls a plug-in's own code.

    Raises:
        ValueError: with the type and the place of the exception that it raised.
        RequestError: it raised one.
    """
    try:
        return function(*args)
    except RequestError:
        raise
    except Exception as error:
        raise ValueError(f"{one_line(error, _LONGEST)}{at_origin(error)}") from error


def check_parameters(module: nn.Module) -> None:
    """Whether one vector can hold all that the module learns.

    Raises:
        ValueError: it is no module; it has no parameters, or buffers (batch normalisation, say), which a pure update
            has nowhere to keep; or a parameter is in two places, frozen, or of another type than the others.
    """
    kind = type(module).__name__
    if not isinstance(module, nn.Module):
        raise ValueError(f"a network must be a torch.nn.Module, {kind} is none")
    named = dict(module.named_parameters())
    if buffers := [name for name, _ in module.named_buffers()]:
        raise ValueError(f"a network may hold parameters only, {kind} has buffers: {buffers}")
    if not named:
        raise ValueError(f"a network must have parameters, {kind} has none")
    if len(named) != len(list(module.named_parameters(remove_duplicate=False))):
        raise ValueError(f"a network may not share a parameter between layers, {kind} does")
    if frozen := [name for name, parameter in named.items() if not parameter.requires_grad]:
        raise ValueError(
            f"a network's parameters are all trained, as one vector, {kind} has some with requires_grad=False: {frozen}"
        )
    float_type = torch.get_default_dtype()
    if others := {name: p.dtype for name, p in named.items() if p.dtype != float_type}:
        name, found = next(iter(others.items()))
        raise ValueError(
            f"the parameters of a network must be {_name(float_type)}, {kind} has {name} of {_name(found)}"
        )


def check_plugin(module: nn.Module, observation: ObservationSpec, outputs: int) -> None:
    """Whether a module that is not one of ours is a network; passes forward a few observations.

    Raises:
        ValueError: as `check_parameters`; it raised an exception; its output is none of float32 numbers [B, outputs];
            or it is random, which neither greedy evaluation, exact resuming nor `torch.vmap` bears.
    """
    check_parameters(module)
    if any(parameter.is_meta for parameter in module.parameters()):
        return  # numbers of weights are compared, and there is nothing to compute with
    for rows in (1, 3):  # one, too: what is squeezed away then
        _check_output(module, _example(observation, rows), outputs)
    _check_repeatable(module, _example(observation, 3))


def check_together(apply: Callable[[Tensor, Tensor], Tensor], params: Tensor, observation: ObservationSpec) -> None:
    """Whether `torch.vmap` takes a network, which knows no Python number of what a tensor holds.

    Raises:
        ValueError: it does not.
    """
    obs = _example(observation, 3).to(params.device)
    with torch.no_grad():
        called(torch.vmap(apply), torch.stack([params, params]), torch.stack([obs, obs]))


def _check_output(module: nn.Module, obs: Tensor, outputs: int) -> None:
    with torch.no_grad():
        output: object = called(module, obs)
    wanted = [len(obs), outputs]
    if isinstance(output, Tensor) and list(output.shape) == wanted and output.dtype == torch.get_default_dtype():
        return
    found = type(output).__name__
    if isinstance(output, Tensor):
        found = f"{_name(output.dtype)} {list(output.shape)}"
    raise ValueError(
        f"a network must give {_name(torch.get_default_dtype())} [B, outputs], here {wanted}, "
        f"{type(module).__name__} gives {found}"
    )


def _check_repeatable(module: nn.Module, obs: Tensor) -> None:
    with torch.no_grad():
        before = torch.default_generator.get_state()
        first = called(module, obs)
        # A last layer that starts as zeros hides in the outputs that there was a draw.
        drew = not torch.equal(before, torch.default_generator.get_state())
        if not drew and torch.allclose(first, called(module, obs), equal_nan=True):
            return
    layers = [f"{name} is {layer}" for name, layer in module.named_modules() if isinstance(layer, _DropoutNd)]
    which = f": {', '.join(layers)}" if layers else ""
    raise ValueError(
        f"a network must give the same output for the same observation, {type(module).__name__} is random{which}"
    )


def _example(observation: ObservationSpec, rows: int) -> Tensor:
    """Observations [rows, *obs] that any network takes."""
    make = torch.zeros if observation.kind == "discrete" else torch.ones
    return make(rows, *observation.shape, dtype=getattr(torch, observation.dtype))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
