"""Wrappers with running statistics: one set per run, of all its environments together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rltrain.config.wrappers import NormalizeObservationConfig, NormalizeRewardConfig
from rltrain.envs.wrappers.computed import Computed, Kept, cast
from rltrain.envs.wrappers.statistics import deviation, nothing_seen, updated
from rltrain.envs.wrappers.wrapper import Fixed, WrapperContext, refuse
from rltrain.types import ObservationSpec


class NormalizeObservation(Computed):
    """(obs - mean) / deviation, each number by itself, over every observation seen so far, this one included.

    The rest of a run is not normalised again when the statistics move on: replay holds an observation as it was shown.
    """

    in_program = True

    def __init__(self, config: NormalizeObservationConfig, spec: ObservationSpec, context: WrapperContext) -> None:
        if spec.kind == "discrete":
            raise refuse("normalize_observation", "has nothing to do: Discrete observations are one-hot")
        super().__init__(config, replace(spec, dtype="float32", low=None, high=None, stack=None), context)
        self._epsilon = config.epsilon
        self._frozen = context.frozen
        self._groups = (context.members, context.num_envs)
        self.kept = nothing_seen(context.members, spec.shape)

    def begun(self, xp: Any, kept: Kept, obs: Any, lanes: Any) -> tuple[Any, Kept]:
        x = cast(xp, obs, "float64").reshape(*self._groups, *self.spec.shape)  # [M, N, *obs]
        if not self._frozen:
            kept = updated(xp, kept, x, lanes.reshape(self._groups))
        normalized = (x - kept["mean"][:, None]) / deviation(xp, kept, self._epsilon)[:, None]
        return cast(xp, normalized, "float32").reshape(obs.shape), kept

    stepped = begun

    def fixed(self) -> Fixed:
        return "normalize", self.kept["mean"][0], deviation(np, self.kept, self._epsilon)[0]

    def statistics(self) -> dict[str, np.ndarray]:
        return self.kept

    def load(self, arrays: Mapping[str, np.ndarray], lengths: np.ndarray | None = None) -> None:
        self.kept = {name: arrays[name].copy() for name in self.kept}


class NormalizeReward(Computed):
    """reward / deviation of the discounted sum of the rewards of an episode so far. Engstrom et al. (2020),
    "Implementation matters in deep policy gradients", section 3: rewards are scaled, not centred.
    """

    in_program = True

    def __init__(self, config: NormalizeRewardConfig, spec: ObservationSpec, context: WrapperContext) -> None:
        super().__init__(config, spec, context)
        self._gamma, self._epsilon = config.gamma, config.epsilon
        self._frozen = context.frozen
        self._groups = (context.members, context.num_envs)
        # discounted: [L] sum_k gamma^(t - k) r_k of the running episode
        self.kept = {**nothing_seen(context.members, ()), "discounted": np.zeros(context.lanes)}

    def begun(self, xp: Any, kept: Kept, obs: Any, lanes: Any) -> tuple[Any, Kept]:
        return obs, {**kept, "discounted": xp.where(lanes, 0.0, kept["discounted"])}

    def rewarded(self, xp: Any, kept: Kept, reward: Any, lanes: Any) -> tuple[Any, Kept]:
        if not self._frozen:
            discounted = xp.where(lanes, kept["discounted"] * self._gamma + reward, kept["discounted"])
            sums = updated(xp, kept, discounted.reshape(self._groups), lanes.reshape(self._groups))
            kept = {**sums, "discounted": discounted}
        scaled = reward.reshape(self._groups) / deviation(xp, kept, self._epsilon)[:, None]
        return cast(xp, scaled, "float32").reshape(-1), kept

    def statistics(self) -> dict[str, np.ndarray]:
        return {name: array for name, array in self.kept.items() if name != "discounted"}

    def memory(self) -> dict[str, np.ndarray]:
        return {"discounted": self.kept["discounted"]}

    def load(self, arrays: Mapping[str, np.ndarray], lengths: np.ndarray | None = None) -> None:
        self.kept = {name: arrays[name].copy() if name in arrays else array for name, array in self.kept.items()}
