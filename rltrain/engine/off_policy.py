"""The agent of every algorithm that learns from a replay: keeps transitions, makes the updates that are due."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from rltrain.compute.compiling import Bound
from rltrain.config.schema import QNetworkConfig
from rltrain.engine.agent import EngineAgent
from rltrain.engine.algorithm import Algorithm, ReplayAlgorithm
from rltrain.engine.cadence import UpdatesPerStep
from rltrain.engine.learner import Learner
from rltrain.engine.protocol import AgentContext, Block, StateDict, SteppedByAgent, with_prefix, without_prefix
from rltrain.engine.stepper import block_depth
from rltrain.engine.targets import Due, MemberTargets
from rltrain.experience import make_replay
from rltrain.experience.frames import Frames
from rltrain.experience.in_place import TransitionStore
from rltrain.experience.n_step import NStepWindow
from rltrain.seeding import RandomBlocks
from rltrain.types import Episode, Transition

# Gradient steps in one call of a compiled program. With four the cost of a call is spread; the program grows with more.
_MOST_STEPS_PER_CALL = 4
# Random numbers that the host draws for the updates of a block.
_MOST_DRAWS = 2**22


class OffPolicyAgent(EngineAgent):
    """All members of a population move together: those that run have made the same number of environment and gradient
    steps, as many of the latter as the algorithm's cadence says."""

    def __init__(self, algorithms: Sequence[Algorithm], context: AgentContext) -> None:
        super().__init__(algorithms, context)
        self._config = cast(QNetworkConfig, context.config.algo)
        self._cadence = cast(UpdatesPerStep, self._algorithm.cadence)
        self._make_targets(context)
        self._make_experience(context)
        self._make_learner(context)  # which reads the replay, and makes no call across a move of the targets

    def _make_targets(self, context: AgentContext) -> None:
        ((target, own),) = self._algorithm.follows.items()
        updates = [c.target_update for c in context.configs if c.target_update is not None]
        params = self._state.networks
        self._targets = MemberTargets(updates, params[target], params[own])
        # Target updates then depend on the ends of episodes, so that a block is one vector step long.
        self._follows_episodes |= self._targets.by_episodes

    def _make_experience(self, context: AgentContext) -> None:
        config, device, spec, action = self._config, context.device, context.observation, context.action
        self._frames: Frames | None = None  # of stacked observations, each kept once
        if spec.stack is not None:
            self._frames = Frames(spec, config.buffer_size, self._num_envs, config.n_step, device, self._members)
        self.replay = make_replay(
            config, spec, action, device, self._members, spare_row=self._iterates, frames=self._frames
        )
        gammas = np.repeat(self._gammas, self._num_envs)  # [M * N]
        where = device if self._iterates else torch.device("cpu")
        waiting = spec if self._frames is None else self._frames.spec
        self._window = NStepWindow(config.n_step, gammas, len(gammas), waiting, action, where)
        self._env_member = np.repeat(np.arange(self._members), self._num_envs)  # [M * N]
        self._store = TransitionStore(self.replay, self._window)

    def _make_learner(self, context: AgentContext) -> None:
        algorithm, config = self._algorithm, self._config
        draws = cast(ReplayAlgorithm, algorithm).learning_draws
        self._replay_draws = RandomBlocks(self._seeds, "replay", block_size=64 * config.batch_size)
        self._learning_draws = {
            name: RandomBlocks(self._seeds, draw.purpose, draw.kind) for name, draw in draws.items()
        }
        self._more = {**{name: draw.shape for name, draw in draws.items()}, **dict.fromkeys(algorithm.anneals, ())}
        self._steps_per_call = self._choose_steps_per_call() if context.compile_update or context.cuda_graphs else 1
        self._depth = self._choose_depth() if self._iterates else 1
        taus = [{} if tau is None else {"tau": tau} for tau in self._targets.taus]
        self._learner = Learner(
            context, algorithm, self._state, self._stack_knobs(taus), self.replay, self.replay.memory, self._members,
            config.batch_size, self._steps_per_call, self._depth * self._most_calls, more=self._more,
        )  # fmt: skip

    def _choose_steps_per_call(self) -> int:
        """K: divides the steps that are due together and, where targets move between calls, the time between moves."""
        common = math.gcd(self._cadence.updates, *self._targets.between_calls)
        return max(k for k in range(1, _MOST_STEPS_PER_CALL + 1) if common % k == 0)

    @property
    def _most_calls(self) -> int:
        """Calls of the learner that can be due after one vector step."""
        return self._cadence.most_per_step(self._num_envs) // self._steps_per_call

    def _choose_depth(self) -> int:
        """The most vector steps of a block."""
        of_step = self._config.batch_size + sum(map(math.prod, self._more.values()))
        draws = self._most_calls * self._steps_per_call * self._members * of_step
        return max(1, min(block_depth(len(self._active)), _MOST_DRAWS // draws))

    @property
    def replay_bytes(self) -> int:
        return self.replay.nbytes

    def _programs(self) -> Iterator[Bound]:
        yield self._learner.program
        if self._stepper is not None:
            yield self._stepper.program

    def act(self, obs: np.ndarray) -> np.ndarray:
        self._use_programs(self.env_steps)
        return super().act(obs)

    def iterate(self, envs: SteppedByAgent, most: int) -> Block:
        """Vector steps with the environments on the device, for `env.vectorization=compiled`."""
        stepper = self._stepper_of(envs)
        self._use_programs(self.env_steps)
        steps = 1 if self._follows_episodes else min(most, stepper.depth)
        steps = self._until_programs(steps, self.env_steps)
        calls = self._calls_ahead(steps)
        stepper.prepare(self._draw(steps), self._running)
        self._prepare_calls(sum(calls))
        targets_at_calls = iter(self._targets_at_calls(sum(calls)))
        targets_at_steps = self._targets.at_steps(self._env_steps, self._num_envs, steps, self._running)
        with torch.no_grad():
            for due, targets in zip(calls, targets_at_steps, strict=True):
                stepper.step()
                self._learn(islice(targets_at_calls, due))
                self._targets.move(targets)
        episodes, _ = stepper.finish(steps)
        self._env_steps += steps * self._num_envs * self._running
        self._targets.seen_steps[:] = self._env_steps
        self._count_gradient_steps(sum(calls) * self._steps_per_call)
        self._count_episodes(episodes)
        self._targets.move_since(self._env_steps, self._episodes)
        learned_at = [step for step, due in enumerate(calls, 1) if due]
        taken = np.tile(self._num_envs * self._running, (steps, 1))
        return Block(taken, episodes, learned_at, self._metrics_by_step(calls))

    def _calls_ahead(self, steps: int) -> list[int]:
        """Calls of the learner that are due after each of the next vector steps."""
        made = self.gradient_steps
        due_by, ahead = self._cadence.due_by, range(1, steps + 1)
        due = [due_by(self.env_steps + number * self._num_envs) for number in ahead]
        return [(now - before) // self._steps_per_call for before, now in pairwise([made, *due])]

    def _metrics_by_step(self, calls: list[int]) -> dict[str, np.ndarray]:
        """[U] or [U, M] by tag: means over the calls of each vector step that had any."""
        found = self._learner.fetch(sum(calls))  # [calls, METRICS, M]
        if max(calls) > 1:
            ends = np.cumsum(calls)
            found = np.array([found[end - n : end].mean(0) for n, end in zip(calls, ends, strict=True) if n])
        return (
            {tag: found[:, number].copy() for number, tag in enumerate(self._algorithm.metrics)} if len(found) else {}
        )

    def observe(self, transition: Transition, episodes: list[Episode]) -> None:
        self._env_steps += self._num_envs * self._running
        self._count_episodes(episodes)
        if self._frames is not None:
            transition = self._frames.numbered(transition, [episode.env for episode in episodes])
        for envs, columns in self._window.push(transition):
            self.replay.add(*columns, members=self._env_member[envs])

    def update(self) -> dict[str, Tensor]:
        self._use_programs(self.env_steps)
        calls = (self._cadence.due_by(self.env_steps) - self.gradient_steps) // self._steps_per_call
        self._prepare_calls(calls)
        with torch.no_grad():
            self._learn(self._targets_at_calls(calls))
        self._count_gradient_steps(calls * self._steps_per_call)
        self._targets.move_since(self._env_steps, self._episodes)
        return self._learner.metrics(calls) if calls else {}

    def _prepare_calls(self, calls: int) -> None:
        if calls:
            steps = calls * self._steps_per_call
            more = {
                name: draws.take(steps * math.prod(self._more[name])) for name, draws in self._learning_draws.items()
            }
            more |= self._annealed(self._cadence.due_at(self._gradient_steps[:, None] + np.arange(steps)))
            self._learner.prepare(calls, self._replay_draws.take(steps * self._config.batch_size), more)
            self.replay.send_counts()

    @property
    def _steps_before_last_update(self) -> np.ndarray:
        return self._cadence.due_at(np.maximum(self._gradient_steps - 1, 0))

    def _targets_at_calls(self, calls: int) -> list[Due]:
        return self._targets.at_calls(self._gradient_steps, self._steps_per_call, calls, self._running)

    def _learn(self, targets: Iterable[Due]) -> None:
        """A call of the learner for each of `targets`, which are due after it."""
        for due in targets:
            self._learner.learn()
            self._targets.move(due)

    def diagnostics(self, obs: np.ndarray, member: int = 0) -> dict[str, float]:
        return {**super().diagnostics(obs, member), **self.replay.diagnostics(member)}

    def abandon_episodes(self, envs: np.ndarray) -> None:
        self._window.forget(envs)
        if self._frames is not None:
            self._frames.forget(envs)

    def state_dict(self, member: int = 0) -> StateDict:
        envs = self._envs_of(member)
        rings, frames = {"replay": self.replay.ring("replay", member)}, {}
        if self._frames is not None:
            frames = {"frames": with_prefix("frames", self._frames.state_dict(member))}
            rings["frames"] = self._frames.ring("frames", member)
        return {
            **super().state_dict(member),
            **frames,
            "replay": {
                **with_prefix("replay", self.replay.state_dict(member)),
                **with_prefix("n_step", self._window.state_dict(envs)),
            },
            "rings": rings,
            "state": {
                "env_steps": int(self._env_steps[member]),
                "episodes": int(self._episodes[member]),
                "gradient_steps": int(self._gradient_steps[member]),
                "target_seen": [int(self._targets.seen_steps[member]), int(self._targets.seen_episodes[member])],
                "exploration_draws": self._acting_noise[member].state_dict(),
                "replay_draws": self._replay_draws[member].state_dict(),
                **{f"learning_{name}": draws[member].state_dict() for name, draws in self._learning_draws.items()},
                **self._acting_state(member),
            },
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]], member: int = 0) -> None:
        super().load_state_dict(state, member)
        plain = state["state"]
        replay, window = (without_prefix(prefix, state["replay"]) for prefix in ("replay", "n_step"))
        if self._frames is not None and "frames" in state:
            self._frames.load_state_dict(without_prefix("frames", state["frames"]), member)
            self._frames.check(window["obs"])
        elif self._frames is not None:
            replay, window = self._frames.adopt(replay, window, member)
        self.replay.load_state_dict(replay, member)
        self._window.load_state_dict(window, self._envs_of(member))
        self._env_steps[member], self._episodes[member] = plain["env_steps"], plain["episodes"]
        self._gradient_steps[member] = plain["gradient_steps"]
        self._targets.seen_steps[member], self._targets.seen_episodes[member] = plain["target_seen"]
        self._acting_noise[member].load_state_dict(plain["exploration_draws"])
        self._replay_draws[member].load_state_dict(plain["replay_draws"])
        for name, draws in self._learning_draws.items():
            draws[member].load_state_dict(plain[f"learning_{name}"])
        self._load_acting(plain, member)
