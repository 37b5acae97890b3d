"""Greedy evaluation on environments and random streams of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from rltrain.agents.agent import Policy
from rltrain.config.schema import EnvConfig
from rltrain.envs.vector import VectorEnv, make_vector_env
from rltrain.seeding import derive_seed

REPORT_EPISODES = 100
"""Episodes of a result that is reported, as in the literature's protocols."""
REPORT_KEY = 0
"""The stream of reported results; an evaluation during training uses its environment step, which is never 0."""
CONFIRM_KEY_OFFSET = 1 << 48
_MOST_LANES = 20
# A greedy policy may never end an episode of an environment without a time limit.
_LONGEST_EPISODE = 10_000


@dataclass(frozen=True)
class EpisodeStatistics:
    """Undiscounted, unclipped returns of the episodes of one evaluation."""

    returns: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """The deviation over the episodes (of the population: n, not n - 1)."""
        return float(np.std(self.returns))

    def to_plain(self) -> dict[str, float]:
        return {"mean": self.mean, "std": self.std, "min": min(self.returns), "max": max(self.returns)}


class Evaluator:
    """Plays greedy episodes; the same policy, seed and key give the same returns, whatever else happened.

    Args:
        config: the environment's keys; its environments are built at the first evaluation and kept.
        seed: of the run.
        episodes: the most that one evaluation will play; up to 20 are played side by side.
    """

    def __init__(self, config: EnvConfig, seed: int, episodes: int) -> None:
        self._config = config
        self._seed = seed
        self._lanes = min(episodes, _MOST_LANES)
        self._key = 0
        self._envs: VectorEnv | None = None

    def evaluate(
        self, policy: Policy, episodes: int, key: int, stop: Callable[[], bool] = lambda: False
    ) -> EpisodeStatistics | None:
        """`episodes` greedy episodes of the stream `key`; None if `stop` became true first.

        Raises:
            RunFailed: an environment failed.
        """
        envs = self._environments()
        self._key = key
        obs = envs.reset()
        returns: dict[int, float] = {}
        share = np.full(self._lanes, episodes // self._lanes) + (np.arange(self._lanes) < episodes % self._lanes)
        played = np.zeros(self._lanes, dtype=np.int64)
        while len(returns) < episodes:
            if stop():
                return None
            _, obs, finished = envs.step(policy.act_greedy(obs), played < share)
            for episode in finished:
                played[episode.env] += 1
                returns[self._episode_id(episode.env, episode.number)] = episode.episode_return
        return EpisodeStatistics(tuple(returns[number] for number in sorted(returns)))

    @property
    def reward_threshold(self) -> float | None:
        """The return that counts as solved, where the environment says so."""
        return self._environments().reward_threshold

    def close(self) -> None:
        if self._envs is not None:
            self._envs.close()
            self._envs = None

    def _environments(self) -> VectorEnv:
        if self._envs is None:
            envs = make_vector_env(self._config, self._lanes, self._episode_seed)
            if envs.max_episode_steps is None:
                envs.close()
                limited = replace(self._config, max_episode_steps=_LONGEST_EPISODE)
                envs = make_vector_env(limited, self._lanes, self._episode_seed)
            self._envs = envs
        return self._envs

    def _episode_id(self, lane: int, number: int) -> int:
        return number * self._lanes + lane

    def _episode_seed(self, lane: int, number: int) -> int:
        return derive_seed(self._seed, "evaluation", self._key, self._episode_id(lane, number))
