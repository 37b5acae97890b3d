"""The values of first states against the discounted returns that followed, in one evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from rltrain.config.schema import RunConfig
from rltrain.engine.protocol import Critic
from rltrain.types import Episode, Transition

_SLACK = 0.01  # of a bound, or of the distance between both
_ROWS, _APART = 256, 8  # of states that a member's networks are looked at with; vector steps between them


class ValueCheck:
    """V(s_0) and G_0 = sum over t of gamma^t r_t of each episode, with the rewards that learning gets. The return of an
    episode that is cut at its time limit goes on with the value of its last observation. van Hasselt et al. 2016
    compare the two so.

    An overestimation shows as a value above the return. Some of the states that the policy comes by are kept for
    `Critic.diagnostics`.
    """

    def __init__(self, critic: Critic, members: Sequence[int], lanes: int) -> None:
        """
        Args:
            members: those that are evaluated.
            lanes: of each member, of all that there are.
        """
        self._critic, self._members, self._lanes = critic, members, lanes
        self._gammas = np.repeat(critic.gammas, lanes)  # [M * L]
        self._value, self._return = np.zeros((2, len(self._gammas)))
        self._discount = np.ones(len(self._gammas))
        self._found: dict[int, list[tuple[float, float]]] = {member: [] for member in members}
        self._states: dict[int, list[np.ndarray]] = {member: [] for member in members}
        self._steps = 0

    def begin(self, obs: np.ndarray, active: np.ndarray) -> None:
        """An episode begins in every active lane; obs [M * L, *obs], active [M * L] bool."""
        self._begin(obs, np.flatnonzero(active))

    def step(self, transition: Transition, obs: np.ndarray, ended: Sequence[Episode], active: np.ndarray) -> None:
        """
        Args:
            obs: [M * L, *obs], of the next step.
            active: [M * L] bool, the lanes that go on.
        """
        self._return += self._discount * transition.reward
        self._discount *= self._gammas
        if self._steps % _APART == 0:
            self._keep(transition.obs, transition.active)
        self._steps += 1
        if ended:
            lanes = np.array(sorted(episode.env for episode in ended))
            self._end(transition, lanes)
            self._begin(obs, lanes[active[lanes]])

    def _end(self, transition: Transition, lanes: np.ndarray) -> None:
        cut = lanes[transition.truncated[lanes] & ~transition.terminated[lanes]]
        for member, own in self._by_member(cut):
            self._return[own] += self._discount[own] * self._critic.state_values(transition.next_obs[own], member)
        for member, own in self._by_member(lanes):
            self._found[member] += zip(self._value[own].tolist(), self._return[own].tolist(), strict=True)

    def _begin(self, obs: np.ndarray, lanes: np.ndarray) -> None:
        self._return[lanes], self._discount[lanes] = 0.0, 1.0
        for member, own in self._by_member(lanes):
            self._value[own] = self._critic.state_values(obs[own], member)

    def _by_member(self, lanes: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """(member, its lanes) of lanes in ascending order."""
        of = lanes // self._lanes
        return [(int(member), lanes[of == member]) for member in np.unique(of)]

    def _keep(self, obs: np.ndarray, active: np.ndarray) -> None:
        for member, own in self._by_member(np.flatnonzero(active)):
            states = self._states[member]
            if (kept := sum(map(len, states))) < _ROWS:
                states.append(obs[own[: _ROWS - kept]])

    def diagnostics(self, member: int) -> dict[str, float]:
        """Of a member, by tag: the means over its episodes, and what its agent says of its networks."""
        found = self._critic.diagnostics(np.concatenate(self._states[member]), member) if self._states[member] else {}
        if self._found[member] and np.isfinite(self._found[member]).all():
            value, got = np.mean(self._found[member], axis=0).tolist()
            found = {"diagnostics/value": value, "diagnostics/discounted_return": got, **found}
        return found


def value_bounds(config: RunConfig) -> tuple[float, float]:
    """The least and the largest value that the algorithm can learn."""
    low, high = (getattr(config.algo, name, None) for name in ("v_min", "v_max"))
    return -math.inf if low is None else low, math.inf if high is None else high


def beyond_bounds(config: RunConfig, diagnostics: Mapping[str, float]) -> str:
    """That episodes return what the algorithm cannot learn, where an evaluation shows it; or nothing."""
    got, (low, high) = diagnostics.get("diagnostics/discounted_return"), value_bounds(config)
    if got is None:
        return ""
    slack = _SLACK * (high - low if math.isfinite(high - low) else max(abs(got), 1.0))
    if low - slack <= got <= high + slack:
        return ""
    bound = f"less than algo.v_min={low:g}" if got < low else f"more than algo.v_max={high:g}"
    return f"discounted returns are {bound}, beyond which no value is learned: let algo.v_min and algo.v_max span them"
