"""The training loop, of one run and of several as one program: act, step, observe, update; and what is due when.

One agent holds the state of all members, one vector environment all their environments, member by member; a single run
is its only member. Members differ in their seeds and in the settings that are marked PER_MEMBER.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch

from rltrain.config.algorithms import steadier
from rltrain.config.schema import RunConfig
from rltrain.engine.protocol import Agent, IteratingAgent, SteppedByAgent
from rltrain.envs.vector import VectorEnv, join_env_states
from rltrain.errors import RunFailed
from rltrain.training.evaluator import Evaluator
from rltrain.training.member import Member, Output
from rltrain.training.progress import Progress, mean_steps
from rltrain.training.recorder import Recorder
from rltrain.training.saving import SaveTimes
from rltrain.training.shared_evaluation import SharedEvaluation
from rltrain.training.stopping import StopRequest
from rltrain.types import Episode

_MOST_STEPS = 1024  # of a block on the host, whose counts are kept until it ends


class Loop:
    """M runs from their present states to their ends, or to a request to stop.

    Vector steps are made in blocks, in which nothing is due. A member that reaches its end, or fails, is masked; the
    others go on. All that run are saved together, when the mean of their environment steps reaches a multiple of
    `checkpoint.period`, or a minute after they were: what was saved together continues bit for bit.

    Attributes:
        members: their duties and states.
        failures: member -> why it failed; a single run raises it.
        left: None, or how the members that still run have left the others: together, or one by one.
    """

    def __init__(
        self,
        configs: Sequence[RunConfig],
        envs: VectorEnv,
        agent: Agent,
        evaluator: Evaluator,
        outputs: Sequence[Output],
        device: torch.device,
        stop: StopRequest,
        failed: Callable[[int], None] = lambda member: None,
        leave: Callable[[Sequence[int]], bool | None] = lambda left: None,
    ) -> None:
        """
        Args:
            failed: told of each of several members that fails, when it does.
            leave: given the steps left of each running member, whether these go on in programs of their own: together
                (True), one by one (False) or not at all (None). Called whenever members have ended.
        """
        num_envs, members = configs[0].num_envs, len(configs)
        self._envs, self._agent, self._stop, self._outputs = envs, agent, stop, outputs
        self._num_envs = num_envs
        self._progress = Progress(num_envs, [config.total_episodes for config in configs])
        # What an agent that steps by itself has measured comes from the host.
        where = torch.device("cpu") if envs.stepped_by_agent else device
        self._recorder = Recorder(members, num_envs, where, steadier(configs[0].algo))
        self._evaluation = SharedEvaluation(evaluator, agent)
        shared = agent, envs, self._evaluation, self._progress, self._recorder, self.stop_requested
        self.members = [
            Member(member, config, output, *shared)
            for member, (config, output) in enumerate(zip(configs, outputs, strict=True))
        ]
        self.failures: dict[int, RunFailed] = {}
        self.left: bool | None = None
        self._tell_failed, self._leave = failed, leave
        self._asked_for = members
        self._env_failures = envs.collect_failures() if members > 1 else {}
        self._saves = SaveTimes(configs[0].checkpoint.period)
        self._save_requested = False
        self._obs: np.ndarray | None = None
        self._running = np.ones(members, np.bool_)

    @property
    def step(self) -> int:
        """Environment steps of all members together."""
        return int(self._progress.steps.sum())

    @property
    def vector_steps(self) -> int:
        """Vector steps made. Checkpoints of the same number continue together."""
        return self._progress.vector_steps

    @property
    def unfinished(self) -> list[int]:
        """The members that have not ended: a stop was requested, or they have left."""
        return list(map(int, np.flatnonzero(self._running)))

    def run(self) -> None:
        """Trains until every member has ended, a stop is requested, or they leave. The state of each is saved.

        Raises:
            RunFailed: a single run failed: an environment did, or a number is not finite; nothing is saved then.
        """
        if self._obs is None:
            self._obs = self._envs.reset()
        for member in np.flatnonzero(self._running & ~self._progress.due).tolist():
            self._retire_if_done(member)
        before = mean_steps(np.where(self._progress.due, self._progress.before, self._progress.steps))
        self._do_duties()
        self._save_if_due(before)
        while self._running.any() and not self.stop_requested() and not self._have_left():
            before = mean_steps(self._progress.steps)
            self._train()
            self._do_duties()
            self._save_if_due(before)
        self._save()

    def stop_requested(self) -> bool:
        """Polls for a request to stop; saves if that was requested or is overdue, during an evaluation too."""
        if self._stop.take_save_request() or self._save_requested or self._saves.overdue():
            self._save_requested = False
            self._save()
        return self._stop.requested

    def _have_left(self) -> bool:
        running = self.unfinished
        if len(running) < self._asked_for:
            self._asked_for = len(running)
            self.left = self._leave([self.members[number].steps_left for number in running])
        return self.left is not None

    def _train(self) -> None:
        """A block of vector steps."""
        start = time.perf_counter()
        steps = self._progress.quiet_steps(self._running, self._saves.steps)
        if self._envs.stepped_by_agent:
            self._steps_on_device(steps)
        elif self._progress.due.any():  # and waits for an update of all
            self._steps_on_host(1)
        else:
            self._steps_on_host(min(steps, _MOST_STEPS))
        self._progress.note_due(self._running)
        self._progress.seconds += self._running * (time.perf_counter() - start)

    def _steps_on_host(self, most: int) -> None:
        agent = self._agent
        active: list[np.ndarray] = []  # each [M * N]
        ended: list[Episode] = []
        broken: dict[int, int] = {}
        assert self._obs is not None
        for number in range(1, most + 1):
            action = agent.act(self._obs)
            transition, self._obs, episodes = self._envs.step(action, agent.active)
            agent.observe(transition, episodes)
            active.append(transition.active.copy())
            ended += episodes
            self._fail_with_envs()
            broken = self._recorder.add(agent.update(), self._running)
            if broken or (number < most and self._anything_requested()):
                break
        self._count(np.array(active).reshape(len(active), -1, self._num_envs).sum(2), ended)
        for member in broken:
            self._check(member, int(self._progress.steps[member]))

    def _steps_on_device(self, most: int) -> None:
        """A block that the agent makes by itself, of at most `most` vector steps."""
        agent = cast(IteratingAgent, self._agent)
        block = agent.iterate(cast(SteppedByAgent, self._envs), most)
        self._count(block.taken, block.episodes)
        self._fail_with_envs()
        for member, update in self._recorder.add_block(block.metrics, len(block.learned_at), self._running).items():
            since = block.taken[block.learned_at[update] :, member].sum()
            self._check(member, int(self._progress.steps[member] - since))

    def _anything_requested(self) -> bool:
        """Looks at signals and clock once, in the middle of a block, which ends if there is something to do."""
        self._save_requested = self._stop.take_save_request() or self._saves.overdue()
        return self._save_requested or self._stop.requested

    def _count(self, taken: np.ndarray, episodes: Sequence[Episode]) -> None:
        self._progress.count(taken, episodes)
        self._recorder.add_episodes(episodes)

    def _fail_with_envs(self) -> None:
        """Fails the members whose environments did."""
        while self._env_failures:
            env, failure = self._env_failures.popitem()
            self.fail(env // self._num_envs, failure)

    def _check(self, member: int, step: int) -> None:
        try:
            self._recorder.check(member, step)
        except RunFailed as failure:
            self.fail(member, failure)

    def _do_duties(self) -> None:
        """Does what is due for each member that does not still wait for the update of this step."""
        due = self._progress.due
        if not due.any():
            return
        ready = due & self._running
        if len(self.members) > 1:
            ready = ready & ~self._agent.waiting
        numbers = np.flatnonzero(ready).tolist()
        expected = {number: self.members[number].step for number in numbers if self.members[number].evaluates}
        self._evaluation.expected = expected
        for number in numbers:
            try:
                self.members[number].do_duties()
            except RunFailed as failure:
                self.fail(number, failure)
        for number in numbers:  # once all have their rows: the last save takes a while
            if self._running[number] and not due[number]:
                self._retire_if_done(number)

    def _retire_if_done(self, number: int) -> None:
        member = self.members[number]
        if not member.done:
            return
        self._running[number] = False
        try:
            if not member.saved:
                member.save()
        except RunFailed as failure:
            self.fail(number, failure)
            return
        if len(self.members) > 1:
            self._agent.retire(number)

    def fail(self, member: int, failure: RunFailed) -> None:
        """Ends a member, which the others go on without; a single run raises its failure."""
        if len(self.members) == 1:
            raise failure
        self.failures[member] = failure
        self._tell_failed(member)
        self._running[member] = self._progress.due[member] = False
        self._agent.retire(member)

    def _save_if_due(self, before: int) -> None:
        """before: the mean of the members' environment steps when this was asked last."""
        period, now = self._saves.steps, mean_steps(self._progress.steps)
        if period is not None and now // period > before // period and self._saves.affordable():
            self._save()

    def _save(self) -> None:
        """Saves all members that run, at one moment; only then do older checkpoints go."""
        with self._saves.measured():
            for number in np.flatnonzero(self._running).tolist():
                try:
                    # Also where it has not changed because it waits: members continue from one moment.
                    if not self.members[number].saved:
                        self.members[number].save()
                except RunFailed as failure:
                    self.fail(number, failure)
            for output in self._outputs:
                output.checkpointer.prune()

    def load_state_dicts(self, states: Sequence[Mapping[str, Mapping[str, Any]]], vector_steps: int = 0) -> list[bool]:
        """Continues from one state per member, as its `state_dict` returned it after so many vector steps; per member,
        whether its running episodes could be continued."""
        self._progress.vector_steps = vector_steps
        of_envs = [state["state"]["envs"] for state in states]
        running = [state["episode"].copy() for state in of_envs]
        self._obs, _ = self._envs.load_state_dict(join_env_states(of_envs))
        return [member.load_state_dict(*each) for member, *each in zip(self.members, states, running, strict=True)]
