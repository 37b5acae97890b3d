"""Gradient steps of any algorithm: all members, in place, eager, compiled or captured.

Everything that a call needs is found in its memory at a cursor that it moves on, so that many calls follow each other
without the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from rltrain.compute.compiling import Bound
from rltrain.compute.exchange import Exchange
from rltrain.engine.algorithm import Algorithm, Learned, State
from rltrain.engine.protocol import AgentContext, mean_metrics
from rltrain.maths.optimizers import eager_gradient, functional_gradient
from rltrain.maths.target_update import polyak

Knobs = dict[str, Tensor]
"""The algorithm's `knobs`, and `tau` where the targets follow every gradient step; each [], of a population [M]."""
Update = Callable[[State, Any, Knobs], Learned]


class Experience(Protocol):
    """A source of batches. Both methods are part of the program and work on its `memory`."""

    def batches(self, memory: Any, uniform: Tensor) -> Iterator[tuple[Any, Any]]:
        """Rows and batch of K gradient steps, of draws [K, M, B] from [0, 1)."""
        ...

    def feedback(self, memory: Any, rows: Any, feedback: Mapping[str, Tensor]) -> None:
        """Takes the update's results per row, such as TD errors."""
        ...


class Learning(NamedTuple):
    """The tensors that a call reads and writes. A single run has no axis M in `uniform` and `metrics`."""

    state: State  # written
    memory: Any  # the experience's, written where it learns from feedback
    knobs: Knobs
    uniform: Tensor  # [C, K, M, B] float64, draws from [0, 1) for C calls
    call: Tensor  # [1] int64, written: which of the C is next
    metrics: Tensor  # [C, METRICS, M], written


def make_learn(algorithm: Algorithm, update: Update, experience: Experience) -> Callable[[Learning], None]:
    """K gradient steps of all members, in place: one program when compiled. Batches are gathered inside."""

    def learn(memory: Learning) -> None:
        uniform = memory.uniform.index_select(0, memory.call).squeeze(0)  # [K, M, B]
        state, steps = memory.state, []
        for rows, batch in experience.batches(memory.memory, uniform):
            state, metrics, feedback = update(state, batch, memory.knobs)
            experience.feedback(memory.memory, rows, feedback)
            steps.append(metrics)
            if "tau" in memory.knobs:
                state = follow(state, memory.knobs["tau"].unsqueeze(-1))  # [1] or [M, 1]
        means = mean_metrics(steps)
        for old, value in zip(memory.state.tensors(), state.tensors(), strict=True):
            if value is not old:
                old.copy_(value)
        found = torch.stack([means[tag] for tag in algorithm.metrics])  # [METRICS, M]
        memory.metrics.index_copy_(0, memory.call, found.to(memory.metrics.dtype).unsqueeze(0))
        memory.call.add_(1)

    def follow(state: State, tau: Tensor) -> State:
        networks = state.networks
        moved = {target: polyak(networks[target], networks[own], tau) for target, own in algorithm.follows.items()}
        return state._replace(networks={**networks, **moved})

    return learn


class Learner:
    """Calls of K gradient steps each, which follow each other without waiting for the device."""

    def __init__(
        self,
        context: AgentContext,
        algorithm: Algorithm,
        state: State,
        knobs: Knobs,
        experience: Experience,
        memory: Any,
        members: int,
        draws: int,
        steps: int = 1,
        most_calls: int = 1,
    ) -> None:
        """`draws` of each gradient step are made on the host; `steps` is K; `most_calls` C are prepared together."""
        self._members, self._steps = members, steps
        self._tags = algorithm.metrics
        axis = () if self._members == 1 else (self._members,)
        self._draws = Exchange(
            {
                "uniform": ((most_calls, steps, *axis, draws), torch.float64),
                "call": ((1,), torch.int64),
            },
            context.device,
        )
        self._metrics = Exchange({"metrics": ((most_calls, len(self._tags), *axis), torch.float32)}, context.device)
        on_device, metrics = self._draws.on_device, self._metrics.on_device["metrics"]
        learning = Learning(state, memory, knobs, on_device["uniform"], on_device["call"], metrics)
        functional: Update = partial(algorithm.learn, gradient=functional_gradient)
        eager: Update = partial(algorithm.learn, gradient=eager_gradient)
        if self._members > 1:
            functional = eager = torch.vmap(functional)
        self.program = Bound(
            make_learn(algorithm, functional, experience),
            make_learn(algorithm, eager, experience),
            (learning,),
            cuda_graphs=context.cuda_graphs,
        )

    def prepare(self, calls: int, uniform: np.ndarray) -> None:
        """Takes draws from [0, 1), [M, calls * K * draws], for the next calls."""
        host = self._draws.host
        of_calls = uniform.reshape(self._members, calls, self._steps, host["uniform"].shape[-1])
        host["uniform"][:calls] = of_calls[0] if self._members == 1 else of_calls.transpose(1, 2, 0, 3)
        host["call"][:] = 0
        self._draws.send()

    def learn(self) -> None:
        """The next call."""
        self.program()

    def metrics(self, calls: int) -> dict[str, Tensor]:
        """Their means over the calls since `prepare`, each [] or [M], on the device."""
        found = self._metrics.on_device["metrics"]
        means = found[0].clone() if calls == 1 else found[:calls].mean(0)
        return dict(zip(self._tags, means.unbind(), strict=True))

    def fetch(self, calls: int) -> np.ndarray:
        """[calls, METRICS, M] or [calls, METRICS], of the calls since `prepare`; waits for them."""
        return self._metrics.fetch()["metrics"][:calls]
