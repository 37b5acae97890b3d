"""The agent of every algorithm that learns from rollouts of fixed length, in epochs of shuffled minibatches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from rltrain.compute.compiling import Bound
from rltrain.engine.agent import EngineAgent
from rltrain.engine.algorithm import Algorithm, Prepared, RolloutAlgorithm, State
from rltrain.engine.cadence import EveryRollout
from rltrain.engine.learner import Knobs, Learner
from rltrain.engine.protocol import AgentContext, Block, StateDict, SteppedByAgent, with_prefix, without_prefix
from rltrain.engine.stepper import block_depth
from rltrain.engine.turns import KeptState, Turns, parts_of
from rltrain.experience.rollout import Rollout, RolloutBuffer, RolloutMemory
from rltrain.seeding import RandomBlocks
from rltrain.types import Episode, Transition

# Members that learn in one call on a CPU: 8 of PPO on CartPole take two thirds of the time that 32 take each.
_MOST_TOGETHER, _LEAST_TOGETHER = 8, 4


class RolloutAgent(EngineAgent):
    """Updates after every T vector steps, all members of a population at once: they make their steps together."""

    def __init__(self, algorithms: Sequence[Algorithm], context: AgentContext) -> None:
        super().__init__(algorithms, context)
        self._makers = [cast(RolloutAlgorithm, algorithm) for algorithm in algorithms]
        algorithm = self._makers[0]
        cadence = self._cadence = cast(EveryRollout, algorithm.cadence)
        self._depth = min(cadence.steps, block_depth(len(self._active)))
        self._rollout = self._store = RolloutBuffer(
            cadence.steps, self._num_envs, context.observation, context.action, context.device, self._members,
            algorithm.columns, self._iterates,
        )  # fmt: skip
        self._size = cadence.steps * self._num_envs
        self._knobs = self._stack_knobs()
        parts = parts_of(self._members, _MOST_TOGETHER, _LEAST_TOGETHER, context.device)
        self._turns = turns = Turns(self._state, self._knobs, parts)
        self._memory = self._rollout.room(turns.count)
        axis = () if turns.count == 1 else (turns.count,)
        self._rollout_metrics = {tag: torch.zeros(axis, device=context.device) for tag in algorithm.rollout_metrics}
        prepare = make_prepare(algorithm, turns.count)
        preparing = Preparing(turns.state, self._memory, turns.knobs, self._rollout_metrics)
        self._prepare = Bound(prepare, prepare, (preparing,), cuda_graphs=context.cuda_graphs)
        calls = cadence.epochs * cadence.minibatches
        self._learner = Learner(
            context, algorithm, turns.state, turns.knobs, self._rollout, self._memory, turns.count,
            self._size // cadence.minibatches, most_calls=calls, draw_type=torch.int64,
        )  # fmt: skip
        draws = cadence.epochs * self._size
        self._order_draws = RandomBlocks(self._seeds, "minibatches", block_size=draws)

    @property
    def replay_bytes(self) -> int:
        return self._rollout.nbytes

    def _programs(self) -> Iterator[Bound]:
        yield from (self._prepare, self._learner.program)
        if self._stepper is not None:
            yield self._stepper.program

    def act(self, obs: np.ndarray) -> np.ndarray:
        self._use_programs(self.env_steps)
        return super().act(obs)

    def observe(self, transition: Transition, episodes: list[Episode]) -> None:
        self._rollout.add(transition)
        self._count(1, episodes)

    def _count(self, steps: int, episodes: list[Episode]) -> None:
        self._env_steps += steps * self._num_envs * self._running
        self._count_episodes(episodes)

    def iterate(self, envs: SteppedByAgent, most: int) -> Block:
        """Vector steps with the environments on the device, at most to the end of the rollout, for
        `env.vectorization=compiled`."""
        stepper = self._stepper_of(envs)
        self._use_programs(self.env_steps)
        steps = 1 if self._follows_episodes else min(most, stepper.depth, self._rollout.length - self._rollout.made)
        steps = self._until_programs(steps, self.env_steps)
        stepper.prepare(self._draw(steps), self._running)
        with torch.no_grad():
            for _ in range(steps):
                stepper.step()
        episodes, _ = stepper.finish(steps)
        self._count(steps, episodes)
        found = {tag: value[None].numpy(force=True) for tag, value in self.update().items()}
        taken = np.tile(self._num_envs * self._running, (steps, 1))
        return Block(taken, episodes, [steps] if found else [], found)

    def update(self) -> dict[str, Tensor]:
        if not self._rollout.full:
            return {}
        self._use_programs(self.env_steps)
        self._anneal()
        self._rollout.send_steps()
        rows = self._rollout.rows(self._order_draws.take(self._cadence.epochs * self._size))
        with torch.no_grad():
            made = np.zeros(self._members, np.int64)
            metrics = []
            for part in self._turns.parts_with(self._running):
                made[part], of_part = self._learn(part, rows[part])
                metrics.append((part, of_part))
        self._rollout.clear()
        self._count_gradient_steps(made)
        return self._turns.joined(metrics)

    def _learn(self, part: slice, rows: np.ndarray) -> tuple[np.ndarray, dict[str, Tensor]]:
        """The update of a part of the members: how many gradient steps each made, [M'], and their metrics."""
        self._turns.load(part)
        self._rollout.copy(self._memory, part)
        self._learner.prepare(self._cadence.epochs * self._cadence.minibatches, rows - part.start * self._size)
        self._prepare()
        made = self._make_epochs(part)
        self._turns.store(part)
        of_rollout = {tag: value.clone() for tag, value in self._rollout_metrics.items()}
        return made, {**self._learner.metrics_of(made), **of_rollout}

    def _make_epochs(self, part: slice) -> np.ndarray:
        """The gradient steps of an update; how many each member of the part made, [M']."""
        per_epoch, running = self._cadence.minibatches, self._running[part]
        made, goes_on = np.zeros(len(running), np.int64), np.ones(len(running), dtype=bool)
        stopped: KeptState | None = None
        for epoch in range(self._cadence.epochs):
            for _ in range(per_epoch):
                self._learner.learn()
            made += per_epoch * goes_on
            if stopped is not None:
                stopped.restore()
            if not self._makers[0].limits or epoch == self._cadence.epochs - 1:
                continue
            exceeds = goes_on & self._exceeds_limits(epoch, part)
            goes_on &= ~exceeds
            if not (goes_on & running).any():
                break
            if exceeds.any():
                stopped = KeptState(self._turns.state, ~goes_on)
        return made

    def _exceeds_limits(self, epoch: int, part: slice) -> np.ndarray:
        """Members [M'] of the part with a metric whose mean over an epoch is above its limit. Waits for the device."""
        first = epoch * self._cadence.minibatches
        found = self._learner.metrics(first + self._cadence.minibatches, first)
        above = [
            found[tag].numpy(force=True).reshape(-1) > [maker.limits[tag] for maker in self._makers[part]]
            for tag in self._makers[0].limits
        ]
        exceeds: np.ndarray = np.logical_or.reduce(above)
        return exceeds

    @property
    def _steps_before_update(self) -> np.ndarray:
        return self._env_steps - self._rollout.made * self._num_envs

    def abandon_episodes(self, envs: np.ndarray) -> None:
        self._rollout.forget(envs)

    def state_dict(self, member: int = 0) -> StateDict:
        return {
            **super().state_dict(member),
            "replay": with_prefix("rollout", self._rollout.state_dict(member)),
            "state": {
                "env_steps": int(self._env_steps[member]),
                "episodes": int(self._episodes[member]),
                "gradient_steps": int(self._gradient_steps[member]),
                "learned_from": int(self._learned_from[member]),
                "draws": self._acting_noise[member].state_dict(),
                "order_draws": self._order_draws[member].state_dict(),
                **self._acting_state(member),
            },
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]], member: int = 0) -> None:
        super().load_state_dict(state, member)
        plain = state["state"]
        self._rollout.load_state_dict(without_prefix("rollout", state["replay"]), member)
        self._env_steps[member], self._episodes[member] = plain["env_steps"], plain["episodes"]
        self._gradient_steps[member] = plain["gradient_steps"]
        self._rollout.made = self.env_steps // self._num_envs % self._rollout.length
        self._learned_from[member] = plain.get("learned_from", self._steps_before_update[member])
        self._acting_noise[member].load_state_dict(plain["draws"])
        self._order_draws[member].load_state_dict(plain["order_draws"])
        self._load_acting(plain, member)


class Preparing(NamedTuple):
    """The tensors that a preparation reads and writes."""

    state: State
    memory: RolloutMemory  # its columns are written
    knobs: Knobs
    metrics: dict[str, Tensor]  # the algorithm's `rollout_metrics`, each [] or [M], written


def make_prepare(algorithm: RolloutAlgorithm, members: int) -> Callable[[Preparing], None]:
    """`RolloutAlgorithm.prepare` of all members, in place, before the first gradient step."""
    of_all: Callable[[State, Rollout, Knobs], Prepared]
    of_all = algorithm.prepare if members == 1 else torch.vmap(algorithm.prepare)

    def prepare(memory: Preparing) -> None:
        steps = memory.memory.steps
        if members == 1:
            steps = Rollout(*(array.squeeze(0) for array in steps))
        columns, metrics = of_all(memory.state, steps, memory.knobs)
        for name, column in memory.memory.columns.items():
            column.copy_(columns[name].view_as(column))
        for tag, metric in memory.metrics.items():
            metric.copy_(metrics[tag])

    return prepare
