"""The requirements on a network's module, which a plug-in's may miss: it is asked when it is built, once."""

from __future__ import annotations

import torch
from torch import nn


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


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
