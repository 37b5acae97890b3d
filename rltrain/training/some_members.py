"""An evaluation of some members of a population, without the time that the others' episodes would take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast, runtime_checkable

import numpy as np

from rltrain.engine.protocol import Critic, Policy


@runtime_checkable
class _Divisible(Critic, Protocol):
    """A population's agent that can be asked for the actions of some members alone."""

    def greedy_of(self, members: Sequence[int], rows: int) -> Callable[[np.ndarray], np.ndarray] | None: ...


class SomeMembers:
    """The policies of K members of an agent, as they are now, as an agent of these: member k is `members[k]`.

    Args:
        act: obs [K * N, *obs] -> their best actions [K * N, *action].
    """

    def __init__(self, agent: Critic, members: Sequence[int], act: Callable[[np.ndarray], np.ndarray]) -> None:
        self._agent, self._members = agent, list(members)
        self.act_greedy = act
        self.gammas: np.ndarray = agent.gammas[self._members]

    def state_values(self, obs: np.ndarray, member: int = 0) -> np.ndarray:
        return self._agent.state_values(obs, self._members[member])

    def diagnostics(self, obs: np.ndarray, member: int = 0) -> dict[str, float]:
        return self._agent.diagnostics(obs, self._members[member])


def some_members(policy: Policy, members: Sequence[int], rows: int) -> SomeMembers | None:
    """These members of a population alone, each for `rows` observations at a time; None where they would not act the
    same to the last bit, or no faster."""
    if not isinstance(policy, _Divisible):
        return None
    act = policy.greedy_of(members, rows)
    return None if act is None else SomeMembers(cast(Critic, policy), members, act)


def statistics_of(statistics: Mapping[str, np.ndarray], members: Sequence[int]) -> dict[str, np.ndarray]:
    """Running statistics of these members, of those of all [M, ...] by name."""
    return {name: array[list(members)] for name, array in statistics.items()}
