"""Replays by name."""

from __future__ import annotations

from rltrain.replay.uniform import Batch, UniformReplay, gather

REPLAYS: dict[str, type[UniformReplay]] = {"uniform": UniformReplay}

__all__ = ["REPLAYS", "Batch", "UniformReplay", "gather"]
