"""The evaluations of members that are due at the same time, made as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rltrain.engine.protocol import Policy
from rltrain.errors import RunFailed
from rltrain.training.evaluator import EpisodeStatistics, Evaluator


class SharedEvaluation:
    """Evaluates a member when it asks; where several are due, the first that asks has all of them evaluated together.

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
