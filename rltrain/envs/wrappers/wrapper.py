"""The interface of wrappers: one stage between the environments and the agent, for all environments of a run at once.

Wrappers run in the training process on arrays, whatever `env.vectorization` is: what they keep is in one place, and a
replay of a running episode, which is a matter of the environments below them, does not pass through them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rltrain.errors import RequestError
from rltrain.types import ObservationSpec

Fixed = tuple[Literal["normalize", "clip"], np.ndarray, np.ndarray]
"""Of an observation, (x - mean) / deviation in float64, or min(max(x, low), high): which, and the two arrays."""


@dataclass(frozen=True)
class WrapperContext:
    """Facts that a wrapper is built from.

    Attributes:
        id: the environment's.
        num_envs: N of each member.
        members: M; the M * N environments lie member by member.
        time_limit: where episodes are cut, None for never.
        frozen: running statistics are used and not updated: an evaluation.
    """

    id: str
    num_envs: int
    members: int
    time_limit: int | None
    frozen: bool

    @property
    def lanes(self) -> int:
        """L = M * N."""
        return self.members * self.num_envs


class Wrapper:
    """Changes nothing; subclasses override what they change. Axes: L = M * N lanes.

    The result is a new array or the one that was given: neither is written into afterwards.

    Args:
        config: its dataclass, see `WRAPPER_CONFIGS`.
        spec: what the stage before it gives.
        context: what it is built for.

    Attributes:
        spec: what it gives itself.
        remembers: whether what it gives depends on the observations before, so that it must be told where an episode
            begins.

    Raises:
        RequestError: it cannot follow on such observations.
    """

    remembers = False

    def __init__(self, config: Any, spec: ObservationSpec, context: WrapperContext) -> None:
        self.spec = spec

    @property
    def changes_observations(self) -> bool:
        """Whether it changes more than rewards."""
        return type(self).step is not Wrapper.step

    def begin(self, obs: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """obs [L, *obs], of which the rows of `lanes` (bool [L]) are the first of their episodes; the other rows have
        no meaning, neither here nor in what is returned."""
        return obs

    def step(self, obs: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """The same for lanes that went one step on within their episodes, up to the last observation of each."""
        return obs

    def fixed(self) -> Fixed | None:
        """Its present effect on a single observation; None where it changes none, or looks at others too."""
        return None

    def commuted(self, step: Fixed, raw: ObservationSpec) -> Fixed | None:
        """The stage that may follow it in place of `step` before it, to the same result; None where none is known. Only
        asked where `fixed` is None.

        Args:
            raw: what the environments give, which it then takes without the `step`.
        """
        return None

    def reward(self, reward: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        """reward [L] float32 of the step of `lanes`, for training; comes before `step` and `begin`."""
        return reward

    def statistics(self) -> dict[str, np.ndarray]:
        """Statistics of the environment over the whole run, per member [M, ...]; an evaluation uses them."""
        return {}

    def memory(self) -> dict[str, np.ndarray]:
        """State of the running episodes, per lane [L, ...]."""
        return {}

    def load(self, arrays: Mapping[str, np.ndarray], lengths: np.ndarray | None = None) -> None:
        """Takes over arrays of the names and shapes that `statistics` and `memory` have, or of the former alone.

        Args:
            lengths: [L] steps of the running episodes so far.
        """


def refuse(name: str, why: str) -> RequestError:
    """The one line that says why a wrapper cannot be used here."""
    return RequestError(f"env.wrappers: {name} {why}")


def one_line_shape(spec: ObservationSpec) -> str:
    """An observation in words: `Discrete(4)`, `uint8 of shape (84, 84)`."""
    return f"Discrete({spec.n})" if spec.kind == "discrete" else f"{spec.dtype} of shape {spec.shape}"
