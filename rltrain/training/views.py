"""A member's own part of the agent, the environments and the evaluator that all members share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from rltrain.engine.protocol import Agent, Policy, StateDict
from rltrain.envs.vector import VectorEnv
from rltrain.errors import RunFailed
from rltrain.training.evaluator import EpisodeStatistics, Evaluator


class OwnAgent(Protocol):
    """The part of an agent that a member looks at and saves; an agent of a single run has all of it."""

    def scalars(self) -> dict[str, float]: ...
    def state_dict(self) -> StateDict: ...
    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None: ...
    def abandon_episodes(self, envs: np.ndarray) -> None: ...


class OwnEvaluator(Protocol):
    """Evaluates one member; see `Evaluator.evaluate`."""

    def evaluate(self, policy: Any, episodes: int, key: int, stop: Callable[[], bool]) -> EpisodeStatistics | None: ...


class MemberAgent:
    """The part of a population's agent that belongs to one member: it is looked at and saved, but does not act."""

    def __init__(self, agent: Agent, member: int, num_envs: int) -> None:
        self._agent = agent
        self._member = member
        self._envs = slice(member * num_envs, (member + 1) * num_envs)

    def scalars(self) -> dict[str, float]:
        return self._agent.scalars(self._member)

    def state_dict(self) -> StateDict:
        return self._agent.state_dict(self._member)

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        self._agent.load_state_dict(state, self._member)

    def abandon_episodes(self, envs: np.ndarray) -> None:
        of_all = np.zeros(len(self._agent.active), dtype=bool)
        of_all[self._envs] = envs
        self._agent.abandon_episodes(of_all)


class MemberEnvs:
    """The running episodes of one member's environments."""

    def __init__(self, envs: VectorEnv, member: int, num_envs: int) -> None:
        self._envs = envs
        self._own = slice(member * num_envs, (member + 1) * num_envs)
        self.reward_threshold = envs.reward_threshold

    def state_dict(self) -> dict[str, np.ndarray]:
        return self._envs.state_dict(self._own)


class MemberEvaluator:
    """Evaluates a member; where several are due, the first that asks has all of them evaluated together."""

    def __init__(self, shared: SharedEvaluation, member: int) -> None:
        self._shared = shared
        self._member = member

    def evaluate(
        self, policy: object, episodes: int, key: int, stop: Callable[[], bool] = lambda: False
    ) -> EpisodeStatistics | None:
        """Like `Evaluator.evaluate`, of the member; `policy` is not looked at."""
        return self._shared.evaluate(self._member, episodes, key, stop)


class SharedEvaluation:
    """The evaluations of members that are due at the same time, made as one.

    `expected` is the stream of each member that will be asked for next: {member: key}.
    """

    def __init__(self, evaluator: Evaluator, agent: Policy) -> None:
        self._evaluator = evaluator
        self._agent = agent
        self.expected: dict[int, int] = {}
        self._found: dict[tuple[int, int, int], EpisodeStatistics | RunFailed] = {}

    def evaluate(self, member: int, episodes: int, key: int, stop: Callable[[], bool]) -> EpisodeStatistics | None:
        """The member's statistics, None where `stop` interrupted them; raises what failed in its environments."""
        if (member, episodes, key) not in self._found:
            keys = self.expected if self.expected.get(member) == key else {member: key}
            found = evaluate_apart(self._evaluator, self._agent, episodes, keys, stop)
            if found is None:
                return None
            self._found |= {(m, episodes, keys[m]): result for m, result in found.items()}
        result = self._found.pop((member, episodes, key))
        if isinstance(result, RunFailed):
            raise result
        return result


def views(
    agent: Agent, envs: VectorEnv, evaluator: Evaluator, shared: SharedEvaluation, members: int, num_envs: int
) -> list[tuple[OwnAgent, MemberEnvs, OwnEvaluator]]:
    """Each member's own parts; the evaluator of a single run is the whole."""

    def own(member: int) -> OwnEvaluator:
        return evaluator if members == 1 else MemberEvaluator(shared, member)

    return [(own_agent(agent, m, members, num_envs), MemberEnvs(envs, m, num_envs), own(m)) for m in range(members)]


def own_agent(agent: Agent, member: int, members: int, num_envs: int) -> OwnAgent:
    """A member's part of the agent. Of a single run that is the whole, which need not know of members."""
    return agent if members == 1 else MemberAgent(agent, member, num_envs)


def evaluate_apart(
    evaluator: Evaluator,
    agent: Policy,
    episodes: int,
    keys: Mapping[int, int],
    stop: Callable[[], bool],
    partly: bool = False,
) -> dict[int, EpisodeStatistics | RunFailed] | None:
    """`Evaluator.evaluate_members`; where an environment fails, each member by itself, and who failed."""
    try:
        together = evaluator.evaluate_members(agent, episodes, keys, stop, partly)
        return None if together is None else dict(together)
    except RunFailed as failure:
        if len(keys) == 1:
            return dict.fromkeys(keys, failure)
        apart: dict[int, EpisodeStatistics | RunFailed] = {}
    for member, key in keys.items():
        try:
            found = evaluator.evaluate_members(agent, episodes, {member: key}, stop)
        except RunFailed as failure:
            apart[member] = failure
            continue
        if found is None and not partly:
            return None
        apart |= found or {}
    return apart


def join_env_states(states: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The state of all members' environments from that of each."""
    if len(states) == 1:
        return dict(states[0])
    filled = [state["actions"] for state in states if len(state["actions"])]
    joined = {name: np.concatenate([state[name] for state in states]) for name in states[0] if name != "actions"}
    return {**joined, "actions": np.concatenate(filled) if filled else np.empty(0)}
