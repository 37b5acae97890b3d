"""When updates are due."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UpdatesPerStep:
    """By environment step s, floor((s - starts) / period) * updates, whatever the number of environments."""

    starts: int
    period: int
    updates: int

    def due_by(self, env_steps: int) -> int:
        return max(0, env_steps - self.starts) // self.period * self.updates

    def most_per_step(self, num_envs: int) -> int:
        return -(-num_envs // self.period) * self.updates
