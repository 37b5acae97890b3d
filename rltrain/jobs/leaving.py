"""When the last members of a population leave those that have ended, whose part of each update costs time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from rltrain.compute.choices import choose_leaving
from rltrain.config.algorithms import card_of
from rltrain.envs.replays import known_to_replay
from rltrain.jobs.build import Parts, work_of
from rltrain.jobs.vectorizing import stepped

if TYPE_CHECKING:
    from rltrain.jobs.training import Job


def leaving(jobs: Sequence[Job], parts: Parts, left: Sequence[int]) -> bool | None:
    """Whether the last members of a population go on together (True) or one by one (False); None: they stay.

    It depends on nothing but the jobs and their steps: a resumed sweep does as one that was not stopped. Runs that
    would not go on bit for bit stay, and so do the seeds of a trial, which are pruned together.

    Args:
        parts: of the population.
        left: environment steps that each member which runs has to go, at most.
    """
    config = stepped(jobs[0].config, parts.vectorization.way)
    few = 2 * len(left) <= len(jobs)
    if not few or parts.device.type != "cpu" or not card_of(config.algo).ended_cost:
        return None
    exact = config.resumable and known_to_replay(config.env)
    if not exact or any(job.pruning is not None for job in jobs):
        return None
    compiled_in = max(0, parts.compile_from - config.total_steps + max(left)) if parts.compiled else math.inf
    return choose_leaving(config, partial(work_of, config), len(jobs), compiled_in, left)
