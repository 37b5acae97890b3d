"""Adam, AdamW, RAdam and RMSprop as pure functions of one parameter vector.

The learning rate and the step count are tensors, so members of a population each have their own and nothing recompiles.
The results equal `torch.optim` up to rounding (tests/maths/test_optimizers.py); `rmsprop_tf` is TensorFlow's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch._functorch.eager_transforms import (
    _create_differentiable,
    _undo_create_differentiable,
    _wrap_all_tensors,
    grad_increment_nesting,
)

from rltrain.config.schema import OptimizerConfig

OptimizerState = dict[str, Tensor]
_BETA1, _BETA2 = 0.9, 0.999
_RMSPROP_ALPHA = 0.99


def init_optimizer(config: OptimizerConfig, params: Tensor) -> OptimizerState:
    """Moments, each [P], zero but for `rmsprop_tf`'s, which are one; and the step count []."""
    names = ["square_avg"] if config.name in ("rmsprop", "rmsprop_tf") else ["exp_avg", "exp_avg_sq"]
    if config.amsgrad:
        names = [*names, "max_exp_avg_sq"]
    first = 1.0 if config.name == "rmsprop_tf" else 0.0
    state = {name: torch.full_like(params, first) for name in names}
    return {"step": torch.zeros((), dtype=params.dtype, device=params.device), **state}


def optimizer_step(
    config: OptimizerConfig, params: Tensor, grad: Tensor, state: OptimizerState, lr: Tensor
) -> tuple[Tensor, OptimizerState]:
    """One step: params [P], grad [P], lr [] -> new params [P], new state. Nothing is changed in place."""
    return OPTIMIZERS[config.name](config, params, grad, state, lr)


def _adam(
    config: OptimizerConfig, params: Tensor, grad: Tensor, state: OptimizerState, lr: Tensor
) -> tuple[Tensor, OptimizerState]:
    """Kingma & Ba 2015, algorithm 1; with `amsgrad` Reddi et al. 2018, algorithm 2."""
    if config.weight_decay and config.name == "adam":
        grad = grad + config.weight_decay * params
    if config.weight_decay and config.name == "adamw":
        params = params * (1.0 - lr * config.weight_decay)
    step = state["step"] + 1.0
    exp_avg = torch.lerp(state["exp_avg"], grad, 1.0 - _BETA1)
    exp_avg_sq = torch.addcmul(_BETA2 * state["exp_avg_sq"], grad, grad, value=1.0 - _BETA2)
    new_state = {"step": step, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
    second_moment = exp_avg_sq
    if config.amsgrad:
        second_moment = torch.maximum(state["max_exp_avg_sq"], exp_avg_sq)
        new_state["max_exp_avg_sq"] = second_moment
    denominator = second_moment.sqrt() / _bias_correction(_BETA2, step).sqrt() + config.eps
    return params - (lr / _bias_correction(_BETA1, step)) * exp_avg / denominator, new_state


def _bias_correction(beta: float, step: Tensor) -> Tensor:
    # 1 - beta**step loses four digits in float32 at the first steps, where it matters most; expm1 does not.
    return _once(-torch.expm1(step * math.log(beta)))


def _once(number: Tensor) -> Tensor:
    """`number` [] itself, written so that code compiled for the CPU computes it once: the maximum of eight copies is a
    reduction, whose result is stored. What is pointwise is computed again for every few parameters that use it; an
    exponential among it costs a twentieth of an update."""
    return number.expand(8, *number.shape).amax(0) if number.device.type == "cpu" else number


def _radam(
    config: OptimizerConfig, params: Tensor, grad: Tensor, state: OptimizerState, lr: Tensor
) -> tuple[Tensor, OptimizerState]:
    """Liu et al. 2020, algorithm 2: Adam, but for the first steps, in which too few gradients have been seen for a
    second moment, momentum alone. As PyTorch has it, eps is added before the bias of the root is taken out."""
    if config.weight_decay:
        grad = grad + config.weight_decay * params
    step = state["step"] + 1.0
    exp_avg = torch.lerp(state["exp_avg"], grad, 1.0 - _BETA1)
    exp_avg_sq = torch.addcmul(_BETA2 * state["exp_avg_sq"], grad, grad, value=1.0 - _BETA2)
    correction, longest = _bias_correction(_BETA2, step), 2.0 / (1.0 - _BETA2) - 1.0
    length = longest - 2.0 * step * (1.0 - correction) / correction  # of the average, in gradients
    known = length.clamp(min=5.0)
    rectification = (known - 4) * (known - 2) * longest / ((longest - 4) * (longest - 2) * known)
    adaptive = _once((rectification * correction).sqrt()) / (exp_avg_sq.sqrt() + config.eps)  # [P]
    rate = _once(lr / _bias_correction(_BETA1, step))
    params = params - rate * exp_avg * torch.where(length > 5.0, adaptive, 1.0)
    return params, {"step": step, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}


def _rmsprop(
    config: OptimizerConfig, params: Tensor, grad: Tensor, state: OptimizerState, lr: Tensor
) -> tuple[Tensor, OptimizerState]:
    """Tieleman & Hinton 2012, as PyTorch has it, eps added after the root to an average that begins at 0: the first
    step is ten times the learning rate, however small the gradient. As TensorFlow had it (`rmsprop_tf`), eps under the
    root of an average that begins at 1, it is that times the gradient: what A2C on Atari was tuned with."""
    if config.weight_decay:
        grad = grad + config.weight_decay * params
    square_avg = torch.addcmul(_RMSPROP_ALPHA * state["square_avg"], grad, grad, value=1.0 - _RMSPROP_ALPHA)
    new_state = {"step": state["step"] + 1.0, "square_avg": square_avg}
    tensorflow = config.name == "rmsprop_tf"
    root = (square_avg + config.eps).sqrt() if tensorflow else square_avg.sqrt() + config.eps
    return params - lr * grad / root, new_state


OPTIMIZERS: dict[str, Callable[..., tuple[Tensor, OptimizerState]]] = {
    "adam": _adam,
    "adamw": _adam,
    "radam": _radam,
    "rmsprop": _rmsprop,
    "rmsprop_tf": _rmsprop,
}


def clip_gradient(grad: Tensor, max_norm: Tensor | None, max_value: Tensor | None) -> tuple[Tensor, Tensor]:
    """Clips values, then the norm, where a bound is given: grad [P] -> clipped [P], norm before any clipping []."""
    norm = torch.linalg.vector_norm(grad)
    if max_value is not None:
        grad = torch.clamp(grad, -max_value, max_value)
    if max_norm is not None:
        clipped_norm = norm if max_value is None else torch.linalg.vector_norm(grad)
        grad = grad * _once(torch.clamp(max_norm / (clipped_norm + 1e-6), max=1.0))
    return grad, norm


def descend(
    config: OptimizerConfig, params: Tensor, grad: Tensor, state: OptimizerState, knobs: Mapping[str, Tensor]
) -> tuple[Tensor, OptimizerState, Tensor]:
    """One step by `lr` down the gradient, clipped by `max_grad_norm` and `max_grad_value` where `knobs` [] has them:
    new params [P], new state, norm before any clipping []."""
    grad, norm = clip_gradient(grad, knobs.get("max_grad_norm"), knobs.get("max_grad_value"))
    return *optimizer_step(config, params, grad, state, knobs["lr"]), norm


Gradient = Callable[[Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]], Tensor], tuple[Tensor, dict[str, Tensor]]]
"""(loss function of params [P] -> (loss [], metrics), params [P]) -> (gradient [P], metrics)."""


def eager_gradient(
    loss_fn: Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]], params: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The gradient by plain autograd: half the time of `torch.func.grad` when nothing is compiled or batched."""
    leaf = params.detach().requires_grad_(True)
    with torch.enable_grad():
        loss, metrics = loss_fn(leaf)
    (grad,) = torch.autograd.grad(loss, leaf)
    return grad, metrics


def functional_gradient(
    loss_fn: Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]], params: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The same gradient where the update itself is transformed: under `vmap` and in a compiled graph. It is that of
    `torch.func.grad`, which imports torch's compiler to keep it away: a second that a population waited for."""
    if torch.compiler.is_dynamo_compiling():
        return torch.func.grad(loss_fn, has_aux=True)(params)  # type: ignore[no-any-return]
    with grad_increment_nesting() as level, torch.enable_grad():
        leaf = _create_differentiable(_wrap_all_tensors(params, level), level)
        loss, metrics = loss_fn(leaf)
        (grad,) = torch.autograd.grad(loss, leaf, create_graph=True)  # else it would leave this level
        found = {tag: _undo_create_differentiable(value, level) for tag, value in metrics.items()}
        return _undo_create_differentiable(grad, level), found
