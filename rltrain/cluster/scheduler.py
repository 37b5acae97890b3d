"""Protocol of a scheduler: it takes tasks, and says how they are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rltrain.cluster.runner import Runner

State = Literal["queued", "running", "ended", "cancelled"]


@dataclass(frozen=True)
class Look:
    """State of a task: on which node it runs, or the scheduler's word for its end, where it tells."""

    state: State
    word: str = ""


class Scheduler(Protocol):
    """A cluster that runs tasks.

    Attributes:
        requeues: whether it puts a task that ran back into its queue.
    """

    requeues: bool

    def submit(self, runners: Sequence[Runner]) -> list[str]:
        """Submits tasks; the id of each.

        Raises:
            RequestError: the cluster refuses them.
        """
        ...

    def look(self, ids: Collection[str]) -> dict[str, Look]:
        """State of each of these; of none that the cluster cannot be asked about now."""
        ...

    def leave(self, ids: Collection[str], again: str) -> str:
        """Called when the command that waits for the tasks `ids` is stopped; returns what to tell its user.

        Args:
            again: the command that waits for them again, or goes on.
        """
        ...
