"""Which of a run's limits ended it."""

from __future__ import annotations

from dataclasses import dataclass

from rltrain.config.schema import RunConfig


@dataclass(frozen=True)
class Limit:
    """A limit that is reached.

    Attributes:
        key, value: of the config.
        lifted: the change that lets the run go on.
        early: whether it ended the run before its steps and episodes were used up.
    """

    key: str
    value: float
    lifted: str
    early: bool = False

    def __str__(self) -> str:
        return f"{self.key}={self.value:g}" if self.early else f"{self.key}={self.value:,}"


def reached_limit(config: RunConfig, step: int, episodes: int, confirmed_return: float | None) -> Limit | None:
    """The limit that lets a run at this state train no more, or None.

    Args:
        confirmed_return: of the network of this state, where an evaluation has confirmed it.
    """
    if config.total_episodes is not None and episodes >= config.total_episodes:
        return Limit("total_episodes", config.total_episodes, f"total_episodes={2 * config.total_episodes}")
    if step >= config.total_steps:
        return Limit("total_steps", config.total_steps, f"total_steps={2 * config.total_steps}")
    goal = config.stop_at_return
    if goal is not None and confirmed_return is not None and confirmed_return >= goal:
        return Limit("stop_at_return", goal, "stop_at_return=null", early=True)
    return None
