"""Implicit quantile networks. Dabney et al. 2018 (ICML), "Implicit Quantile Networks for Distributional RL"."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from rltrain.maths.distributional import midpoints


class ImplicitQuantile(nn.Module):
    """Z_tau(s, a) = f(psi(s) * phi(tau))_a, phi_j(tau) = relu(sum over i < `cosines` of cos(pi i tau) w_ij + b_j).

    psi is the network up to its features (the convolutions of a CNN, the first hidden layer of an MLP), f the rest.
    """

    def __init__(self, network: Any, cosines: int, quantiles: int) -> None:
        """network: an `MLP`, `CNN` or `Dueling` of A outputs; quantiles: K, where no probabilities are given."""
        super().__init__()
        self.network = network
        self.embedding = nn.Linear(cosines, network.feature_width)
        self._quantiles = quantiles

    def forward(self, obs: Tensor, tau: Tensor | None = None) -> Tensor:
        """obs [..., *obs] and probabilities tau [..., n] of its quantiles, or K midpoints -> [..., A * n]."""
        features = self.network.features(obs).unsqueeze(-2)  # [..., 1, F]
        tau = midpoints(self._quantiles, features) if tau is None else tau
        factors = math.pi * torch.arange(self.embedding.in_features, device=tau.device, dtype=tau.dtype)  # [cosines]
        embedded = self.embedding((tau.unsqueeze(-1) * factors).cos()).relu()  # [..., n, F]
        values: Tensor = self.network.values(features * embedded)  # [..., n, A]
        return values.transpose(-1, -2).flatten(-2)
