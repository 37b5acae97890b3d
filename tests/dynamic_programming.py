"""Exact values of Gymnasium's tabular environments, from the model `P` that they carry."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np


class Model:
    """P[s][a] = [(probability, s', reward, terminated), ...] as arrays.

    Attributes:
        moves: probability of s' where the MDP goes on, [S, A, S].
        rewards: expected, [S, A].
        starts: probability of the first state, [S].
        time_limit: steps of an episode; `longest` where the environment has none.
    """

    def __init__(self, id: str, longest: int = 200, **kwargs: Any) -> None:
        env = gymnasium.make(id, **kwargs)
        assert env.spec is not None
        tabular: Any = env.unwrapped
        states, actions = int(tabular.observation_space.n), int(tabular.action_space.n)
        self.moves, self.rewards = np.zeros((states, actions, states)), np.zeros((states, actions))
        for state in range(states):
            for action in range(actions):
                for probability, successor, reward, terminated in tabular.P[state][action]:
                    self.rewards[state, action] += probability * reward
                    self.moves[state, action, successor] += 0.0 if terminated else probability
        self.starts = np.asarray(tabular.initial_state_distrib, np.float64)
        self.time_limit = env.spec.max_episode_steps or longest

    def optimal_q(self, gamma: float) -> np.ndarray:
        """Q* [S, A] by value iteration."""
        q, change = np.zeros_like(self.rewards), 1.0
        while change > 1e-13:
            new = self.rewards + gamma * self.moves @ q.max(-1)
            q, change = new, float(np.abs(new - q).max())
        return q

    def mean_return(self, action: np.ndarray) -> float:
        """The expected undiscounted return of a policy [S] within the time limit, over the first states."""
        rows = np.arange(len(action))
        moves, rewards = self.moves[rows, action], self.rewards[rows, action]  # [S, S], [S]
        value = np.zeros(len(action))
        for _ in range(self.time_limit):
            value = rewards + moves @ value
        return float(self.starts @ value)
