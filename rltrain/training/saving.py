"""The checkpointer that a trainer saves to, and the last step that a checkpoint knows to be logged."""

from __future__ import annotations

from typing import Protocol

from rltrain.engine.protocol import StateDict
from rltrain.errors import CheckpointError
from rltrain.storage.checkpoint import Checkpoint


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


def last_logged_step(source: Checkpoint) -> int:
    """The last environment step whose row had been written when the trainer's state was saved.

    Raises:
        CheckpointError: its state does not say.
    """
    if source.state.get("step") != source.step or "duties_from" not in source.state:
        raise CheckpointError(f"{source.folder}: does not fit this run: its state is not of step {source.step}")
    # With duties undone the row of this very step is still to come, and an attempt that was killed may have written it.
    return source.step - (source.state["duties_from"] is not None)
