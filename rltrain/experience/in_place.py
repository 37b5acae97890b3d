"""Store transitions with n-step returns in a replay on the device, in a program of fixed shapes.

The same rows in the same order as `NStepWindow` and `UniformReplay.add` make of the same steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rltrain.experience.batch import Batch

if TYPE_CHECKING:
    from rltrain.experience.n_step import NStepWindow
    from rltrain.experience.uniform import UniformReplay


class Window(NamedTuple):
    """The last n steps of L environments, a ring over time; and what weighs their rewards."""

    obs: Tensor  # [n, L, *obs]
    action: Tensor  # [n, L]
    reward: Tensor  # [n, L] float32
    length: Tensor  # [L] int64, steps of the running episode in it, at most n
    time: Tensor  # [1] int64, steps ever made
    weights: Tensor  # [n, n, L] float64: of window i, which begins i steps after the oldest, for the reward of step k
    discounts: Tensor  # [n, L] float64: of window i, gamma to the power of its n - i steps


class StepOf(NamedTuple):
    """One step of L environments."""

    obs: Tensor  # [L, *obs]
    action: Tensor  # [L]
    reward: Tensor  # [L] float32
    next_obs: Tensor  # [L, *obs], the true successor
    terminated: Tensor  # [L] bool
    ended: Tensor  # [L] bool, terminated or cut
    active: Tensor  # [L] bool


class TransitionStore:
    """A replay and its n-step window as what a program stores steps in."""

    def __init__(self, replay: UniformReplay, window: NStepWindow) -> None:
        self._replay, self._window = replay, window
        self.memory: Any = replay.memory, window.on_device()

    def playing(self, memory: Any, running: Tensor) -> Tensor:
        return running

    def store(self, memory: Any, step: StepOf) -> None:
        arrays, window = memory
        self._replay.store(arrays, window, step)

    def send(self) -> None:
        self._window.send()
        self._replay.send_counts()  # a checkpoint that was loaded has told the host alone

    def fetch(self) -> None:
        self._window.fetch()
        self._replay.fetch_counts()


def window_weights(powers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`Window.weights` and `Window.discounts` from powers [n + 1, L], gamma^k of each environment."""
    n = len(powers) - 1
    weights = np.zeros((n, n, powers.shape[1]))
    for begin in range(n):
        weights[begin, begin:] = powers[: n - begin]
    return weights, powers[:0:-1].copy()


def store(arrays: Batch, written: Tensor, window: Window, step: StepOf, capacity: int) -> Tensor:
    """Writes the transitions that the step completes into `arrays`, and moves `window` and `written` [M] on; returns
    for each of the n * N windows whether it was completed, bool [M, n * N].

    The last row of the arrays is a spare one: what completes nothing is written there.
    """
    n, lanes = window.reward.shape
    columns, valid = _single(window, step) if n == 1 else _windows(window, step)  # [n, L, ...], [n, L]
    members = len(written)
    of_member = valid.view(n, members, -1).transpose(0, 1).flatten(1)  # [M, n * N], the longest windows first
    places = places_of(written, of_member, capacity)
    places = torch.where(of_member, places, len(arrays.reward) - 1).flatten()
    for array, column in zip(arrays, columns, strict=True):
        rows = column.view(n, members, -1, *column.shape[2:]).transpose(0, 1)  # [M, n, N, ...]
        array.index_copy_(0, places, rows.reshape(n * lanes, *column.shape[2:]))
    written.add_(of_member.sum(1))
    return of_member


def places_of(written: Tensor, valid: Tensor, capacity: int) -> Tensor:
    """The rows [M, K] for the entries that are valid, bool [M, K], of members that have `written` [M] rows already."""
    rank = valid.cumsum(1) - 1
    begins = torch.arange(len(written), device=written.device).unsqueeze(1) * capacity  # [M, 1]
    return (written.unsqueeze(1) + rank) % capacity + begins


def _single(window: Window, step: StepOf) -> tuple[Batch, Tensor]:
    discount = (window.discounts[0] * ~step.terminated).float()
    columns = Batch(step.obs, step.action, step.reward, step.next_obs, discount)
    return Batch(*(column.unsqueeze(0) for column in columns)), step.active.unsqueeze(0)


def _windows(window: Window, step: StepOf) -> tuple[Batch, Tensor]:
    """The windows that end with this step, by where they begin; which of them are complete. See `NStepWindow`."""
    n, _ = window.reward.shape
    slot = window.time % n
    for ring, now in ((window.obs, step.obs), (window.action, step.action), (window.reward, step.reward)):
        ring.index_copy_(0, slot, now.unsqueeze(0))
    window.time.add_(1)
    length = torch.minimum(window.length + step.active, torch.full_like(window.length, n))
    since = torch.arange(n, device=slot.device)
    oldest_first = (window.time + since) % n  # [n]
    reward = (window.weights * window.reward.index_select(0, oldest_first)).sum(1)  # [n, L]
    discount = window.discounts * ~step.terminated
    obs, action = (ring.index_select(0, oldest_first) for ring in (window.obs, window.action))
    next_obs = step.next_obs.expand_as(obs)
    steps = (n - since).unsqueeze(1)  # [n, 1] of each window
    whole = steps == n
    valid = (length >= steps) & (step.ended | whole) & step.active
    window.length.copy_(torch.where(step.ended, 0, length))
    return Batch(obs, action, reward.float(), next_obs, discount.float()), valid
