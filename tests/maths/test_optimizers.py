"""The optimisers against torch.optim, gradient clipping against torch.nn.utils."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small_runs import optimizer
from torch import Tensor

from rltrain.config.schema import OptimizerConfig
from rltrain.maths.optimizers import clip_gradient, eager_gradient, functional_gradient, init_optimizer, optimizer_step

STEPS, SIZE = 50, 12
CLASSES: dict[str, Any] = {
    "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "radam": torch.optim.RAdam, "rmsprop": torch.optim.RMSprop,
}  # fmt: skip
CASES = [
    (name, weight_decay, amsgrad)
    for name in CLASSES
    for weight_decay in (0.0, 0.05)
    for amsgrad in ((False, True) if name in ("adam", "adamw") else (False,))
]


def gradients(dtype: torch.dtype) -> list[Tensor]:
    """Shrinking, so that amsgrad's maximum is not the present moment; some exactly zero."""
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(SIZE, generator=generator, dtype=torch.float64) / (1 + k) for k in range(STEPS)]
    for grad in grads:
        grad[0] = 0.0
    return [grad.to(dtype) for grad in grads]


def torch_reference(config: OptimizerConfig, start: Tensor, grads: list[Tensor]) -> list[Tensor]:
    parameter = torch.nn.Parameter(start.clone())
    keys: dict[str, Any] = {"lr": config.lr, "eps": config.eps, "weight_decay": config.weight_decay, "foreach": False}
    if config.amsgrad:
        keys["amsgrad"] = True
    reference = CLASSES[config.name]([parameter], **keys)
    trace = []
    for grad in grads:
        parameter.grad = grad.clone()
        reference.step()
        trace.append(parameter.detach().clone())
    return trace


@pytest.mark.parametrize(("name", "weight_decay", "amsgrad"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_fifty_steps_equal_torch_optim(
    name: str, weight_decay: float, amsgrad: bool, dtype: torch.dtype, tolerance: float
) -> None:
    config = optimizer(name, lr=0.03, eps=1e-3, weight_decay=weight_decay, amsgrad=amsgrad)
    params = torch.linspace(-1.0, 1.0, SIZE, dtype=dtype)
    grads = gradients(dtype)
    state, lr = init_optimizer(config, params), torch.tensor(config.lr, dtype=dtype)
    for grad, expected in zip(grads, torch_reference(config, params, grads), strict=True):
        params, state = optimizer_step(config, params, grad, state, lr)
        torch.testing.assert_close(params, expected, rtol=tolerance, atol=tolerance)
    assert state["step"].item() == STEPS


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_rmsprop_of_tensorflow_begins_with_an_average_of_one_and_has_eps_under_the_root(weight_decay: float) -> None:
    config = optimizer("rmsprop_tf", lr=0.03, eps=1e-3, weight_decay=weight_decay)
    params = torch.linspace(-1.0, 1.0, SIZE, dtype=torch.float64)
    state, lr = init_optimizer(config, params), torch.tensor(config.lr, dtype=torch.float64)
    expected, average = params.tolist(), [1.0] * SIZE
    for grad in gradients(torch.float64):
        params, state = optimizer_step(config, params, grad, state, lr)
        for i, slope in enumerate(grad.tolist()):
            slope += weight_decay * expected[i]
            average[i] = 0.99 * average[i] + 0.01 * slope**2
            expected[i] -= 0.03 * slope / math.sqrt(average[i] + 1e-3)
        torch.testing.assert_close(params, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [*CLASSES, "rmsprop_tf"])
def test_nothing_is_changed_in_place(name: str) -> None:
    config = optimizer(name, weight_decay=0.1)
    params, grad = torch.ones(SIZE), torch.ones(SIZE)
    state = init_optimizer(config, params)
    copies = {key: tensor.clone() for key, tensor in state.items()}
    optimizer_step(config, params, grad, state, torch.tensor(0.1))
    assert params.tolist() == grad.tolist() == [1.0] * SIZE
    assert all(torch.equal(state[key], copies[key]) for key in copies)


def test_each_member_of_a_batch_has_its_own_learning_rate() -> None:
    config = optimizer("adam")
    params, grad = torch.zeros(3, SIZE), torch.ones(3, SIZE)
    state = {name: torch.stack([tensor] * 3) for name, tensor in init_optimizer(config, params[0]).items()}
    lr = torch.tensor([0.0, 0.1, 0.2])
    stepped, _ = torch.vmap(lambda p, g, s, rate: optimizer_step(config, p, g, s, rate))(params, grad, state, lr)
    torch.testing.assert_close(stepped, -lr[:, None].expand(3, SIZE))  # Adam's first step is lr * sign(gradient)


@pytest.mark.parametrize("max_norm", [0.5, 1e9])
def test_clipping_by_norm_equals_torch(max_norm: float) -> None:
    grad = torch.randn(SIZE)
    parameter = torch.nn.Parameter(torch.zeros(SIZE))
    parameter.grad = grad.clone()
    norm = torch.nn.utils.clip_grad_norm_([parameter], max_norm)
    clipped, found = clip_gradient(grad, torch.tensor(max_norm), None)
    torch.testing.assert_close(clipped, parameter.grad)
    torch.testing.assert_close(found, norm)


def test_values_are_clipped_first_and_the_norm_is_the_one_before() -> None:
    grad = torch.tensor([3.0, -4.0, 0.5])
    clipped, norm = clip_gradient(grad, None, torch.tensor(1.0))
    assert clipped.tolist() == [1.0, -1.0, 0.5]
    assert norm.item() == pytest.approx(25.25**0.5)
    clipped, norm = clip_gradient(grad, torch.tensor(0.75), torch.tensor(1.0))
    torch.testing.assert_close(clipped, torch.tensor([0.5, -0.5, 0.25]))  # norm 1.5, halved
    assert norm.item() == pytest.approx(25.25**0.5)
    clipped, norm = clip_gradient(grad, None, None)
    assert clipped.tolist() == grad.tolist()


@pytest.mark.parametrize("gradient", [eager_gradient, functional_gradient])
def test_both_gradients_of_a_function_with_metrics(gradient: Any) -> None:
    def loss_fn(params: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return (params**3).sum(), {"first": params.detach()[0]}

    params = torch.tensor([1.0, -2.0])
    with torch.no_grad():  # as in the agents
        grad, metrics = gradient(loss_fn, params)
    assert grad.tolist() == [3.0, 12.0]
    assert metrics["first"].item() == 1.0
    assert not grad.requires_grad
    assert not params.requires_grad
    assert params.grad is None
