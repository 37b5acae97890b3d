"""Deep Q-networks. Mnih et al. 2015 (algorithm 1); double Q-learning, van Hasselt et al. 2016; n-step returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from rltrain.agents.agent import AgentContext, StateDict, SteppedByAgent, mean_metrics, with_prefix, without_prefix
from rltrain.agents.dqn_iteration import Iterations, Lanes, check_in_torch, make_act_and_store
from rltrain.agents.dqn_update import DQNState, Phase, make_hyperparameters, make_phase, make_update
from rltrain.agents.members import GreedyModule, MemberNetworks, keep_retired, member_of, stack_members
from rltrain.compiling import compiled, note_compiled
from rltrain.config.schema import DQNConfig
from rltrain.networks import make_network
from rltrain.optimizers import functional_gradient, init_optimizer
from rltrain.replay import UniformReplay
from rltrain.replay.n_step import NStepWindow
from rltrain.schedules import make_schedule
from rltrain.seeding import RandomBlock, RandomBlocks, derive_seed, make_generator
from rltrain.target_update import TargetUpdate, move_targets_
from rltrain.types import Episode, Transition

# Gradient steps in one call of a compiled program. With four the cost of a call is spread; the program grows with more.
_MOST_STEPS_PER_CALL = 4


class GreedyQ:
    """The policy that takes argmax_a Q(s, a; theta)."""

    def __init__(self, context: AgentContext) -> None:
        self._device = context.device
        self._num_actions = context.action.n
        networks = [
            make_network(c.network, context.observation, context.action.n, derive_seed(c.seed, "network"), self._device)
            for c in context.configs
        ]
        self.q_network = MemberNetworks(networks, context.compile_update)

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
        self._all_run = True
        self._leader = 0  # a member that runs, as long as one does: they move together
        self.active = np.ones(self._members * run.num_envs, dtype=bool)
        self.waiting = np.zeros(self._members, dtype=bool)
        self._env_member = np.repeat(np.arange(self._members), run.num_envs)  # [M * N]
        params = self.q_network.params
        self._target_params = params.clone()  # [P], theta^-; of a population [M, P]
        first = self.q_network.of_member(params, 0)
        self._optimizer = stack_members([init_optimizer(config.optimizer, first) for _ in configs])
        self._target_updates = [TargetUpdate(c.target_update) for c in configs if c.target_update is not None]
        self._targets_by_gradient_steps = any(target.unit == "gradient_steps" for target in self._target_updates)
        self._targets_in_phase = all(target.every_gradient_step for target in self._target_updates)
        taus = [target.tau if self._targets_in_phase else None for target in self._target_updates]
        self._hyperparameters = stack_members(
            [make_hyperparameters(algo, device, tau) for algo, tau in zip(algos, taus, strict=True)]
        )
        self._steps_per_call = self._choose_steps_per_call() if context.compile_update else 1
        self._compiles = context.compile_update
        self._phases = self._make_phases()
        self._phase = self._make_phase()
        self._iterations: Iterations | None = None
        self._schedules = [make_schedule(c.exploration) for c in configs if c.exploration is not None]
        self.replay = UniformReplay(config.buffer_size, context.observation, context.action, device, self._members)
        self._gammas = np.repeat([algo.gamma for algo in algos], run.num_envs)  # [M * N]
        self._window = NStepWindow(config.n_step, self._gammas, len(self._gammas), context.observation, context.action)
        self._exploration_draws = RandomBlocks([RandomBlock(make_generator(c.seed, "exploration")) for c in configs])
        block_size = 64 * config.batch_size
        self._replay_draws = RandomBlocks(
            [RandomBlock(make_generator(c.seed, "replay"), block_size=block_size) for c in configs]
        )
        # Each [M]; the last two are what the target's schedule was last asked about.
        self._env_steps, self._episodes, self._gradient_steps, self._seen_steps, self._seen_episodes = (
            np.zeros(self._members, dtype=np.int64) for _ in range(5)
        )

    def _choose_steps_per_call(self) -> int:
        """K: divides the steps that are due together and, where targets move between calls, the time between moves."""
        between = [] if self._targets_in_phase or not self._targets_by_gradient_steps else self._target_updates
        common = math.gcd(self._config.gradient_steps, *(target.period for target in between))
        return max(k for k in range(1, _MOST_STEPS_PER_CALL + 1) if common % k == 0)

    def _make_phases(self) -> tuple[Phase, Phase]:
        """What is compiled, and what runs where nothing is."""
        apply = self.q_network.apply
        functional = make_update(self._config, apply, functional_gradient)
        if self._members > 1:
            functional = eager = torch.vmap(functional)
        else:
            eager = make_update(self._config, apply)
        return make_phase(functional), make_phase(eager)

    def _make_phase(self) -> Phase:
        functional, eager = self._phases
        if not self._compiles:
            return eager
        done = partial(note_compiled, self._configs[0], self._members)
        return compiled(functional, eager, fixed_shapes=True, done=done)

    @property
    def env_steps(self) -> int:
        """Of the members that run: they move together."""
        return int(self._env_steps[self._leader])

    @property
    def gradient_steps(self) -> int:
        return int(self._gradient_steps[self._leader])

    @property
    def num_parameters(self) -> dict[str, int]:
        return {"q_network": self._target_params.shape[-1]}

    @property
    def replay_bytes(self) -> int:
        return self.replay.nbytes

    def epsilon(self, member: int = 0) -> float:
        """The probability that the member's next action is drawn uniformly."""
        return self._schedules[member](int(self._env_steps[member]), int(self._episodes[member]))

    def act(self, obs: np.ndarray) -> np.ndarray:
        explore, random_action = self._explore()
        if explore.all():
            return random_action
        return np.where(explore, random_action, self._act_greedy_in_training(obs))

    def _explore(self) -> tuple[np.ndarray, np.ndarray]:
        """Which environments explore, and the actions that they would take: each [M * N]."""
        draws = self._exploration_draws.take(2 * self._num_envs).reshape(self._members, 2, -1)  # [M, 2, N]
        epsilon = np.array([[self.epsilon(member)] for member in range(self._members)])  # [M, 1]
        explore = (draws[:, 0] < epsilon).reshape(-1)
        return explore, (draws[:, 1] * self._num_actions).astype(np.int64).reshape(-1)

    def _act_greedy_in_training(self, obs: np.ndarray) -> np.ndarray:
        action: np.ndarray = self.q_network.act(obs).cpu().numpy().argmax(-1)  # [M * N]
        return action

    def iterate(self, envs: SteppedByAgent) -> tuple[np.ndarray, list[Episode], dict[str, Tensor]]:
        """act, step, observe and update as one program, for `env.vectorization=compiled`; what `step` returns of
        observations and episodes, and what `update` returns."""
        if self._iterations is None:
            self._iterations = self._make_iterations(envs)
        lanes = self._lanes_before(envs)
        self._count_steps()
        due = self._due()
        rows = self._draw_rows() if due else None
        state = DQNState(self.q_network.params, self._target_params, self._optimizer)
        with torch.no_grad():
            new, metrics, stepped = self._iterations(state, self.replay.arrays, lanes, rows, self._hyperparameters)
        obs, episodes = envs.take_step(self.active, *(tensor.numpy() for tensor in stepped))
        self._count_episodes(episodes)
        if due:
            self._take_over(new, state)
            metrics += [self._make_gradient_steps() for _ in range(due // self._steps_per_call - 1)]
        self._move_targets_by_steps()
        return obs, episodes, mean_metrics(metrics)

    def _make_iterations(self, envs: SteppedByAgent) -> Iterations:
        check_in_torch(envs.twin, torch.from_numpy(envs.twin_state))
        act_and_store = make_act_and_store(self.q_network.apply, envs.twin, self._members)
        return Iterations(act_and_store, *self._phases, self._compiles)

    def _lanes_before(self, envs: SteppedByAgent) -> Lanes:
        explore, random_action = self._explore()
        places = self.replay.reserve(self._num_envs)
        drawn = (envs.twin_state, envs.obs, explore, random_action, self._gammas, places)
        return Lanes(*(torch.from_numpy(array) for array in drawn))

    def observe(self, transition: Transition, episodes: list[Episode]) -> None:
        self._count_steps()
        self._count_episodes(episodes)
        for envs, columns in self._window.push_with_envs(transition):
            self.replay.add(*columns, members=self._env_member[envs])

    def _count_steps(self) -> None:
        self._env_steps += self._running * self._num_envs

    def _count_episodes(self, episodes: list[Episode]) -> None:
        for episode in episodes:
            self._episodes[self._env_member[episode.env]] += 1

    def update(self) -> dict[str, Tensor]:
        steps = [self._make_gradient_steps() for _ in range(self._due() // self._steps_per_call)]
        self._move_targets_by_steps()
        return mean_metrics(steps)

    def _due(self) -> int:
        """Gradient steps."""
        config = self._config
        phases = max(0, self.env_steps - config.learning_starts) // config.train_period
        return phases * config.gradient_steps - self.gradient_steps

    def _move_targets_by_steps(self) -> None:
        """Targets that follow environment steps or episodes."""
        if not self._targets_by_gradient_steps:
            seen, now = (self._seen_steps, self._seen_episodes), (self._env_steps, self._episodes)
            counts = zip(self._target_updates, *(count.tolist() for count in (*seen, *now)), strict=True)
            self._move_targets([target.due_between((s, t), (e, f)) for target, s, e, t, f in counts])
        self._seen_steps, self._seen_episodes = self._env_steps.copy(), self._episodes.copy()

    def _move_targets(self, due: list[int]) -> None:
        """due [M]: how often each member's target moves."""
        move_targets_(self._target_params, self.q_network.params, self._target_updates, due)

    def _make_gradient_steps(self) -> dict[str, Tensor]:
        """K gradient steps in one call."""
        state = DQNState(self.q_network.params, self._target_params, self._optimizer)
        with torch.no_grad():
            new, metrics = self._phase(state, self.replay.arrays, self._draw_rows(), self._hyperparameters)
        self._take_over(new, state)
        return metrics

    def _draw_rows(self) -> Tensor:
        """[K, B] or [K, M, B]"""
        steps = self._steps_per_call
        return self.replay.rows(self._replay_draws.take(steps * self._config.batch_size), steps)

    def _take_over(self, new: DQNState, old: DQNState) -> None:
        """What K gradient steps made of the state."""
        with torch.no_grad():
            if not self._all_run:
                new = self._keep_retired(new, old)
            self.q_network.params.copy_(new.params)
        self._target_params, self._optimizer = new.target_params, new.optimizer
        self._gradient_steps += self._steps_per_call * self._running
        if self._targets_by_gradient_steps and not self._targets_in_phase:
            counts = zip(self._target_updates, self._gradient_steps.tolist(), self._running.tolist(), strict=True)
            self._move_targets([target.due_at_gradient_step(count) if runs else 0 for target, count, runs in counts])

    def _keep_retired(self, new: DQNState, old: DQNState) -> DQNState:
        running = torch.from_numpy(self._running).to(self._device)  # [M]
        return DQNState(
            keep_retired(running, new.params, old.params),
            keep_retired(running, new.target_params, old.target_params),
            {name: keep_retired(running, tensor, old.optimizer[name]) for name, tensor in new.optimizer.items()},
        )

    def scalars(self, member: int = 0) -> dict[str, float]:
        return {
            "train/epsilon": self.epsilon(member),
            "train/learning_rate": cast(DQNConfig, self._configs[member].algo).optimizer.lr,
            "train/gradient_steps": float(self._gradient_steps[member]),
        }

    def retire(self, member: int) -> None:
        self._running[member] = False
        self._all_run = False
        candidates = self._running if self._running.any() else ~self._running  # [M]
        self._leader = int(np.argmax(np.where(candidates, self._env_steps, -1)))
        self.active[self._envs_of(member)] = False

    def abandon_episodes(self, envs: np.ndarray) -> None:
        self._window.forget(envs)

    def _envs_of(self, member: int) -> slice:
        return slice(member * self._num_envs, (member + 1) * self._num_envs)

    def state_dict(self, member: int = 0) -> StateDict:
        network, envs = self.q_network, self._envs_of(member)
        return {
            "network": {
                **with_prefix("q_network", network.state_dict(member)),
                **with_prefix("target_network", network.state_dict(member, self._target_params)),
            },
            "optimizer": member_of(self._optimizer, member, self._members),
            "replay": {
                **with_prefix("replay", self.replay.state_dict(member)),
                **with_prefix("n_step", self._window.state_dict(envs)),
            },
            "rings": {"replay": self.replay.ring("replay", member)},
            "state": {
                "env_steps": int(self._env_steps[member]),
                "episodes": int(self._episodes[member]),
                "gradient_steps": int(self._gradient_steps[member]),
                "target_seen": [int(self._seen_steps[member]), int(self._seen_episodes[member])],
                "exploration_draws": self._exploration_draws[member].state_dict(),
                "replay_draws": self._replay_draws[member].state_dict(),
            },
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]], member: int = 0) -> None:
        network, plain = self.q_network, state["state"]
        network.load_state_dict(without_prefix("q_network", state["network"]), member)
        network.load_state_dict(without_prefix("target_network", state["network"]), member, self._target_params)
        own = member_of(self._optimizer, member, self._members)
        for name, tensor in state["optimizer"].items():
            own[name].copy_(tensor)
        self.replay.load_state_dict(without_prefix("replay", state["replay"]), member)
        self._window.load_state_dict(without_prefix("n_step", state["replay"]), self._envs_of(member))
        self._env_steps[member], self._episodes[member] = plain["env_steps"], plain["episodes"]
        self._gradient_steps[member] = plain["gradient_steps"]
        self._seen_steps[member], self._seen_episodes[member] = plain["target_seen"]
        self._exploration_draws[member].load_state_dict(plain["exploration_draws"])
        self._replay_draws[member].load_state_dict(plain["replay_draws"])

    def load_network(self, network: Mapping[str, Tensor], member: int = 0) -> None:
        super().load_network(network, member)
        of_member = self.q_network.of_member
        of_member(self._target_params, member).copy_(of_member(self.q_network.params, member))
