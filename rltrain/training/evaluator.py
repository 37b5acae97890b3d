"""Greedy evaluation on environments and random streams of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Literal, cast

import numpy as np

from rltrain.config.schema import EnvConfig
from rltrain.engine.protocol import Critic, Policy
from rltrain.envs.choice import choose_exact
from rltrain.envs.make_vector import make_vector_env
from rltrain.envs.vector import VectorEnv
from rltrain.loggers.logger import EvaluationDisplay, NoDisplay
from rltrain.seeding import derive_seed
from rltrain.training.episode_tally import EpisodeStatistics, EpisodeTally
from rltrain.training.evaluation_limits import MOST_LANES, EvaluationLimits, evaluation_limits
from rltrain.training.some_members import SomeMembers, some_members, statistics_of
from rltrain.training.value_check import ValueCheck

__all__ = ["CONFIRM_KEY_OFFSET", "REPORT_EPISODES", "REPORT_KEY", "EpisodeStatistics", "Evaluator"]

REPORT_EPISODES = 100
"""Episodes of a result that is reported, as in the literature's protocols."""
REPORT_KEY = 0
"""The stream of reported results; an evaluation during training uses its environment step, which is never 0."""
CONFIRM_KEY_OFFSET = 1 << 48
_MOST_MADE = 320  # environments for a population's evaluation, where each is made by itself
_MAKING_SECONDS = 2.0  # after which no further environment is made; a simulator may take seconds for one


class Evaluator:
    """Plays greedy episodes; the same policy, seed and key give the same returns, whatever else happened.

    Its environments are made once, by `open` or at the first evaluation, and kept.

    Args:
        config: the environment's keys.
        seed: of the run; of a population one per member.
        episodes: the most that one evaluation will play.
        statistics: returns the wrappers' running statistics (`VectorEnv.statistics`); called at each evaluation.
        num_envs: how many episodes are played side by side, of each member; which ones does not depend on it. auto: up
            to 20, less where environments take long to make, are many or the machine can hold no more.
        period, total_steps: of the run's training, by which `evaluation_limits` goes; of a population, each member's
            total_steps.
        display: shows how far an evaluation is.
    """

    def __init__(
        self,
        config: EnvConfig,
        seed: int | Sequence[int],
        episodes: int,
        statistics: Callable[[], Mapping[str, np.ndarray]] = dict,
        *,
        num_envs: int | Literal["auto"] = "auto",
        period: int | None = None,
        total_steps: int | Sequence[int] = 0,
        display: EvaluationDisplay | None = None,
    ) -> None:
        self._statistics = statistics
        self._config = config
        self._seeds = [seed] if isinstance(seed, int) else list(seed)
        self._period = period
        self._total_steps = [total_steps] * len(self._seeds) if isinstance(total_steps, int) else list(total_steps)
        self._display = display or NoDisplay()
        self._num_envs = num_envs
        self._episodes = episodes
        self._lanes = 0  # of each member
        self._at_once = False  # a batched twin steps all lanes, needed or not
        self._keys = [0] * len(self._seeds)
        self._first = np.zeros(0, np.int64)  # [M * L], the number of the episode that each lane began with
        self._envs: VectorEnv | None = None

    def open(self) -> VectorEnv:
        """Makes the environments, unless they are there.

        Raises:
            RequestError: not one can be made.
        """
        if self._envs is None:
            members = len(self._seeds)
            lanes = min(self._episodes, MOST_LANES if self._num_envs == "auto" else self._num_envs)
            way = choose_exact(self._config, lanes * members).way
            if self._num_envs == "auto" and way in ("sync", "async", "native"):
                lanes = min(lanes, max(1, _MOST_MADE // members))
            seconds = _MAKING_SECONDS if self._num_envs == "auto" else None
            config = replace(self._config, vectorization=way)
            envs = make_vector_env(
                config, lanes * members, self._episode_seed, members, frozen=True, least=members, seconds=seconds
            )
            self._envs, self._lanes, self._at_once = envs, envs.num_envs // members, way == "batched"
        return self._envs

    def evaluate(
        self,
        policy: Policy,
        episodes: int,
        key: int,
        stop: Callable[[], bool] = lambda: False,
        partly: bool = False,
    ) -> EpisodeStatistics | None:
        """`episodes` greedy episodes of the stream `key`; None if `stop` became true first.

        Args:
            partly: where `stop` became true, the episodes that had ended count, if there are any.

        Raises:
            RunFailed: an environment failed.
            RequestError: no environment can be made.
        """
        return (self.evaluate_members(policy, episodes, {0: key}, stop, partly) or {}).get(0)

    def evaluate_members(
        self,
        policy: Policy,
        episodes: int,
        keys: Mapping[int, int],
        stop: Callable[[], bool] = lambda: False,
        partly: bool = False,
    ) -> dict[int, EpisodeStatistics] | None:
        """Evaluate several members of a population at once.

        Args:
            policy: acts for all members, whose observations come one member after the other.
            keys: the stream of each member that is evaluated.
        """
        envs = self.open()
        if (apart := self._apart(policy, list(keys))) is not None:
            own, some = apart
            with closing(own):
                found = own.evaluate_members(some, episodes, dict(enumerate(keys.values())), stop, partly)
            return found and {list(keys)[number]: statistics for number, statistics in found.items()}
        for member, key in keys.items():
            self._keys[member] = key
        limits = {member: self._limits(member, key, episodes) for member, key in keys.items()}
        tally = EpisodeTally(len(self._seeds), self._lanes, episodes, limits)
        envs.load_statistics(self._statistics())
        during_training = [member for member, key in keys.items() if not _is_reported(key)]
        asked = during_training and isinstance(policy, Critic)
        check = ValueCheck(cast(Critic, policy), during_training, self._lanes) if asked else None
        self._display.begin(tally.asked)
        try:
            finished = self._play(envs, policy, tally, check, stop)
        finally:
            self._display.end()
        if not finished and not partly:
            return None
        found = tally.statistics(interrupted=not finished)
        if check is not None:
            looked_into = [member for member in during_training if member in found]
            found |= {m: replace(found[m], diagnostics=check.diagnostics(m, tally.enough(m))) for m in looked_into}
        return found or None

    def _apart(self, policy: Policy, members: list[int]) -> tuple[Evaluator, SomeMembers] | None:
        """An evaluator and the policies of these members alone, where the same episodes are played in less time."""
        if len(members) == len(self._seeds) or not self._at_once:
            return None
        some = some_members(policy, members, self._lanes)
        if some is None:
            return None
        own = Evaluator(
            self._config,
            [self._seeds[member] for member in members],
            self._episodes,
            lambda: statistics_of(self._statistics(), members),
            num_envs=self._lanes,
            period=self._period,
            total_steps=[self._total_steps[member] for member in members],
            display=self._display,
        )
        return own, some

    def _play(
        self, envs: VectorEnv, policy: Policy, tally: EpisodeTally, check: ValueCheck | None, stop: Callable[[], bool]
    ) -> bool:
        """Whether all episodes were played; False if `stop` became true."""
        obs = self._begin(envs, tally, check)
        while tally.active.any():
            if stop():
                return False
            transition, obs, ended = envs.step(policy.act_greedy(obs), tally.active)
            tally.step()
            for episode in ended:
                tally.end(episode.env, episode.episode_return, episode.length)
            if check is not None:
                check.step(transition, obs, ended, tally.active)
            if tally.bounded:
                self._cut(envs, tally, obs, check)
                if not tally.active.any() and tally.begin_again():
                    obs = self._begin(envs, tally, check)
            if self._display.due():
                self._display.show(tally.ended, tally.steps, *tally.steps_left(envs.max_episode_steps))
        return True

    def _begin(self, envs: VectorEnv, tally: EpisodeTally, check: ValueCheck | None) -> np.ndarray:
        """Starts the episode of each lane; returns obs [M * L, *obs]."""
        self._first = tally.playing.copy()
        obs = envs.reset()
        if check is not None:
            check.begin(obs, tally.playing, tally.active)
        return obs

    def _cut(self, envs: VectorEnv, tally: EpisodeTally, obs: np.ndarray, check: ValueCheck | None) -> None:
        """Ends what has become too long, and what is no longer needed; obs [M * L, *obs] of the next step."""
        if lanes := tally.too_long():
            if check is not None:
                check.cut(obs, lanes)
            returns = envs.state_dict()["episode_return"]
            for lane in lanes:
                tally.cut(lane, float(returns[lane]))
        tally.drop_needless()

    def _limits(self, member: int, key: int, episodes: int) -> EvaluationLimits | None:
        total = self._total_steps[member]
        trained = total if _is_reported(key) or self._period is None else self._period
        assert trained is not None
        return evaluation_limits(trained, total, episodes, self.open().max_episode_steps)

    @property
    def num_envs(self) -> int | None:
        """How many episodes of a member are played side by side; None while there are no environments."""
        return self._lanes if self._envs is not None else None

    @property
    def reward_threshold(self) -> float | None:
        """The return that counts as solved, where the environment says so."""
        return self.open().reward_threshold

    def close(self) -> None:
        if self._envs is not None:
            self._envs.close()
            self._envs = None

    def _episode_seed(self, env: int, number: int) -> int:
        member = env // self._lanes
        episode = int(self._first[env]) + number * self._lanes
        return derive_seed(self._seeds[member], "evaluation", self._keys[member], episode)


def _is_reported(key: int) -> bool:
    """Whether the evaluation is a result or confirms one; the others look at a run that trains."""
    return key == REPORT_KEY or key >= CONFIRM_KEY_OFFSET
