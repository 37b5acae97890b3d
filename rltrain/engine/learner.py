"""Gradient steps of any algorithm: all members, in place, eager, compiled or captured.

Each call reads its inputs from memory on the device, at a cursor that it advances, so that many calls run without
waiting for the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from rltrain.compute.compiling import Bound
from rltrain.compute.staging import StagingBuffers
from rltrain.engine.algorithm import Algorithm, Learned, State
from rltrain.engine.protocol import AgentContext
from rltrain.maths.optimizers import eager_gradient, functional_gradient
from rltrain.maths.target_update import polyak

Knobs = dict[str, Tensor]
"""The algorithm's `knobs`, and `tau` where the targets follow every gradient step; each [], of a population [M]."""
Update = Callable[[State, Any, Knobs], Learned]


class Experience(Protocol):
    """A source of batches. Both methods are part of the program and work on its `memory`."""

    def batches(self, memory: Any, draws: Tensor) -> Iterator[tuple[Any, Any]]:
        """Rows and batch of K gradient steps, of draws [K, M, B], or [K, B]."""
        ...

    def feedback(self, memory: Any, rows: Any, feedback: Mapping[str, Tensor]) -> None:
        """Takes the update's results per row, such as TD errors."""
        ...


class Learning(NamedTuple):
    """The tensors that a call reads and writes. A single run has no axis M in `draws` and `metrics`."""

    state: State  # written
    memory: Any  # the experience's, written where it learns from feedback
    knobs: Knobs
    draws: Tensor  # [C, K, M, B], what the host has drawn for C calls
    more: dict[str, Tensor]  # the algorithm's `learning_draws`, and knobs that fall, each [C, K, M, *shape]
    call: Tensor  # [1] int64, written: which of the C is next
    metrics: Tensor  # [C, METRICS, M], written


def make_learn(algorithm: Algorithm, update: Update, experience: Experience) -> Callable[[Learning], None]:
    """K gradient steps of all members, in place: one program when compiled. Batches are gathered inside."""

    def learn(memory: Learning) -> None:
        draws = memory.draws.index_select(0, memory.call).squeeze(0)  # [K, M, B]
        more = {name: drawn.index_select(0, memory.call).squeeze(0) for name, drawn in memory.more.items()}
        state = memory.state
        steps: list[dict[str, Tensor]] = []  # `list[...]()` is what Dynamo cannot trace
        for rows, batch in experience.batches(memory.memory, draws):
            own = {name: drawn[len(steps)] for name, drawn in more.items()}  # [M, *shape]
            state, metrics, feedback = update(state, batch, {**memory.knobs, **own})
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


def mean_metrics(steps: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each tag over several gradient steps, [] or [M]; {} of none."""
    if len(steps) < 2:
        return steps[0] if steps else {}
    return {tag: torch.stack([metrics[tag] for metrics in steps]).mean(0) for tag in steps[0]}


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
        draw_type: torch.dtype = torch.float64,
        more: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        """
        Args:
            draws: random numbers of a gradient step, drawn on the host.
            steps: K, gradient steps of a call.
            most_calls: C, the most calls that are prepared together.
            more: shapes of the further inputs of a gradient step that come from the host.
        """
        self._members, self._steps = members, steps
        self._tags = algorithm.metrics
        axis = () if self._members == 1 else (self._members,)
        self._shapes = {"draws": (draws,), **(more or {})}  # of one gradient step of one member
        forms = {name: ((most_calls, steps, *axis, *shape), torch.float32) for name, shape in self._shapes.items()}
        forms |= {"draws": (forms["draws"][0], draw_type), "call": ((1,), torch.int64)}
        self._draws = StagingBuffers(forms, context.device)
        self._metrics = StagingBuffers(
            {"metrics": ((most_calls, len(self._tags), *axis), torch.float32)}, context.device
        )
        on_device, metrics = self._draws.on_device, self._metrics.on_device["metrics"]
        drawn = {name: on_device[name] for name in more or {}}
        learning = Learning(state, memory, knobs, on_device["draws"], drawn, on_device["call"], metrics)
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

    def prepare(self, calls: int, draws: np.ndarray, more: Mapping[str, np.ndarray] | None = None) -> None:
        """Takes the draws [M, calls * K * draws] of the next calls, and `more` of the same form."""
        host = self._draws.host
        for name, drawn in {"draws": draws, **(more or {})}.items():
            host[name][:calls] = self._by_call(drawn, calls, self._shapes[name])
        host["call"][:] = 0
        self._draws.send()

    def _by_call(self, drawn: np.ndarray, calls: int, shape: tuple[int, ...]) -> np.ndarray:
        """[M, calls * K * B], a member's draws one after the other -> [calls, K, M, B], those of a gradient step
        together; of a single run [calls, K, B]. B stands for `shape`."""
        of_members = drawn.reshape(self._members, calls, self._steps, *shape)  # [M, calls, K, B]
        return of_members[0] if self._members == 1 else np.moveaxis(of_members, 0, 2)

    def learn(self) -> None:
        """The next call."""
        self.program()

    def metrics(self, calls: int, since: int = 0) -> dict[str, Tensor]:
        """Their means over the calls from `since` to `calls` since `prepare`, each [] or [M], on the device."""
        found = self._metrics.on_device["metrics"][since:calls]
        means = found[0].clone() if len(found) == 1 else found.mean(0)
        return dict(zip(self._tags, means.unbind(), strict=True))

    def metrics_of(self, calls: np.ndarray) -> dict[str, Tensor]:
        """The same where members have made different numbers of `calls` [M], each at least one."""
        if (calls == calls[0]).all():
            return self.metrics(int(calls[0]))
        found = self._metrics.on_device["metrics"]  # [C, METRICS, M]
        counts = torch.from_numpy(calls).to(found.device)
        counted = torch.arange(len(found), device=found.device)[:, None, None] < counts
        means = torch.where(counted, found, 0.0).sum(0) / counts
        return dict(zip(self._tags, means.unbind(), strict=True))

    def fetch(self, calls: int) -> np.ndarray:
        """[calls, METRICS, M] or [calls, METRICS], of the calls since `prepare`; waits for them."""
        return self._metrics.fetch()["metrics"][:calls]
