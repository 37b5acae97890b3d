"""Deep Q-networks. Mnih et al. 2015 (algorithm 1); double Q-learning, van Hasselt et al. 2016; n-step returns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import islice, pairwise
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from rltrain.agents.agent import AgentContext, Block, StateDict, SteppedByAgent, with_prefix, without_prefix
from rltrain.agents.dqn_device import Learner, Stepper
from rltrain.agents.dqn_targets import Due, MemberTargets
from rltrain.agents.dqn_update import METRICS, DQNState, make_hyperparameters
from rltrain.agents.members import GreedyModule, MemberNetworks, member_of, stack_members
from rltrain.config.schema import DQNConfig, PerEpisodeConfig
from rltrain.networks import make_network
from rltrain.optimizers import init_optimizer
from rltrain.replay import UniformReplay
from rltrain.replay.n_step import NStepWindow
from rltrain.schedules import make_schedule
from rltrain.seeding import RandomBlock, RandomBlocks, derive_seed, make_generator
from rltrain.types import Episode, Transition

# Gradient steps in one call of a compiled program. With four the cost of a call is spread; the program grows with more.
_MOST_STEPS_PER_CALL = 4
# Vector steps before the host looks: with 64 what it does then is spread. First states and draws take memory.
_MOST_DEPTH, _MOST_LANES, _MOST_DRAWS = 64, 2**17, 2**22


class GreedyQ:
    """The policy that takes argmax_a Q(s, a; theta)."""

    def __init__(self, context: AgentContext) -> None:
        self._device = context.device
        self._num_actions = context.action.n
        networks = [
            make_network(c.network, context.observation, context.action.n, derive_seed(c.seed, "network"), self._device)
            for c in context.configs
        ]
        self.q_network = MemberNetworks(networks, context.compile_update, context.cuda_graphs)

    def act_greedy(self, obs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            q_values = self.q_network(torch.from_numpy(obs).to(self._device))  # [N, A]
            # The one wait for the device per step: the environments need the actions.
            action: np.ndarray = q_values.argmax(-1).cpu().numpy()
        return action

    def greedy_module(self) -> nn.Module:
        """obs [B, *obs] -> actions [B], as a module of its own."""
        return GreedyModule(self.q_network.module(), lambda q_values: q_values.argmax(-1))

    def load_network(self, network: Mapping[str, Tensor], member: int = 0) -> None:
        self.q_network.load_state_dict(without_prefix("q_network", network), member)


class DQN(GreedyQ):
    """The agent: acts epsilon-greedily, keeps transitions, and makes gradient steps when they are due.

    At environment step s, floor((s - learning_starts) / train_period) * gradient_steps gradient steps have been made,
    whatever the number of environments. The members of a population move together: those that run have made the same
    number of environment and gradient steps.
    """

    def __init__(self, context: AgentContext) -> None:
        super().__init__(context)
        configs, run, device = context.configs, context.config, context.device
        config = cast(DQNConfig, run.algo)
        algos = [cast(DQNConfig, c.algo) for c in configs]
        self._config, self._configs = config, configs
        self._members, self._num_envs = len(configs), run.num_envs
        self._running = np.ones(self._members, dtype=bool)
        self._leader = 0  # a member that runs, as long as one does: they move together
        self.active = np.ones(self._members * run.num_envs, dtype=bool)
        self.waiting = np.zeros(self._members, dtype=bool)
        self._env_member = np.repeat(np.arange(self._members), run.num_envs)  # [M * N]
        params = self.q_network.params
        target_params = params.clone()  # [P], theta^-; of a population [M, P]
        first = self.q_network.of_member(params, 0)
        optimizer = stack_members([init_optimizer(config.optimizer, first) for _ in configs])
        self._state = DQNState(params, target_params, optimizer)  # changes in place
        self._retired_state: list[Tensor] = []  # of the members `_retired`, as `DQNState.tensors`
        updates = [c.target_update for c in configs if c.target_update is not None]
        self._targets = MemberTargets(updates, target_params, params)
        hyperparameters = stack_members(
            [make_hyperparameters(algo, device, tau) for algo, tau in zip(algos, self._targets.taus, strict=True)]
        )
        self._steps_per_call = self._choose_steps_per_call() if context.compile_update or context.cuda_graphs else 1
        self._schedules = [make_schedule(c.exploration) for c in configs if c.exploration is not None]
        # What is due then depends on which episodes have ended: somebody must look after every vector step.
        by_episodes = (isinstance(c.exploration, PerEpisodeConfig) for c in configs)
        self._follows_episodes = self._targets.by_episodes or any(by_episodes)
        self._iterates = run.env.vectorization == "compiled"
        spaces = context.observation, context.action
        self.replay = UniformReplay(config.buffer_size, *spaces, device, self._members, spare_row=self._iterates)
        gammas = np.repeat([algo.gamma for algo in algos], run.num_envs)  # [M * N]
        where = device if self._iterates else torch.device("cpu")
        self._window = NStepWindow(config.n_step, gammas, len(gammas), *spaces, where)
        depth = self._choose_depth() if self._iterates else 1
        self._learner = Learner(
            context,
            config,
            self.q_network,
            self._state,
            hyperparameters,
            self.replay,
            self._steps_per_call,
            depth * self._most_calls,
        )
        self._make_stepper = partial(Stepper, context, self.q_network, self.replay, self._window, depth=depth)
        self._stepper: Stepper | None = None
        self._exploration_draws = RandomBlocks([RandomBlock(make_generator(c.seed, "exploration")) for c in configs])
        block_size = 64 * config.batch_size
        self._replay_draws = RandomBlocks(
            [RandomBlock(make_generator(c.seed, "replay"), block_size=block_size) for c in configs]
        )
        self._env_steps, self._episodes, self._gradient_steps = (
            np.zeros(self._members, dtype=np.int64) for _ in range(3)
        )  # each [M]

    def _choose_steps_per_call(self) -> int:
        """K: divides the steps that are due together and, where targets move between calls, the time between moves."""
        common = math.gcd(self._config.gradient_steps, *self._targets.between_calls)
        return max(k for k in range(1, _MOST_STEPS_PER_CALL + 1) if common % k == 0)

    @property
    def _most_calls(self) -> int:
        """Calls of the learner that can be due after one vector step."""
        rounds = -(-self._num_envs // self._config.train_period)
        return rounds * self._config.gradient_steps // self._steps_per_call

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
        return {"q_network": self._state.params.shape[-1]}

    @property
    def replay_bytes(self) -> int:
        return self.replay.nbytes

    def epsilon(self, member: int = 0) -> float:
        """The probability that the member's next action is drawn uniformly."""
        return float(self._schedules[member](int(self._env_steps[member]), int(self._episodes[member])))

    def act(self, obs: np.ndarray) -> np.ndarray:
        explore, random_action = self._explore()
        if explore.all():
            return random_action
        return np.where(explore, random_action, self._act_greedy_in_training(obs))

    def _explore(self) -> tuple[np.ndarray, np.ndarray]:
        """Which environments explore, and the actions that they would take: each [M * N]."""
        explore, random_action = self._explore_steps(1)
        return explore[0], random_action[0]

    def _explore_steps(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """The same for vector steps in which no episode changes epsilon: each [steps, M * N]."""
        shape = self._members, steps, 2, self._num_envs
        draws = self._exploration_draws.take(2 * self._num_envs * steps).reshape(shape).swapaxes(0, 1)
        epsilon = np.empty((steps, self._members, 1))
        ahead = np.arange(0, steps * self._num_envs, self._num_envs)  # [steps]
        for member, schedule in enumerate(self._schedules):
            epsilon[:, member, 0] = schedule(self._env_steps[member] + ahead, int(self._episodes[member]))
        explore = (draws[:, :, 0] < epsilon).reshape(steps, -1)
        return explore, (draws[:, :, 1] * self._num_actions).astype(np.int64).reshape(steps, -1)

    def _act_greedy_in_training(self, obs: np.ndarray) -> np.ndarray:
        action: np.ndarray = self.q_network.act(obs).cpu().numpy().argmax(-1)  # [M * N]
        return action

    def iterate(self, envs: SteppedByAgent, most: int) -> Block:
        """Vector steps with the environments on the device, for `env.vectorization=compiled`."""
        if self._stepper is None:
            self._stepper = self._make_stepper(envs=envs)
        stepper = self._stepper
        steps = 1 if self._follows_episodes else min(most, stepper.depth)
        calls = self._calls_ahead(steps)
        stepper.prepare(*self._explore_steps(steps), self._running)
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
        due = [self._gradient_steps_by(self.env_steps + number * self._num_envs) for number in range(1, steps + 1)]
        return [(now - before) // self._steps_per_call for before, now in pairwise([made, *due])]

    def _metrics_by_step(self, calls: list[int]) -> dict[str, np.ndarray]:
        """[U] or [U, M] by tag: means over the calls of each vector step that had any."""
        found = self._learner.fetch(sum(calls))  # [calls, METRICS, M]
        if max(calls) > 1:
            ends = np.cumsum(calls)
            found = np.array([found[end - n : end].mean(0) for n, end in zip(calls, ends, strict=True) if n])
        return {tag: found[:, number].copy() for number, tag in enumerate(METRICS)} if len(found) else {}

    def observe(self, transition: Transition, episodes: list[Episode]) -> None:
        self._env_steps += self._num_envs * self._running
        self._count_episodes(episodes)
        for envs, columns in self._window.push_with_envs(transition):
            self.replay.add(*columns, members=self._env_member[envs])

    def _count_episodes(self, episodes: list[Episode]) -> None:
        for episode in episodes:
            self._episodes[self._env_member[episode.env]] += 1

    def update(self) -> dict[str, Tensor]:
        calls = (self._gradient_steps_by(self.env_steps) - self.gradient_steps) // self._steps_per_call
        self._prepare_calls(calls)
        with torch.no_grad():
            self._learn(self._targets_at_calls(calls))
        self._count_gradient_steps(calls)
        self._targets.move_since(self._env_steps, self._episodes)
        return self._learner.metrics(calls) if calls else {}

    def _gradient_steps_by(self, env_steps: int) -> int:
        """That are to have been made when so many environment steps are."""
        config = self._config
        return max(0, env_steps - config.learning_starts) // config.train_period * config.gradient_steps

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
        return {
            "train/epsilon": self.epsilon(member),
            "train/learning_rate": cast(DQNConfig, self._configs[member].algo).optimizer.lr,
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

    def state_dict(self, member: int = 0) -> StateDict:
        network, envs = self.q_network, self._envs_of(member)
        return {
            "network": {
                **with_prefix("q_network", network.state_dict(member)),
                **with_prefix("target_network", network.state_dict(member, self._state.target_params)),
            },
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
        network, plain = self.q_network, state["state"]
        network.load_state_dict(without_prefix("q_network", state["network"]), member)
        network.load_state_dict(without_prefix("target_network", state["network"]), member, self._state.target_params)
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
        of_member = self.q_network.of_member
        of_member(self._state.target_params, member).copy_(of_member(self._state.params, member))
