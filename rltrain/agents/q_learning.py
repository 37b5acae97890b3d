"""Tabular Q-learning. Watkins & Dayan 1992; Sutton & Barto 2018, section 6.5.

    Q(s, a) <- Q(s, a) + alpha [r + gamma max_a' Q(s', a') - Q(s, a)]                                              (6.8)

A step reads two rows of a table and writes one number. So the rule is plain Python on float64 numbers of a NumPy table:
for a handful of numbers that is several times as fast as array operations, and a hundred times as fast as a device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from rltrain.config.schema import QLearningConfig
from rltrain.engine.protocol import AgentContext, StateDict
from rltrain.errors import RequestError
from rltrain.maths.schedules import make_schedule
from rltrain.seeding import RandomBlocks, make_generator
from rltrain.types import Episode, Transition


def td_target(reward: float, discount: float, next_q_values: Sequence[float]) -> float:
    """r + discount max_a' Q(s', a'); `discount` is gamma, and 0 where the MDP terminated: nothing comes after it."""
    return reward + discount * max(next_q_values)


def step_size(alpha: float, alpha_decay: float, visits: int) -> float:
    """alpha(s, a) = alpha / n(s, a)^alpha_decay, n counted from 1.

    A constant for a decay of 0 and the sample average's 1/n for 1; between them the polynomial rates of Even-Dar &
    Mansour 2003. Above 1/2 they meet the conditions under which Q converges to Q* (Watkins & Dayan 1992).
    """
    return float(alpha / visits**alpha_decay)


def epsilon_greedy(q_values: Sequence[float], epsilon: float, first: float, second: float) -> int:
    """With probability epsilon any action, else one of those of the highest value; equally likely among themselves.

    Args:
        q_values: Q(s, .).
        first, second: uniform on [0, 1): whether to explore, and which action.
    """
    if first < epsilon:
        return int(second * len(q_values))
    highest = max(q_values)
    greedy = [action for action, q_value in enumerate(q_values) if q_value == highest]
    return greedy[int(second * len(greedy))]


class GreedyRow(nn.Module):
    """argmax_a Q(s, a) by looking it up: what is exported."""

    q_table: Tensor

    def __init__(self, q_table: Tensor) -> None:
        super().__init__()
        self.register_buffer("q_table", q_table)  # [S, A]

    def forward(self, obs: Tensor) -> Tensor:
        return self.q_table[obs].argmax(-1)


class EpsilonGreedyTable:
    """The policy of one table, Q [S, A], that acts as in training with an epsilon of then."""

    def __init__(self, q_table: np.ndarray, epsilon: float, seed: int) -> None:
        self._q_table, self._epsilon = q_table, epsilon
        self._generator = make_generator(seed, "evaluation")

    def act_greedy(self, obs: np.ndarray) -> np.ndarray:
        """States [N] -> actions [N], not the best ones alone: the evaluator asks by this name."""
        rows, draws = self._q_table[obs].tolist(), self._generator.random((len(obs), 2)).tolist()
        pairs = zip(rows, draws, strict=True)
        return np.array([epsilon_greedy(row, self._epsilon, *two) for row, two in pairs], np.int64)


class GreedyTable:
    """The policy that takes argmax_a Q(s, a); of equal values the first.

    Attributes:
        q_table: Q [M, S, A], float64, member by member.
    """

    def __init__(self, context: AgentContext) -> None:
        if context.observation.kind != "discrete" or context.action.kind != "discrete":
            raise RequestError("algo=q_learning: needs Discrete observations and Discrete actions")
        shape = context.observation.n, context.action.n
        algos = [cast(QLearningConfig, config.algo) for config in context.configs]
        self.q_table = np.stack([np.full(shape, algo.initial_value) for algo in algos])
        self._schedules = [make_schedule(c.exploration) for c in context.configs if c.exploration is not None]

    def act_greedy(self, obs: np.ndarray) -> np.ndarray:
        members, states, _ = self.q_table.shape
        row = obs.reshape(members, -1) + states * np.arange(members)[:, None]  # [M, N]
        q_values = self.q_table.reshape(members * states, -1)[row.reshape(-1)]  # [M * N, A]
        action: np.ndarray = q_values.argmax(-1)
        return action

    def exploring(self, seed: int, env_step: int, episodes: int) -> EpsilonGreedyTable:
        """See `Explorer`."""
        return EpsilonGreedyTable(self.q_table[0], float(self._schedules[0](env_step, episodes)), seed)

    def greedy_module(self) -> nn.Module:
        """States [B] -> the single run's greedy actions [B], as a module."""
        return GreedyRow(torch.from_numpy(self.q_table[0].copy()))

    def load_network(self, network: Mapping[str, Tensor], member: int = 0) -> None:
        table = network["q_table"].numpy()
        if table.shape != self.q_table.shape[1:]:
            raise ValueError(f"its q_table has the shape {table.shape}, not {self.q_table.shape[1:]} (states, actions)")
        self.q_table[member] = table


class QLearning(GreedyTable):
    """The agent: acts epsilon-greedily, learns from each transition once, and keeps none.

    With several environments all act on the table from before the vector step. Then their transitions are learnt in the
    order of the environments, each from the table that the one before it left.

    Attributes:
        visits: n(s, a) [M, S, A], how often each entry was updated.
    """

    def __init__(self, context: AgentContext) -> None:
        super().__init__(context)
        configs = context.configs
        self._algos = [cast(QLearningConfig, config.algo) for config in configs]
        self._num_envs = context.config.num_envs
        self.visits = np.zeros(self.q_table.shape, np.int64)
        # The same memory, entry after entry: one number is read from it faster than from an array.
        self._q, self._n = self.q_table.reshape(-1).data, self.visits.reshape(-1).data
        self._draws = RandomBlocks([c.seed for c in configs], "exploration")
        self._env_steps, self._episodes = [0] * len(configs), [0] * len(configs)
        self._running = list(range(len(configs)))  # the members that do
        self.active = np.ones(len(configs) * self._num_envs, dtype=bool)
        self.waiting = np.zeros(len(configs), dtype=bool)
        self._transition: Transition | None = None

    @property
    def gradient_steps(self) -> int:
        """Updates of the table, one per environment step."""
        return max(self._env_steps)

    @property
    def num_parameters(self) -> dict[str, int]:
        return {"q_table": self.q_table[0].size}

    @property
    def replay_bytes(self) -> int:
        return 0

    def epsilon(self, member: int = 0) -> float:
        """The probability that the member's next action is drawn uniformly."""
        return float(self._schedules[member](self._env_steps[member], self._episodes[member]))

    def act(self, obs: np.ndarray) -> np.ndarray:
        num_envs, states = self._num_envs, obs.tolist()
        draws = self._draws.take(2 * num_envs, self._running).tolist()  # [M, 2 N]
        actions = [0] * len(states)
        for member in self._running:
            epsilon, (firsts, seconds) = self.epsilon(member), (draws[member][:num_envs], draws[member][num_envs:])
            for env, (first, second) in enumerate(zip(firsts, seconds, strict=True), start=member * num_envs):
                row = self._row(member, states[env])
                actions[env] = epsilon_greedy(self._q[row], epsilon, first, second)
        return np.array(actions, np.int64)

    def observe(self, transition: Transition, episodes: list[Episode]) -> None:
        self._transition = transition
        for member in self._running:
            self._env_steps[member] += self._num_envs
        for episode in episodes:
            self._episodes[episode.env // self._num_envs] += 1

    def update(self) -> dict[str, Tensor]:
        step, self._transition = self._transition, None
        if step is None:
            return {}
        columns = (step.obs, step.action, step.reward, step.next_obs, step.terminated)
        rows = list(zip(*(column.tolist() for column in columns), strict=True))  # [M * N] of (s, a, r, s', terminated)
        means = np.zeros((3, len(self._algos)))
        for member in self._running:
            own = rows[member * self._num_envs : (member + 1) * self._num_envs]
            learnt = [self._learn(member, *row) for row in own]  # [N] of (squared error, Q, step size)
            means[:, member] = [sum(column) / self._num_envs for column in zip(*learnt, strict=True)]
        tensors = torch.from_numpy(means if len(self._algos) > 1 else means[:, 0]).unbind()
        return dict(zip(("train/td_loss", "train/q_value", "train/learning_rate"), tensors, strict=True))

    def _learn(
        self, member: int, obs: int, action: int, reward: float, next_obs: int, terminated: bool
    ) -> tuple[float, float, float]:
        """(6.8) for one transition; the squared TD error, Q(s, a) before it, and the step size."""
        q, n, algo = self._q, self._n, self._algos[member]
        entry = self._row(member, obs).start + action
        discount = 0.0 if terminated else algo.gamma
        q_value = q[entry]
        td_error = td_target(reward, discount, q[self._row(member, next_obs)]) - q_value
        n[entry] += 1
        alpha = step_size(algo.alpha, algo.alpha_decay, n[entry])
        q[entry] = q_value + alpha * td_error
        return td_error * td_error, q_value, alpha

    def _row(self, member: int, state: int) -> slice:
        """Where Q(s, .) of a member lies among all entries."""
        _, states, actions = self.q_table.shape
        start = (member * states + state) * actions
        return slice(start, start + actions)

    def scalars(self, member: int = 0) -> dict[str, float]:
        return {"train/epsilon": self.epsilon(member)}

    @property
    def gammas(self) -> np.ndarray:
        return np.array([algo.gamma for algo in self._algos])

    def state_values(self, obs: np.ndarray, member: int = 0) -> np.ndarray:
        values: np.ndarray = self.q_table[member, obs].max(-1)
        return values

    def diagnostics(self, obs: np.ndarray, member: int = 0) -> dict[str, float]:
        """The share of entries that were ever updated."""
        return {"diagnostics/visited_entries": float((self.visits[member] > 0).mean())}

    def retire(self, member: int) -> None:
        self._running = [other for other in self._running if other != member]
        self.active[member * self._num_envs : (member + 1) * self._num_envs] = False

    def abandon_episodes(self, envs: np.ndarray) -> None:
        """Does nothing: no part of a running episode is kept."""

    def load_network(self, network: Mapping[str, Tensor], member: int = 0) -> None:
        super().load_network(network, member)
        if "visits" in network:
            self.visits[member] = network["visits"].numpy()

    def state_dict(self, member: int = 0) -> StateDict:
        return {
            "network": {"q_table": torch.from_numpy(self.q_table[member].copy())},
            "optimizer": {"visits": torch.from_numpy(self.visits[member].copy())},
            "replay": {},
            "state": {
                "env_steps": self._env_steps[member],
                "episodes": self._episodes[member],
                "exploration_draws": self._draws[member].state_dict(),
            },
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]], member: int = 0) -> None:
        plain = state["state"]
        self.load_network({**state["network"], **state["optimizer"]}, member)
        self._env_steps[member], self._episodes[member] = plain["env_steps"], plain["episodes"]
        self._draws[member].load_state_dict(plain["exploration_draws"])
