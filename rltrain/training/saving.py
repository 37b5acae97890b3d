"""The checkpointer that a trainer saves to, when it saves, and the last step that a checkpoint knows to be logged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

from rltrain.config.schema import AUTO_SAVE_STEPS
from rltrain.engine.protocol import StateDict
from rltrain.errors import CheckpointError
from rltrain.storage.checkpoint import Checkpoint

_MOST_OF_TIME = 0.05
_LONGEST_UNSAVED = 60.0  # seconds, which slow environments may take for far fewer than AUTO_SAVE_STEPS


class Checkpointer(Protocol):
    """Saves the trainer's state."""

    def save(self, step: int, state: StateDict) -> None:
        """The whole state, as the newest checkpoint."""
        ...

    def save_best(self, step: int, state: StateDict) -> None:
        """The best network so far."""
        ...

    def prune(self) -> None:
        """Older checkpoints may go."""
        ...

    def film(self, step: int, state: StateDict) -> None:
        """A greedy episode of the present network."""
        ...


class SaveTimes:
    """When a run that trains is saved: each time its environment steps pass a multiple of `steps`.

    With `auto` also once a minute has passed without a save, and a save is passed over where all would have taken more
    than a twentieth of the time since the start: a run that makes 10,000 steps in a fifth of a second would spend
    another fifth on the disk. What a run computes does not depend on when it is saved.

    Attributes:
        steps: environment steps; None: never.
    """

    def __init__(self, period: int | Literal["auto"] | None) -> None:
        self.steps = AUTO_SAVE_STEPS if period == "auto" else period
        self._spares_time = period == "auto"
        self._begun = self._saved_at = time.perf_counter()
        self._spent = self._last = 0.0  # seconds: of all saves, and of the last one

    def affordable(self) -> bool:
        """Whether a save that takes as long as the last one may be made now."""
        elapsed = time.perf_counter() - self._begun
        return not self._spares_time or self._spent + self._last <= _MOST_OF_TIME * elapsed

    def overdue(self) -> bool:
        """Whether the run has trained for a minute unsaved."""
        unsaved = time.perf_counter() - self._saved_at
        return self._spares_time and unsaved > _LONGEST_UNSAVED and self.affordable()

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Counts the time of a save."""
        start = time.perf_counter()
        yield
        self._saved_at = time.perf_counter()
        self._last = self._saved_at - start
        self._spent += self._last


def last_logged_step(source: Checkpoint) -> int:
    """The last environment step whose row had been written when the trainer's state was saved.

    Raises:
        CheckpointError: its state does not say.
    """
    if source.state.get("step") != source.step or "duties_from" not in source.state:
        raise CheckpointError(f"{source.folder}: does not fit this run: its state is not of step {source.step}")
    # With duties undone the row of this very step is still to come, and an attempt that was killed may have written it.
    return source.step - (source.state["duties_from"] is not None)
