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
    """V(s_0) and G_0 = sum over t of gamma^t r_t of each episode, with the rewards and the ends that learning gets: a
    lost life is an end where learning takes it for one, and the next state a first one. The return of an episode that
    is cut, at its time limit or by the evaluation, goes on with the value of its last observation. van Hasselt et al.
    2016 compare the two so.

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
        self._playing = np.zeros(len(self._gammas), np.int64)  # the number of each lane's episode
        self._found: dict[int, list[tuple[int, float, float]]] = {member: [] for member in members}
        self._states: dict[int, list[np.ndarray]] = {member: [] for member in members}
        self._steps = 0

    def begin(self, obs: np.ndarray, playing: np.ndarray, active: np.ndarray) -> None:
        """An episode begins in every active lane; obs [M * L, *obs], playing [M * L] their numbers, active [M * L]."""
        self._playing = playing.copy()
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
        over = transition.terminated & transition.active
        over[[episode.env for episode in ended]] = True
        if over.any():
            lanes = np.flatnonzero(over)
            self._end(transition.next_obs, lanes, lanes[~transition.terminated[lanes]])
            self._playing[[episode.env for episode in ended]] += self._lanes
            self._begin(obs, lanes[active[lanes]])

    def cut(self, obs: np.ndarray, lanes: Sequence[int]) -> None:
        """The evaluation cuts the episodes of some lanes before their observations obs [M * L, *obs]."""
        self._end(obs, np.array(lanes), np.array(lanes))

    def _end(self, obs: np.ndarray, lanes: np.ndarray, cut: np.ndarray) -> None:
        for member, own in self._by_member(cut):
            self._return[own] += self._discount[own] * self._critic.state_values(obs[own], member)
        for member, own in self._by_member(lanes):
            numbers, values, returns = (x[own].tolist() for x in (self._playing, self._value, self._return))
            self._found[member] += zip(numbers, values, returns, strict=True)

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

    def diagnostics(self, member: int, episodes: int) -> dict[str, float]:
        """Of a member, by tag: the means over its first episodes, those that count, and what its agent says of its
        networks."""
        found = self._critic.diagnostics(np.concatenate(self._states[member]), member) if self._states[member] else {}
        pairs = [pair for number, *pair in self._found[member] if number < episodes]
        if pairs and np.isfinite(pairs).all():
            value, got = np.mean(pairs, axis=0).tolist()
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
