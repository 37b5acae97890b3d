"""Several runs trained as one program: members that differ in their seeds and in numbers that a batch can carry.

One agent holds the state of all members, one vector environment all their environments, member by member. What is due
for a member at its environment steps is done by a trainer of its own, the same as for a single run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from rltrain.config.schema import RunConfig
from rltrain.engine.protocol import Agent, IteratingAgent, SteppedByAgent
from rltrain.envs.vector import VectorEnv
from rltrain.errors import RunFailed
from rltrain.loggers.logger import Logger
from rltrain.training.evaluator import Evaluator
from rltrain.training.members import MemberAgent, MemberEnvs, MemberEvaluator, SharedEvaluation, join_env_states
from rltrain.training.pruning import SeedPruning
from rltrain.training.recorder import require_finite
from rltrain.training.saving import Checkpointer, SaveTimes
from rltrain.training.stopping import StopRequest
from rltrain.training.trainer import Trainer
from rltrain.types import Episode


class MemberOutput(NamedTuple):
    """One member's logger and checkpointer, and the pruning that may end its trial."""

    logger: Logger
    checkpointer: Checkpointer
    pruning: SeedPruning | None = None


class _MemberStop:
    """The stop request that a member's trainer sees. The population decides when to save: all members at once."""

    def __init__(self, population: Population) -> None:
        self._population = population

    @property
    def requested(self) -> bool:
        return self._population.stop_requested()

    def take_save_request(self) -> bool:
        return False


class Population:
    """M runs from their present state to their ends, or to a request to stop.

    A member that reaches its end, or fails, is masked; the others go on. All that run are saved together, when the mean
    of their environment steps reaches a multiple of `checkpoint.period`: what was saved together continues bit for bit.

    Attributes:
        trainers: one per member.
        failures: member -> why it failed.
        moment: vector steps made. Checkpoints of one moment continue together.
    """

    def __init__(
        self,
        configs: Sequence[RunConfig],
        envs: VectorEnv,
        agent: Agent,
        evaluator: Evaluator,
        outputs: Sequence[MemberOutput],
        device: torch.device,
        stop: StopRequest,
    ) -> None:
        num_envs, members = configs[0].num_envs, len(configs)
        self._configs, self._envs, self._agent, self._stop = configs, envs, agent, stop
        self._num_envs = num_envs
        self._check_at_once = device.type == "cpu" or envs.stepped_by_agent
        self._evaluation = SharedEvaluation(evaluator, agent)
        self.trainers = [
            Trainer(
                config,
                # A trainer that does not step by itself needs only these parts of each.
                cast(VectorEnv, MemberEnvs(envs, member, num_envs)),
                cast(Agent, MemberAgent(agent, member, num_envs)),
                cast(Evaluator, MemberEvaluator(self._evaluation, member)),
                output.logger,
                output.checkpointer,
                device,
                _MemberStop(self),
                saves_periodically=False,
                pruning=output.pruning,
            )
            for member, (config, output) in enumerate(zip(configs, outputs, strict=True))
        ]
        self.failures: dict[int, RunFailed] = {}
        self._env_failures = envs.collect_failures()
        self.moment = 0
        self._saves = SaveTimes(configs[0].checkpoint.period)
        self._outputs = outputs
        self._obs: np.ndarray | None = None
        self._running = np.ones(members, dtype=bool)
        self._steps = np.zeros(members, dtype=np.int64)  # environment steps
        self._before = np.zeros(members, dtype=np.int64)  # and before the last vector step that the member took
        self._episode_counts = np.zeros(members, dtype=np.int64)
        self._due = np.zeros(members, dtype=bool)
        self._next_duty = np.array([trainer.next_duty for trainer in self.trainers])
        self._most_episodes = np.array([config.total_episodes or np.iinfo(np.int64).max for config in configs])
        self._saved_moment = np.full(members, -1)
        # Since each member's last row: the sums of its metrics, each [M], and over how many updates.
        self._sums: dict[str, Tensor] = {}
        self._updates = np.zeros(members, dtype=np.int64)
        # What the members' trainers have not yet been told.
        self._episodes: list[list[Episode]] = [[] for _ in configs]
        self._seconds = np.zeros(members)

    @property
    def step(self) -> int:
        """Environment steps of all members together."""
        return int(self._steps.sum())

    def run(self) -> None:
        """Trains until every member has ended, or a stop is requested. Either way the state of each is saved."""
        if self._obs is None:
            self._obs = self._envs.reset()
        for member in np.flatnonzero(self._running & ~self._due):
            self._retire_if_done(int(member))
        self._do_duties()
        period = self._saves.steps
        while self._running.any() and not self.stop_requested():
            before = self._mean_step()
            self._vector_step()
            self._do_duties()
            if period is not None and self._mean_step() // period > before // period and self._saves.affordable():
                self._save()
        self._save()

    def stop_requested(self) -> bool:
        """Looks at the signals once: saves if that was asked for, in the middle of an evaluation too."""
        if self._stop.take_save_request():
            self._save()
        return self._stop.requested

    def _mean_step(self) -> int:
        return int(self._steps.sum()) // len(self._steps)

    def _vector_step(self) -> None:
        start = time.perf_counter()
        if self._envs.stepped_by_agent:
            self._block_of_steps()
        else:
            self._one_step()
        reached = (self._steps >= self._next_duty) | (self._episode_counts >= self._most_episodes)
        self._due |= reached & self._running
        self._seconds += time.perf_counter() - start

    def _one_step(self) -> None:
        agent = self._agent
        assert self._obs is not None
        action = agent.act(self._obs)
        transition, self._obs, episodes = self._envs.step(action, agent.active)
        agent.observe(transition, episodes)
        self._count(transition.active.reshape(1, -1, self._num_envs).sum(-1), episodes)
        self._add_metrics(agent.update())

    def _block_of_steps(self) -> None:
        """As many as the agent makes in one go, at most until something is due for a member or all are saved."""
        agent = cast(IteratingAgent, self._agent)
        block = agent.iterate(cast(SteppedByAgent, self._envs), self._steps_to_duty())
        self._count(block.taken, block.episodes)
        for number, step in enumerate(block.learned_at):
            metrics = {tag: torch.from_numpy(values[number]) for tag, values in block.metrics.items()}
            self._add_metrics(metrics, block.taken[step:].sum(0))

    def _steps_to_duty(self) -> int:
        running = np.flatnonzero(self._running & ~self._due)  # what is due waits for an update of all
        if not len(running):
            return 1
        steps = -(-(self._next_duty[running] - self._steps[running]) // self._num_envs)
        left = -(-(self._most_episodes[running] - self._episode_counts[running]) // self._num_envs)
        soonest = int(min(steps.min(), left.min()))
        period = self._saves.steps
        if period is None:
            return soonest
        total = (self._mean_step() // period + 1) * period * len(self._steps)  # of all members' steps
        return min(soonest, -(-(total - self.step) // (self._num_envs * int(self._running.sum()))))

    def _count(self, taken: np.ndarray, episodes: list[Episode]) -> None:
        """Environment steps in each of some vector steps, [steps, M], and the episodes that ended."""
        self.moment += len(taken)
        for of_step in taken:
            self._before = np.where(of_step > 0, self._steps, self._before)
            self._steps = self._steps + of_step
        for episode in episodes:
            member = episode.env // self._num_envs
            self._episodes[member].append(episode)
            self._episode_counts[member] += 1
        while self._env_failures:
            env, failure = self._env_failures.popitem()
            self._fail(env // self._num_envs, failure)

    def _add_metrics(self, metrics: Mapping[str, Tensor], since: np.ndarray | int = 0) -> None:
        """metrics: [M] by tag, {} when no gradient step was made; environment steps made `since`, [M]."""
        if not metrics:
            return
        if self._check_at_once:
            finite = np.logical_and.reduce([np.isfinite(value.numpy()) for value in metrics.values()])  # [M]
            if (self._running & ~finite).any():
                self._fail_members_of(metrics, since)
        self._updates += self._running
        for tag, value in metrics.items():
            if tag in self._sums:
                self._sums[tag] += value
            else:
                self._sums[tag] = value.clone()

    def _fail_members_of(self, metrics: Mapping[str, Tensor], since: np.ndarray | int) -> None:
        steps = self._steps - since
        for member in np.flatnonzero(self._running).tolist():
            try:
                for tag, value in metrics.items():
                    require_finite(tag, value[member].item(), int(steps[member]))
            except RunFailed as failure:
                self._fail(member, failure)

    def _do_duties(self) -> None:
        """Does what is due for each member that does not still wait for the update of this step."""
        if not self._due.any():
            return
        members = np.flatnonzero(self._due & self._running & ~self._agent.waiting).tolist()
        self._evaluation.expected = {member: int(self._steps[member]) for member in members if self._evaluates(member)}
        for member in members:
            try:
                self._report_steps(member)
                self.trainers[member].do_duties()
            except RunFailed as failure:
                self._fail(member, failure)
                continue
            self._mark_done(member)
            self._copy_sums_of(member)
            self._due[member] = self.trainers[member].duties_from is not None
            self._next_duty[member] = self.trainers[member].next_duty
        for member in members:  # once all have their rows: the last save takes a while
            if self._running[member] and not self._due[member]:
                self._retire_if_done(member)

    def _evaluates(self, member: int) -> bool:
        period = self._configs[member].eval.period
        return period is not None and self._steps[member] // period > self._before[member] // period

    def _report_steps(self, member: int) -> None:
        """Report to the member's trainer what has happened since the last report."""
        trainer = self.trainers[member]
        updates = int(self._updates[member])
        sums = {tag: total[member].clone() for tag, total in self._sums.items()} if updates else {}
        steps = int(self._before[member]), int(self._steps[member])
        trainer.record_steps(steps, self._episodes[member], sums, updates, float(self._seconds[member]))
        self._episodes[member] = []
        self._seconds[member] = 0.0
        self._mark_done(member)

    def _copy_sums_of(self, member: int) -> None:
        """Copy the sums that the trainer has: none after a row, the saved ones after a resume."""
        sums, self._updates[member] = self.trainers[member].metric_sums
        for tag in {*self._sums, *sums}:
            value = sums.get(tag)
            if tag not in self._sums:
                assert value is not None
                kind = value if isinstance(value, Tensor) else torch.tensor(value)
                self._sums[tag] = kind.new_zeros(len(self._steps))
            self._sums[tag][member] = 0.0 if value is None else value

    def _mark_done(self, member: int) -> None:
        """Count the next duties from here, once those of this step are done."""
        if self.trainers[member].duties_from is None:
            self._before[member] = self._steps[member]

    def _retire_if_done(self, member: int) -> None:
        trainer = self.trainers[member]
        if not trainer.done:
            return
        self._running[member] = False
        try:
            if not trainer.saved:
                trainer.save()
        except RunFailed as failure:
            self.failures[member] = failure
        self._agent.retire(member)

    def _fail(self, member: int, failure: RunFailed) -> None:
        self.failures[member] = failure
        self._running[member] = self._due[member] = False
        self._agent.retire(member)

    def _save(self) -> None:
        """Saves all members that run, at one moment; only then do older checkpoints go."""
        with self._saves.measured():
            for member in np.flatnonzero(self._running & (self._saved_moment != self.moment)).tolist():
                try:
                    self._report_steps(member)
                    # Also where it has not changed because it waits: members continue from one moment.
                    self.trainers[member].save()
                    self._saved_moment[member] = self.moment
                except RunFailed as failure:
                    self._fail(member, failure)
            for output in self._outputs:
                output.checkpointer.prune()

    def load_state_dicts(self, states: Sequence[Mapping[str, Mapping[str, Any]]], moment: int) -> list[bool]:
        """Continues from one state per member, as a trainer's `state_dict` returns it, saved at `moment`; per member,
        whether its running episodes could be continued."""
        self.moment = moment
        self._obs, _ = self._envs.load_state_dict(join_env_states([state["state"]["envs"] for state in states]))
        exact = [trainer.load_state_dict(state) for trainer, state in zip(self.trainers, states, strict=True)]
        for member, trainer in enumerate(self.trainers):
            self._steps[member], self._episode_counts[member] = trainer.step, trainer.episodes
            pending = trainer.duties_from
            self._before[member] = trainer.step if pending is None else pending
            self._due[member] = pending is not None
            self._next_duty[member] = trainer.next_duty
            self._copy_sums_of(member)
        return exact
