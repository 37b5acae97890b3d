"""A trial of environments before a training: `dry_run=true` finds what is wrong with them."""

from __future__ import annotations

import time

import numpy as np

from rltrain.envs.choice import random_actions
from rltrain.envs.vector import VectorEnv

_STEPS = 64
_SECONDS = 1.0


def try_random_steps(envs: VectorEnv) -> int:
    """Resets the environments and takes random steps in all of them, one at least, for a second at most; returns how
    many.

    Raises:
        RunFailed: one of them made a mistake.
    """
    if envs.stepped_by_agent:
        return 0  # twins, inside the agent's program
    rng, taken = np.random.default_rng(0), 0
    envs.reset()  # of many images it may take longer than the second
    started = time.monotonic()
    while not taken or (taken < _STEPS and time.monotonic() - started < _SECONDS):
        envs.step(random_actions(envs.action_spec, envs.num_envs, rng))
        taken += 1
    return taken
