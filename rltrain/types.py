"""The data that passes between environments, agents and the training loop.

Axes: N environments, B batch, T time, A actions. Everything here is NumPy: environments live on the CPU, agents move
what they keep to their device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

FLOATS = ("float32", "float64")


@dataclass(frozen=True, slots=True)
class Stack:
    """An observation of several frames, the newest last: all others were in the observation before.

    Attributes:
        size: frames.
        shape: of one.
        axis: of the observation, along which they follow each other.
    """

    size: int
    shape: tuple[int, ...]
    axis: int

    def split(self, obs: np.ndarray) -> np.ndarray:
        """Observations [K, *obs] -> frames [K, size, *shape], without copying."""
        before, after = self.shape[: self.axis], self.shape[self.axis :]
        return np.moveaxis(obs.reshape(len(obs), *before, self.size, *after), self.axis + 1, 1)

    def kept(self, observation: ObservationSpec, transitions: int) -> int:
        """Frames that a replay of `transitions` keeps: one each, and the first ones of each episode. Twice as many,
        enough for episodes of any length, or where these are large a twentieth more, enough for 20 steps on average."""
        frame = math.prod(self.shape) * np.dtype(observation.dtype).itemsize
        return transitions + (transitions if 2 * transitions * frame <= _LARGE else max(1, transitions // 20))


_LARGE = 1 << 29


@dataclass(frozen=True, slots=True)
class ObservationSpec:
    """Shape and kind of one observation as an agent gets it.

    `box`: an array of `shape` and `dtype` (float32; or uint8 and bool, for images, which stay so until the network).
    What environments show, before `env.wrappers`, may be float64 too.
    `discrete`: an integer 0..n-1 (int64, shape ()), whatever the space's own start; networks see it one-hot.
    `low` and `high`: float64 of `shape`, infinite where there is no bound; None where nothing is known of them.
    `stack`: how it is made of frames that are large enough to be kept once; None for others.
    `channel_axis`: 0 or 2, along which `env.wrappers` put the frames of images; None where they put none.
    """

    kind: Literal["box", "discrete"]
    shape: tuple[int, ...]
    dtype: str
    n: int = 0
    low: np.ndarray | None = field(default=None, compare=False)
    high: np.ndarray | None = field(default=None, compare=False)
    stack: Stack | None = field(default=None, compare=False)
    channel_axis: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """Shape and kind of one action as an agent gives it.

    `discrete`: an integer 0..n-1 (int64). `multi_discrete`: int64 of `shape`, each number 0..size-1, of its own among
    `sizes`. `box`: float32 of `shape`; where both of a dimension's bounds are finite the agent's -1..1 spans them, and
    what lies outside is clipped at the environment's door, never before.
    """

    kind: Literal["discrete", "multi_discrete", "box"]
    shape: tuple[int, ...]
    n: int = 0
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    sizes: tuple[int, ...] = ()

    @property
    def dtype(self) -> str:
        """NumPy's name, and torch's."""
        return "float32" if self.kind == "box" else "int64"


@dataclass(frozen=True, slots=True)
class ActionScale:
    """From a box action of the agent to the environment's: `min(max(a * scale + centre, low), high)`, in float64, then
    cast to `dtype`."""

    scale: np.ndarray  # each [*action]
    centre: np.ndarray
    low: np.ndarray
    high: np.ndarray
    dtype: str


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of N environments. Rows where `active` is False did not step and hold nothing of meaning."""

    obs: np.ndarray  # [N, *obs]
    action: np.ndarray  # [N, *action], the agent's own action (unclipped, unscaled)
    reward: np.ndarray  # [N] float32, as env.wrappers and env.reward_clip leave it
    next_obs: np.ndarray  # [N, *obs], the true successor, also where the episode ended
    terminated: np.ndarray  # [N] bool: the MDP ended, the successor's value is 0
    truncated: np.ndarray  # [N] bool: the episode was cut, the successor has its value
    active: np.ndarray  # [N] bool


@dataclass(frozen=True, slots=True)
class Episode:
    """A finished episode: undiscounted, unclipped return."""

    env: int
    number: int
    episode_return: float
    length: int


class BlockBoundary(NamedTuple):
    """L environments between two blocks of steps that their agent makes (`env.vectorization=compiled`)."""

    state: np.ndarray  # [*state, L]
    obs: np.ndarray  # [L, *obs]
    episode_return: np.ndarray  # [L] float64
    episode_length: np.ndarray  # [L] int64
    kept: Mapping[str, np.ndarray]  # what the wrappers compute with, by name; obs is what they show


class BlockRecords(NamedTuple):
    """Records of a block of D vector steps; where an episode ended the other numbers are those of its end."""

    ended: np.ndarray  # [D, L] bool
    episode_return: np.ndarray  # [D, L] float64
    episode_length: np.ndarray  # [D, L] int64
    finite: np.ndarray  # [D, L] bool


@dataclass(frozen=True, slots=True)
class Ring:
    """Rows that are written in order and overwritten oldest first, so that few of them are new since the last save.

    Attributes:
        names: of the tensors, each [size, ...], that hold the rows.
        capacity: rows that fit.
        written: rows that were ever written: the next one goes to row `written % capacity`.
    """

    names: tuple[str, ...]
    capacity: int
    written: int
