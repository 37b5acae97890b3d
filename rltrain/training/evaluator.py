"""Greedy evaluation on environments and random streams of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rltrain.config.schema import EnvConfig
from rltrain.engine.protocol import Policy
from rltrain.envs.vector import VectorEnv, make_vector_env
from rltrain.seeding import derive_seed

REPORT_EPISODES = 100
"""Episodes of a result that is reported, as in the literature's protocols."""
REPORT_KEY = 0
"""The stream of reported results; an evaluation during training uses its environment step, which is never 0."""
CONFIRM_KEY_OFFSET = 1 << 48
_MOST_LANES = 20
_MOST_LANES_OF_ALL = 320  # of a population's evaluation
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
        seed: of the run; of a population one per member.
        episodes: the most that one evaluation will play; up to 20 are played side by side.
        statistics: gives what the wrappers know of the environment (`VectorEnv.statistics`), asked at each evaluation.
    """

    def __init__(
        self,
        config: EnvConfig,
        seed: int | Sequence[int],
        episodes: int,
        statistics: Callable[[], Mapping[str, np.ndarray]] = dict,
    ) -> None:
        self._statistics = statistics
        self._config = config
        self._seeds = [seed] if isinstance(seed, int) else list(seed)
        most = max(1, _MOST_LANES_OF_ALL // len(self._seeds))
        self._lanes = min(episodes, _MOST_LANES, most)  # of each member
        self._keys = [0] * len(self._seeds)
        self._envs: VectorEnv | None = None

    def evaluate(
        self, policy: Policy, episodes: int, key: int, stop: Callable[[], bool] = lambda: False
    ) -> EpisodeStatistics | None:
        """`episodes` greedy episodes of the stream `key`; None if `stop` became true first.

        Raises:
            RunFailed: an environment failed.
        """
        results = self.evaluate_members(policy, episodes, {0: key}, stop)
        return None if results is None else results[0]

    def evaluate_members(
        self, policy: Policy, episodes: int, keys: Mapping[int, int], stop: Callable[[], bool] = lambda: False
    ) -> dict[int, EpisodeStatistics] | None:
        """The same for several members of a population at once.

        Args:
            policy: acts for all members, whose observations come one member after the other.
            keys: the stream of each member that is evaluated.
        """
        envs, members = self._environments(), len(self._seeds)
        for member, key in keys.items():
            self._keys[member] = key
        envs.load_statistics(self._statistics())
        obs = envs.reset()
        returns: dict[int, dict[int, float]] = {member: {} for member in keys}
        lanes = np.arange(self._lanes)
        shares = np.zeros((members, self._lanes), dtype=np.int64)  # episodes that each lane plays
        shares[list(keys)] = episodes // self._lanes + (lanes < episodes % self._lanes)
        share = shares.reshape(-1)
        played = np.zeros_like(share)
        while (active := played < share).any():
            if stop():
                return None
            _, obs, finished = envs.step(policy.act_greedy(obs), active)
            for episode in finished:
                played[episode.env] += 1
                member, lane = divmod(episode.env, self._lanes)
                returns[member][self._episode_id(lane, episode.number)] = episode.episode_return
        return {
            member: EpisodeStatistics(tuple(found[number] for number in sorted(found)))
            for member, found in returns.items()
        }

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
            members = len(self._seeds)
            lanes = members * self._lanes
            envs = make_vector_env(self._config, lanes, self._episode_seed, members, frozen=True)
            if envs.max_episode_steps is None:
                envs.close()
                limited = replace(self._config, max_episode_steps=_LONGEST_EPISODE)
                envs = make_vector_env(limited, lanes, self._episode_seed, members, frozen=True)
            self._envs = envs
        return self._envs

    def _episode_id(self, lane: int, number: int) -> int:
        return number * self._lanes + lane

    def _episode_seed(self, env: int, number: int) -> int:
        member, lane = divmod(env, self._lanes)
        return derive_seed(self._seeds[member], "evaluation", self._keys[member], self._episode_id(lane, number))
