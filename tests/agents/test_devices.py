"""Everything that an agent computes with lies on its device: shown without a GPU.

Two checks, since each misses something. On a device that is not the CPU (torch's fake tensors, which compute shapes and
devices only) an operation that mixes devices fails, but a number of shape [] from the CPU is let through, as on CUDA.
So a second check reads the call of each function that makes a tensor.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import (
    BOX,
    DISCRETE,
    IMAGES,
    STATES,
    VECTOR,
    ScriptedEnvs,
    dqn_config,
    drive,
    make_agent,
    reinforce_config,
    run_config,
)
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode

import rltrain
from rltrain.config.schema import AlgoConfig
from rltrain.types import ActionSpec, ObservationSpec

CASES: list[tuple[AlgoConfig, ObservationSpec, ActionSpec]] = [
    (dqn_config(train_period=2), VECTOR, DISCRETE),
    (dqn_config(train_period=2, n_step=3, max_grad_value=1.0, loss="mse", double=False), STATES, DISCRETE),
    (dqn_config(train_period=2, buffer_size=9), IMAGES, DISCRETE),
    (reinforce_config(episodes_per_update=2), VECTOR, DISCRETE),
    (reinforce_config(normalize_returns="episode", baseline="mean"), IMAGES, DISCRETE),
    (reinforce_config(baseline="none", loss_reduction="sum"), STATES, BOX),
]
ELSEWHERE = torch.device("meta")


def move_module(module: nn.Module, device: torch.device) -> nn.Module:
    """What `Module.to` does; its own way exchanges the tensors' memory, which fake ones do not have."""
    for owner in module.modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                owner._parameters[name] = nn.Parameter(parameter.detach().to(device))
    return module


def fetch(tensor: Tensor) -> Any:
    """What `.cpu().numpy()` brings back from a device: zeros of that shape."""
    assert isinstance(tensor, FakeTensor)
    dtype = str(tensor.dtype).removeprefix("torch.")
    return SimpleNamespace(numpy=lambda: np.zeros(tuple(tensor.shape), dtype))


@contextmanager
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(nn.Module, "to", move_module)
    monkeypatch.setattr(Tensor, "cpu", fetch)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


@pytest.mark.parametrize(("algo", "observation", "action"), CASES)
def test_no_operation_mixes_the_agents_device_with_the_cpu(
    algo: AlgoConfig, observation: ObservationSpec, action: ActionSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    with elsewhere(monkeypatch):
        agent = make_agent(run_config(algo, num_envs=2), observation, action, ELSEWHERE)
        envs = ScriptedEnvs(2, observation)
        metrics = next(step for step in drive(agent, envs, 100) if step)
        list(drive(agent, envs, 1))  # acts with what the update made, and for DQN updates once more
        agent.act_greedy(envs.obs)
        assert {value.device for value in metrics.values()} == {ELSEWHERE}
        state = agent.state_dict()
        for section in ("network", "optimizer"):
            assert {tensor.device for tensor in state[section].values()} == {ELSEWHERE}


def test_an_operation_that_mixes_devices_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with elsewhere(monkeypatch), pytest.raises(RuntimeError, match="same device"):
        torch.zeros(3, device=ELSEWHERE) + torch.from_numpy(np.zeros(3))


FACTORIES = {
    "tensor", "as_tensor", "asarray", "scalar_tensor", "zeros", "ones", "empty", "full", "arange", "linspace", "eye",
    "rand", "randn", "randint", "randperm", "normal", "tril_indices", "triu_indices", "empty_strided",
}  # fmt: skip
OWN_CODE = str(Path(rltrain.__file__).parent)


class RequireDevice(TorchFunctionMode):
    """Notes each tensor that the trainer's own code makes without saying where."""

    def __init__(self) -> None:
        super().__init__()
        self.checked: set[str] = set()
        self.forgotten: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        caller = sys._getframe(1)
        if name in FACTORIES and caller.f_code.co_filename.startswith(OWN_CODE):
            self.checked.add(name)
            if kwargs.get("device") is None:
                self.forgotten.append(f"torch.{name} in {caller.f_code.co_filename}:{caller.f_lineno}")
        return func(*args, **kwargs)


@pytest.mark.parametrize(("algo", "observation", "action"), CASES)
def test_every_tensor_is_made_with_its_device(
    algo: AlgoConfig, observation: ObservationSpec, action: ActionSpec, device: torch.device
) -> None:
    with RequireDevice() as mode:
        agent = make_agent(run_config(algo, num_envs=2), observation, action, device)
        envs = ScriptedEnvs(2, observation)
        assert any(list(drive(agent, envs, 40)))
        agent.act_greedy(envs.obs)
    assert mode.forgotten == []
    assert {"tensor", "zeros"} <= mode.checked


def test_a_forgotten_device_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "OWN_CODE", str(Path(__file__).parent))
    with RequireDevice() as mode:
        torch.tensor(1.0)
        torch.tensor(1.0, device="cpu")
    assert len(mode.forgotten) == 1
