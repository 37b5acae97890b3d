"""When updates are due."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class UpdatesPerStep:
    """By environment step s, floor((s - starts) / period) * updates, whatever the number of environments."""

    starts: int
    period: int
    updates: int

    def due_by(self, env_steps: int) -> int:
        """Updates due once `env_steps` environment steps have been made."""
        return max(0, env_steps - self.starts) // self.period * self.updates

    def due_at(self, update: np.ndarray) -> np.ndarray:
        """The environment steps after which updates, counted from 0, are due."""
        return self.starts + (update // self.updates + 1) * self.period

    def most_per_step(self, num_envs: int) -> int:
        """The most that can be due after one vector step."""
        return -(-num_envs // self.period) * self.updates


@dataclass(frozen=True)
class EveryRollout:
    """After every `steps` vector steps `epochs` passes over them, each in `minibatches` gradient steps."""

    steps: int
    epochs: int
    minibatches: int


@dataclass(frozen=True)
class EveryEpisodes:
    """One update for every `episodes` whole episodes that began under the present parameters, once all of them have
    ended."""

    episodes: int
