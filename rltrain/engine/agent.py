"""The agent of every algorithm that learns from a replay: acts, keeps transitions, makes the updates that are due."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import islice, pairwise
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from rltrain.config.schema import PerEpisodeConfig, QNetworkConfig
from rltrain.engine.algorithm import State
from rltrain.engine.learner import Learner
from rltrain.engine.members import MemberNetworks, member_of, stack_members
from rltrain.engine.policy import GreedyPolicy, Make
from rltrain.engine.protocol import AgentContext, Block, StateDict, SteppedByAgent, with_prefix, without_prefix
from rltrain.engine.stepper import Stepper
from rltrain.engine.targets import Due, MemberTargets
from rltrain.replay import make_replay
from rltrain.replay.n_step import NStepWindow
from rltrain.seeding import RandomBlock, RandomBlocks, make_generator
from rltrain.types import Episode, Transition

# Gradient steps in one call of a compiled program. With four the cost of a call is spread; the program grows with more.
_MOST_STEPS_PER_CALL = 4
# Vector steps before the host looks: with 64 what it does then is spread. First states and draws take memory.
_MOST_DEPTH, _MOST_LANES, _MOST_DRAWS = 64, 2**17, 2**22


class OffPolicyAgent(GreedyPolicy):
    """All members of a population move together: those that run have made the same number of environment and gradient
    steps, as many of the latter as the algorithm's cadence says."""

    def __init__(self, make: Make, context: AgentContext) -> None:
        super().__init__(make, context)
        configs, run, device = context.configs, context.config, context.device
        algorithm = self._algorithm
        algos = [cast(QNetworkConfig, c.algo) for c in configs]
        self._config = algos[0]
        self._members, self._num_envs = len(configs), run.num_envs
        self._running = np.ones(self._members, dtype=bool)
        self._leader = 0  # a member that runs, as long as one does: they move together
        self.active = np.ones(self._members * run.num_envs, dtype=bool)
        self.waiting = np.zeros(self._members, dtype=bool)
        self._env_member = np.repeat(np.arange(self._members), run.num_envs)  # [M * N]
        ((target, own),) = algorithm.follows.items()
        params = {name: networks.params for name, networks in self.networks.items()}
        params[target] = params[own].clone()  # [P], theta^-; of a population [M, P]
        optimizer = stack_members([a.init_optimizer() for a in self._algorithms])
        self._state = State(params, optimizer)  # changes in place
        self._retired_state: list[Tensor] = []  # of the members `_retired`, as `State.tensors`
        updates = [c.target_update for c in configs if c.target_update is not None]
        self._targets = MemberTargets(updates, params[target], params[own])
        self._steps_per_call = self._choose_steps_per_call() if context.compile_update or context.cuda_graphs else 1
        # What is due then depends on which episodes have ended: the host must look after every vector step.
        by_episodes = (isinstance(c.exploration, PerEpisodeConfig) for c in configs)
        self._follows_episodes = self._targets.by_episodes or any(by_episodes)
        self._iterates = run.env.vectorization == "compiled"
        spaces = context.observation, context.action
        self.replay = make_replay(self._config, *spaces, device, self._members, spare_row=self._iterates)
        gammas = np.repeat([algo.gamma for algo in algos], run.num_envs)  # [M * N]
        where = device if self._iterates else torch.device("cpu")
        self._window = NStepWindow(self._config.n_step, gammas, len(gammas), *spaces, where)
        depth = self._choose_depth() if self._iterates else 1
        sizes = self._config.batch_size, self._steps_per_call, depth * self._most_calls
        self._learner = Learner(context, algorithm, self._state, self._stack_knobs(), self.replay, *sizes)
        acting = self.networks[algorithm.acts]
        self._make_stepper = partial(Stepper, context, algorithm, acting, self.replay, self._window, depth=depth)
        self._stepper: Stepper | None = None
        self._exploration_draws = RandomBlocks([RandomBlock(make_generator(c.seed, "exploration")) for c in configs])
        block_size = 64 * self._config.batch_size
        self._replay_draws = RandomBlocks(
            [RandomBlock(make_generator(c.seed, "replay"), block_size=block_size) for c in configs]
        )
        self._env_steps, self._episodes, self._gradient_steps = (
            np.zeros(self._members, dtype=np.int64) for _ in range(3)
        )  # each [M]

    def _stack_knobs(self) -> dict[str, Tensor]:
        of_members = []
        for algorithm, tau in zip(self._algorithms, self._targets.taus, strict=True):
            knobs = algorithm.knobs if tau is None else {**algorithm.knobs, "tau": tau}
            of_members.append({name: torch.tensor(number, device=self._device) for name, number in knobs.items()})
        return stack_members(of_members)

    def _choose_steps_per_call(self) -> int:
        """K: divides the steps that are due together and, where targets move between calls, the time between moves."""
        common = math.gcd(self._algorithm.cadence.updates, *self._targets.between_calls)
        return max(k for k in range(1, _MOST_STEPS_PER_CALL + 1) if common % k == 0)

    @property
    def _most_calls(self) -> int:
        """Calls of the learner that can be due after one vector step."""
        return self._algorithm.cadence.most_per_step(self._num_envs) // self._steps_per_call

    def _choose_depth(self) -> int:
        """Vector steps that an iterating agent makes before the host looks at them."""
        draws = self._most_calls * self._steps_per_call * self._members * self._config.batch_size
        return max(1, min(_MOST_DEPTH, _MOST_LANES // len(self.active), _MOST_DRAWS // draws))

    @property
    def env_steps(self) -> int:
        """Of the members that run: they move together."""
        return int(self._env_steps[self._leader])

    @property
    def gradient_steps(self) -> int:
        return int(self._gradient_steps[self._leader])

    @property
    def num_parameters(self) -> dict[str, int]:
        return {name: networks.params.shape[-1] for name, networks in self.networks.items()}

    @property
    def replay_bytes(self) -> int:
        return self.replay.nbytes

    def act(self, obs: np.ndarray) -> np.ndarray:
        drawn = {name: draws[0] for name, draws in self._draw(1).items()}
        action = self._algorithm.choose_blindly(drawn)
        if action is None:
            output = self.networks[self._algorithm.acts].act(obs).cpu().numpy()  # [M * N, outputs]
            action = self._algorithm.choose(np, output, drawn)
        return action

    def _draw(self, steps: int) -> dict[str, np.ndarray]:
        """The acting draws of the next vector steps, in which no episode changes what is scheduled: [steps, M * N]."""
        uniforms = self._algorithm.uniforms
        shape = self._members, steps, uniforms, self._num_envs
        draws = self._exploration_draws.take(uniforms * self._num_envs * steps).reshape(shape).swapaxes(0, 1)
        drawn = self._algorithm.draw(draws, {name: self._scheduled(name, steps) for name in self._algorithm.schedules})
        return {name: of_members.reshape(steps, -1) for name, of_members in drawn.items()}

    def _scheduled(self, name: str, steps: int) -> np.ndarray:
        """A number of acting in the next vector steps, [steps, M, 1]."""
        numbers = np.empty((steps, self._members, 1))
        ahead = np.arange(0, steps * self._num_envs, self._num_envs)  # [steps]
        for member, algorithm in enumerate(self._algorithms):
            schedule = algorithm.schedules[name]
            numbers[:, member, 0] = schedule(self._env_steps[member] + ahead, int(self._episodes[member]))
        return numbers

    def iterate(self, envs: SteppedByAgent, most: int) -> Block:
        """Vector steps with the environments on the device, for `env.vectorization=compiled`."""
        if self._stepper is None:
            self._stepper = self._make_stepper(envs=envs)
        stepper = self._stepper
        steps = 1 if self._follows_episodes else min(most, stepper.depth)
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
        episodes = stepper.finish(steps)
        self._env_steps += steps * self._num_envs * self._running
        self._targets.saw(self._env_steps)
        self._count_gradient_steps(sum(calls))
        self._count_episodes(episodes)
        self._targets.move_since(self._env_steps, self._episodes)
        learned_at = [step for step, due in enumerate(calls, 1) if due]
        return Block(steps, episodes, learned_at, self._metrics_by_step(calls))

    def _calls_ahead(self, steps: int) -> list[int]:
        """Calls of the learner that are due after each of the next vector steps."""
        made = self.gradient_steps
        due_by, ahead = self._algorithm.cadence.due_by, range(1, steps + 1)
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
        for envs, columns in self._window.push_with_envs(transition):
            self.replay.add(*columns, members=self._env_member[envs])

    def _count_episodes(self, episodes: list[Episode]) -> None:
        for episode in episodes:
            self._episodes[self._env_member[episode.env]] += 1

    def update(self) -> dict[str, Tensor]:
        calls = (self._algorithm.cadence.due_by(self.env_steps) - self.gradient_steps) // self._steps_per_call
        self._prepare_calls(calls)
        with torch.no_grad():
            self._learn(self._targets_at_calls(calls))
        self._count_gradient_steps(calls)
        self._targets.move_since(self._env_steps, self._episodes)
        return self._learner.metrics(calls) if calls else {}

    def _prepare_calls(self, calls: int) -> None:
        if calls:
            draws = self._replay_draws.take(calls * self._steps_per_call * self._config.batch_size)
            self._learner.prepare(draws)

    def _targets_at_calls(self, calls: int) -> list[Due]:
        return self._targets.at_calls(self._gradient_steps, self._steps_per_call, calls, self._running)

    def _learn(self, targets: Iterable[Due]) -> None:
        """A call of the learner for each of `targets`, which are due after it."""
        for due in targets:
            self._learner.learn()
            self._targets.move(due)

    def _count_gradient_steps(self, calls: int) -> None:
        self._gradient_steps += calls * self._steps_per_call * self._running
        self._restore_retired()

    def _restore_retired(self) -> None:
        """Gradient steps are made for all members at once; those that are over get back what they had."""
        for tensor, kept in zip(self._state.tensors(), self._retired_state, strict=False):
            tensor.index_copy_(0, self._retired, kept)

    def scalars(self, member: int = 0) -> dict[str, float]:
        algorithm = self._algorithms[member]
        counts = int(self._env_steps[member]), int(self._episodes[member])
        return {
            **{f"train/{name}": float(schedule(*counts)) for name, schedule in algorithm.schedules.items()},
            "train/learning_rate": algorithm.knobs["lr"],
            "train/gradient_steps": float(self._gradient_steps[member]),
        }

    def retire(self, member: int) -> None:
        self._running[member] = False
        candidates = self._running if self._running.any() else ~self._running  # [M]
        self._leader = int(np.argmax(np.where(candidates, self._env_steps, -1)))
        self.active[self._envs_of(member)] = False
        if self._members > 1:
            self._retired = torch.from_numpy(np.flatnonzero(~self._running)).to(self._device)
            self._retired_state = [tensor[self._retired] for tensor in self._state.tensors()]

    def abandon_episodes(self, envs: np.ndarray) -> None:
        self._window.forget(envs)

    def _envs_of(self, member: int) -> slice:
        return slice(member * self._num_envs, (member + 1) * self._num_envs)

    def _structure(self, name: str) -> MemberNetworks:
        """The networks that parameters called `name` are of; a target network's are those that it follows."""
        return self.networks[self._algorithm.follows.get(name, name)]

    def state_dict(self, member: int = 0) -> StateDict:
        envs = self._envs_of(member)
        network: dict[str, Tensor] = {}
        for name, params in self._state.networks.items():
            network |= with_prefix(name, self._structure(name).state_dict(member, params))
        return {
            "network": network,
            "optimizer": member_of(self._state.optimizer, member, self._members),
            "replay": {
                **with_prefix("replay", self.replay.state_dict(member)),
                **with_prefix("n_step", self._window.state_dict(envs)),
            },
            "rings": {"replay": self.replay.ring("replay", member)},
            "state": {
                "env_steps": int(self._env_steps[member]),
                "episodes": int(self._episodes[member]),
                "gradient_steps": int(self._gradient_steps[member]),
                "target_seen": [int(self._targets.seen_steps[member]), int(self._targets.seen_episodes[member])],
                "exploration_draws": self._exploration_draws[member].state_dict(),
                "replay_draws": self._replay_draws[member].state_dict(),
            },
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]], member: int = 0) -> None:
        plain = state["state"]
        for name, params in self._state.networks.items():
            self._structure(name).load_state_dict(without_prefix(name, state["network"]), member, params)
        own = member_of(self._state.optimizer, member, self._members)
        for name, tensor in state["optimizer"].items():
            own[name].copy_(tensor)
        self.replay.load_state_dict(without_prefix("replay", state["replay"]), member)
        self._window.load_state_dict(without_prefix("n_step", state["replay"]), self._envs_of(member))
        self._env_steps[member], self._episodes[member] = plain["env_steps"], plain["episodes"]
        self._gradient_steps[member] = plain["gradient_steps"]
        self._targets.seen_steps[member], self._targets.seen_episodes[member] = plain["target_seen"]
        self._exploration_draws[member].load_state_dict(plain["exploration_draws"])
        self._replay_draws[member].load_state_dict(plain["replay_draws"])

    def load_network(self, network: Mapping[str, Tensor], member: int = 0) -> None:
        super().load_network(network, member)
        for target, own in self._algorithm.follows.items():
            of_member = self.networks[own].of_member
            of_member(self._state.networks[target], member).copy_(of_member(self._state.networks[own], member))
