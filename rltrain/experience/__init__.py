"""Experience: what is kept, and how batches are made of it."""

from __future__ import annotations

from typing import Any

from rltrain.config.schema import QNetworkConfig
from rltrain.experience.batch import Batch, WeightedBatch
from rltrain.experience.prioritized import PrioritizedReplay
from rltrain.experience.uniform import UniformReplay


def make_replay(config: QNetworkConfig, *args: Any, **kwargs: Any) -> UniformReplay:
    """The replay that an algorithm's config asks for; the other arguments are those of `UniformReplay`."""
    if config.prioritized is None:
        return UniformReplay(config.buffer_size, *args, **kwargs)
    return PrioritizedReplay(config.prioritized, config.buffer_size, *args, **kwargs)


__all__ = ["Batch", "PrioritizedReplay", "UniformReplay", "WeightedBatch", "make_replay"]
