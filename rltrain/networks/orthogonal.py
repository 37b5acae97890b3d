"""Orthogonal first weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import nn


def init_orthogonal(layers: Iterable[nn.Module], output_scale: float | None = None) -> None:
    """Draws the weights of dense layers and convolutions anew, with orthogonal rows or columns. Saxe et al. 2014.

    The gain is sqrt(2), that of the last layer `output_scale` where it is given; biases are zero.
    """
    weighted = [layer for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d)]
    for layer in weighted:
        gain = math.sqrt(2.0) if output_scale is None or layer is not weighted[-1] else output_scale
        nn.init.orthogonal_(layer.weight, gain)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
