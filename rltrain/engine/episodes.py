"""The agent of every algorithm that learns from whole episodes of its present parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from rltrain.compute.compiling import Bound
from rltrain.engine.agent import EngineAgent
from rltrain.engine.algorithm import Algorithm
from rltrain.engine.cadence import EveryEpisodes
from rltrain.engine.learner import Learner
from rltrain.engine.protocol import AgentContext, Block, StateDict, SteppedByAgent, with_prefix, without_prefix
from rltrain.engine.stepper import Stepper, block_depth
from rltrain.engine.turns import Turns, parts_of
from rltrain.experience.episodes import EpisodeBuffer, Episodes
from rltrain.types import Episode, Transition

# Vector steps of a block where episodes are longer than expected.
_LEAST_DEPTH = 8
# Whole episodes have room from the start where the time limit is at most this many steps.
_MOST_ROOM = 2**12
# Padded lengths of episodes that are compiled beside the run: the longest, and half of it.
_FORESEEN_LENGTHS = 2


class EpisodeAgent(EngineAgent):
    """Updates once it has `EveryEpisodes.episodes`. The members of a population wait for each other: they update at
    the same vector step, each from its own episodes."""

    def __init__(self, algorithms: Sequence[Algorithm], context: AgentContext) -> None:
        super().__init__(algorithms, context)
        episodes = cast(EveryEpisodes, self._algorithm.cadence).episodes
        where = context.device if self._iterates else torch.device("cpu")
        spaces = context.observation, context.action
        self._buffer = self._store = EpisodeBuffer(episodes, self._num_envs, *spaces, self._members, where)
        self._knobs = self._stack_knobs()
        self._turns = Turns(self._state, self._knobs, parts_of(self._members, 1, 1, context.device))
        self._foreseen: set[int] = set()  # lengths of episodes for which programs are compiled beside the run
        self._learners: dict[int, tuple[Episodes, Learner]] = {}  # by padded length: each is a program of its own
        self._depth = block_depth(len(self._active))
        self._stepper_width = 0  # of the memory that it writes
        # Vector steps since the last update, and between the two before it. They choose how many make a block, which
        # changes only how long it takes.
        self._made, self._made_before = 0, 0
        if not self._compile_from:
            self._use_programs(0)

    @property
    def active(self) -> np.ndarray:
        active: np.ndarray = self._buffer.active & self._active
        return active

    @property
    def waiting(self) -> np.ndarray:
        waiting: np.ndarray = self._buffer.full & self._running
        return waiting

    @property
    def replay_bytes(self) -> int:
        return self._buffer.nbytes

    def _drawing(self) -> list[int]:
        # A member that waits for the others draws nothing, as the single run of its seed would not.
        return np.flatnonzero(self._running & ~self._buffer.full).tolist()

    def iterate(self, envs: SteppedByAgent, most: int) -> Block:
        """Vector steps with the environments on the device, for `env.vectorization=compiled`. Environments that have
        played their share idle, and so do the last steps of a block in which the last episode has ended."""
        stepper = self._stepper_of(envs)
        if self._compiles:
            self._compile_beside(self.env_steps)
        steps = min(most, self._steps_ahead(envs))
        finished, drawing = self._buffer.finished.copy(), self._drawing()
        streams = {member: self._acting_noise[member].state_dict() for member in drawing}
        stepper.prepare(self._draw(steps), self._running)
        with torch.no_grad():
            for _ in range(steps):
                stepper.step()
        episodes, ended = stepper.finish(steps)
        taken = self._taken(finished, ended)
        moved = np.count_nonzero(taken, 0)  # [M], the vector steps before the member was full
        for member, stream in streams.items():
            if moved[member] < steps:  # what was drawn for the steps after them is drawn again
                self._acting_noise[member].load_state_dict(stream)
                self._acting_noise[member].take(int(moved[member]) * self._noise_size * self._num_envs)
        made = max(1, int(moved.max()))
        self._made += made
        self._env_steps += taken.sum(0)
        found = {tag: value[None].numpy(force=True) for tag, value in self.update().items()}
        return Block(taken[:made], episodes, [made] if found else [], found)

    def _stepper_of(self, envs: SteppedByAgent) -> Stepper:
        """The same, with room for the steps of a block. A buffer that is widened has new memory: then the stepper is
        new too."""
        buffer, limit = self._buffer, envs.max_episode_steps
        bounded = 0 if limit is None or limit > _MOST_ROOM else limit
        buffer.widen(bounded or int(buffer.length.max()) + self._depth)
        is_new = buffer.width != self._stepper_width
        if is_new:
            self._stepper, self._stepper_width = None, buffer.width
            self._foreseen = {buffer.width >> halved for halved in range(_FORESEEN_LENGTHS)} if bounded else set()
        stepper = super()._stepper_of(envs)
        if is_new and self._compiled and self._foresees(buffer.width):
            stepper.program.compile()
        return stepper

    def _foresees(self, steps: int) -> bool:
        """Whether the programs for episodes of `steps` steps are compiled: beside the run only those whose shapes are
        known."""
        return self._compile_from == 0 or steps in self._foreseen

    def _programs(self) -> Iterator[Bound]:
        if self._stepper is not None and self._foresees(self._stepper_width):
            yield self._stepper.program
        yield from (learner.program for steps, (_, learner) in self._learners.items() if self._foresees(steps))

    def make_programs(self, envs: SteppedByAgent | None) -> None:
        assert envs is not None, "without environments on the device nothing is compiled"
        self._stepper_of(envs)
        for steps in sorted(self._foreseen, reverse=True):
            self._learner(steps)
        super().make_programs(envs)

    @property
    def _compiled(self) -> bool:
        return self._context.compile_update and not self._compiles

    def _steps_ahead(self, envs: SteppedByAgent) -> int:
        """Vector steps until the episodes are probably whole, and at most those until they certainly are."""
        ahead = max(_LEAST_DEPTH, min(self._depth, self._made_before - self._made))
        limit = envs.max_episode_steps
        return ahead if limit is None else max(1, min(ahead, self._buffer.most_steps(limit)))

    def _taken(self, finished: np.ndarray, ended: np.ndarray) -> np.ndarray:
        """[steps, M], the environment steps of each member in each vector step of a block. `finished` [M * N]: episodes
        that each environment had finished before it; `ended` bool [steps, M * N]: where one ended."""
        before = finished + ended.cumsum(0) - ended  # [steps, M * N], episodes finished before each step
        of_members: np.ndarray = self._buffer.has_yet_to_play(before).reshape(len(ended), self._members, -1).sum(-1)
        of_members *= self._running
        return of_members

    def observe(self, transition: Transition, episodes: list[Episode]) -> None:
        self._buffer.add(transition)
        self._env_steps += transition.active.reshape(self._members, -1).sum(1)

    def update(self) -> dict[str, Tensor]:
        if not self._buffer.full[self._running].all():
            return {}
        self._made, self._made_before = 0, self._made
        self._anneal()
        metrics = self._turns.joined([(part, self._learn(part)) for part in self._turns.parts_with(self._running)])
        self._buffer.clear()
        self._count_gradient_steps(1)
        # Here, where all members that run have learned from their episodes, and at no other step.
        self._use_programs(int(self._env_steps[self._running].max(initial=0)))
        return metrics

    @property
    def _steps_before_update(self) -> np.ndarray:
        begun: np.ndarray = self._env_steps - self._buffer.length.reshape(self._members, -1).sum(1)
        return begun

    def _learn(self, members: slice) -> dict[str, Tensor]:
        """An update from the episodes of these members; its metrics."""
        memory, learner = self._learner(self._buffer.padded_length(members))
        self._turns.load(members)
        self._buffer.copy(memory, members)
        learner.prepare(1, np.empty((self._turns.count, 0)))
        with torch.no_grad():
            learner.learn()
        self._turns.store(members)
        return learner.metrics(1)

    def _learner(self, steps: int) -> tuple[Episodes, Learner]:
        """The learner of episodes that are padded to `steps` steps, and the memory that it learns from."""
        if steps not in self._learners:
            turns = self._turns
            memory = self._buffer.room(steps, turns.count, self._device)
            learner = Learner(
                self._context, self._algorithm, turns.state, turns.knobs, self._buffer, memory, turns.count, draws=0
            )
            if self._compiled and self._foresees(steps):
                learner.program.compile()
            self._learners[steps] = memory, learner
        return self._learners[steps]

    def abandon_episodes(self, envs: np.ndarray) -> None:
        self._buffer.forget(envs)

    def state_dict(self, member: int = 0) -> StateDict:
        return {
            **super().state_dict(member),
            "replay": with_prefix("rollout", self._buffer.state_dict(member)),
            "state": {
                "env_steps": int(self._env_steps[member]),
                "compiled": self._compiled and self._compile_from > 0,  # the change-over has been
                "gradient_steps": int(self._gradient_steps[member]),
                "learned_from": int(self._learned_from[member]),
                "draws": self._acting_noise[member].state_dict(),
            },
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]], member: int = 0) -> None:
        super().load_state_dict(state, member)
        self._buffer.load_state_dict(without_prefix("rollout", state["replay"]), member)
        plain = state["state"]
        self._gradient_steps[member] = plain["gradient_steps"]
        self._env_steps[member] = plain.get("env_steps", 0)  # format 1 had neither
        self._learned_from[member] = plain.get("learned_from", self._steps_before_update[member])
        self._acting_noise[member].load_state_dict(plain["draws"])
        if plain.get("compiled") and self._compiles:  # since an update before
            self._use_programs(self._compile_from)
