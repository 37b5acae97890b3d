"""Batches of transitions."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """B transitions, on the replay's device. `discount` is gamma^n * (1 - terminated), so losses need neither."""

    obs: Tensor  # [B, *obs]
    action: Tensor  # [B, *action]
    reward: Tensor  # [B], the discounted sum of n rewards
    next_obs: Tensor  # [B, *obs]
    discount: Tensor  # [B]

    @property
    def weight(self) -> None:
        """Each transition counts alike."""


class WeightedBatch(NamedTuple):
    """A batch with the weight of each transition in the loss, of a replay that does not sample uniformly."""

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    discount: Tensor
    weight: Tensor  # [B]
