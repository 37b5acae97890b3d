"""Experience: what is kept, and how batches are made of it."""

from __future__ import annotations

from rltrain.replay.uniform import Batch, UniformReplay, gather, uniform_rows

__all__ = ["Batch", "UniformReplay", "gather", "uniform_rows"]
