"""The agent of every algorithm that learns from whole episodes of its present parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from rltrain.engine.agent import EngineAgent
from rltrain.engine.algorithm import Algorithm
from rltrain.engine.cadence import WhenFull
from rltrain.engine.learner import Learner
from rltrain.engine.protocol import AgentContext, StateDict, with_prefix, without_prefix
from rltrain.replay.rollout import Episodes, RolloutBuffer
from rltrain.types import Episode, Transition


class OnPolicyAgent(EngineAgent):
    """Updates once it has `WhenFull.episodes`. The members of a population wait for each other: they update together,
    each from its own episodes."""

    def __init__(self, algorithms: Sequence[Algorithm], context: AgentContext) -> None:
        super().__init__(algorithms, context)
        self._context, episodes = context, cast(WhenFull, self._algorithm.cadence).episodes
        self._rollout = RolloutBuffer(episodes, self._num_envs, context.observation, context.action, self._members)
        self._knobs = self._stack_knobs()
        self._learners: dict[int, tuple[Episodes, Learner]] = {}  # by padded length: each is a program of its own

    @property
    def gradient_steps(self) -> int:
        return int(self._gradient_steps.max())

    @property
    def active(self) -> np.ndarray:
        active: np.ndarray = self._rollout.active & np.repeat(self._running, self._num_envs)
        return active

    @property
    def waiting(self) -> np.ndarray:
        waiting: np.ndarray = self._rollout.full & self._running
        return waiting

    @property
    def replay_bytes(self) -> int:
        return self._rollout.nbytes

    def _drawing(self) -> list[int]:
        # A member that waits for the others draws nothing, as the single run of its seed would not.
        return np.flatnonzero(self._running & ~self._rollout.full).tolist()

    def observe(self, transition: Transition, episodes: list[Episode]) -> None:
        self._rollout.add(transition)

    def update(self) -> dict[str, Tensor]:
        if not self._rollout.full[self._running].all():
            return {}
        memory, learner = self._learner(self._rollout.padded_length)
        self._rollout.take(memory)
        learner.prepare(1, np.empty((self._members, 0)))
        with torch.no_grad():
            learner.learn()
        self._count_gradient_steps(1)
        return learner.metrics(1)

    def _learner(self, steps: int) -> tuple[Episodes, Learner]:
        if steps not in self._learners:
            memory = self._rollout.room(steps, self._device)
            learning = self._algorithm, self._state, self._knobs, self._rollout, memory
            self._learners[steps] = memory, Learner(self._context, *learning, draws=0)
        return self._learners[steps]

    def abandon_episodes(self, envs: np.ndarray) -> None:
        self._rollout.forget(envs)

    def state_dict(self, member: int = 0) -> StateDict:
        return {
            **super().state_dict(member),
            "replay": with_prefix("rollout", self._rollout.state_dict(member)),
            "state": {
                "gradient_steps": int(self._gradient_steps[member]),
                "draws": self._acting_noise[member].state_dict(),
            },
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]], member: int = 0) -> None:
        super().load_state_dict(state, member)
        self._rollout.load_state_dict(without_prefix("rollout", state["replay"]), member)
        self._gradient_steps[member] = state["state"]["gradient_steps"]
        self._acting_noise[member].load_state_dict(state["state"]["draws"])
