"""Wrappers with running statistics: one set per run, of all its environments together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rltrain.config.wrappers import NormalizeObservationConfig, NormalizeRewardConfig
from rltrain.envs.wrappers.statistics import RunningStatistics
from rltrain.envs.wrappers.wrapper import Fixed, Wrapper, WrapperContext, refuse
from rltrain.types import ObservationSpec


class NormalizeObservation(Wrapper):
    """(obs - mean) / deviation, each number by itself, over every observation seen so far, this one included.

    The rest of a run is not normalised again when the statistics move on: replay holds an observation as it was shown.
    """

    def __init__(self, config: NormalizeObservationConfig, spec: ObservationSpec, context: WrapperContext) -> None:
        if spec.kind == "discrete":
            raise refuse("normalize_observation", "has nothing to do: Discrete observations are one-hot")
        self.spec = ObservationSpec("box", spec.shape, "float32")
        self._epsilon = config.epsilon
        self._frozen = context.frozen
        self._groups = (context.members, context.num_envs)
        self._statistics = RunningStatistics(context.members, spec.shape)

    def begin(self, obs: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        x = obs.astype(np.float64).reshape(*self._groups, *self.spec.shape)  # [M, N, *obs]
        if not self._frozen:
            self._statistics.update(x, lanes.reshape(self._groups))
        mean, deviation = self._statistics.mean, self._statistics.deviation(self._epsilon)
        normalized: np.ndarray = (x - mean[:, None]) / deviation[:, None]
        return normalized.astype(np.float32).reshape(obs.shape)

    def step(self, obs: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        return self.begin(obs, lanes)

    def fixed(self) -> Fixed:
        return "normalize", self._statistics.mean[0], self._statistics.deviation(self._epsilon)[0]

    def statistics(self) -> dict[str, np.ndarray]:
        return self._statistics.arrays()

    def load(self, arrays: Mapping[str, np.ndarray], lengths: np.ndarray | None = None) -> None:
        self._statistics.load(arrays)


class NormalizeReward(Wrapper):
    """reward / deviation of the discounted sum of the rewards of an episode so far. Engstrom et al. (2020),
    "Implementation matters in deep policy gradients", section 3: rewards are scaled, not centred.
    """

    def __init__(self, config: NormalizeRewardConfig, spec: ObservationSpec, context: WrapperContext) -> None:
        super().__init__(config, spec, context)
        self._gamma, self._epsilon = config.gamma, config.epsilon
        self._frozen = context.frozen
        self._groups = (context.members, context.num_envs)
        self._discounted = np.zeros(context.lanes)  # [L] sum_k gamma^(t - k) r_k of the running episode
        self._statistics = RunningStatistics(context.members, ())

    def begin(self, obs: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        self._discounted = np.where(lanes, 0.0, self._discounted)
        return obs

    def reward(self, reward: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        if self._frozen:
            return reward
        self._discounted = np.where(lanes, self._discounted * self._gamma + reward, self._discounted)
        self._statistics.update(self._discounted.reshape(self._groups), lanes.reshape(self._groups))
        deviation = self._statistics.deviation(self._epsilon)  # [M]
        scaled: np.ndarray = reward.reshape(self._groups) / deviation[:, None]
        return scaled.astype(np.float32).reshape(-1)

    def statistics(self) -> dict[str, np.ndarray]:
        return self._statistics.arrays()

    def memory(self) -> dict[str, np.ndarray]:
        return {"discounted": self._discounted}

    def load(self, arrays: Mapping[str, np.ndarray], lengths: np.ndarray | None = None) -> None:
        self._statistics.load(arrays)
        if "discounted" in arrays:
            self._discounted = arrays["discounted"].copy()
