"""How many environment steps an evaluation may make, in proportion to the training that it judges."""

from __future__ import annotations

from typing import NamedTuple

MOST_LANES = 20
"""Episodes that are played side by side. More make a step of all slower than they make the evaluation shorter."""
_SHORT = 2_000
_SURE_STEPS = 100  # per episode: an evaluation of episodes this short is never cut down
_SHORTEST_CUT, _LONGEST_CUT = 500, 10_000


class EvaluationLimits(NamedTuple):
    """Bounds of one evaluation, in environment steps.

    steps: no episode is played once those before it have made so many.
    episode_steps: an episode that is longer is cut.
    """

    steps: int
    episode_steps: int


def evaluation_limits(trained: int, total_steps: int, episodes: int, time_limit: int | None) -> EvaluationLimits | None:
    """The bounds of an evaluation of `episodes` episodes; None where it needs none.

    A greedy policy may stand still for ever. Episodes of at most 2,000 steps by themselves are all played, to their
    ends. Of longer ones an evaluation makes about as many steps as the training did, so that it has fewer episodes
    rather than shortened ones; an episode is cut where twenty like it would be all that is played.

    Args:
        trained: environment steps that are judged: of the whole run, or of `eval.period`.
        total_steps: of the run; decides where an episode is cut, which is then the same until `resume` changes them.
        time_limit: where the environment itself cuts episodes, None for never.
    """
    if time_limit is not None and time_limit <= _SHORT:
        return None
    longest = time_limit or _LONGEST_CUT
    cut = min(longest, max(_SHORTEST_CUT, total_steps // MOST_LANES))
    return EvaluationLimits(max(trained, episodes * _SURE_STEPS), cut)
