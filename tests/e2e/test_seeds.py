"""What a run's environments are seeded with."""

from __future__ import annotations

import numpy as np

from rltrain.config.application import compose
from rltrain.jobs.build import build_envs


def first_observations(seed: int) -> set[bytes]:
    config, _ = compose(["num_envs=3", f"seed={seed}"])
    envs = build_envs(config)
    try:
        return {row.tobytes() for row in np.asarray(envs.reset())}
    finally:
        envs.close()


def test_runs_of_neighbouring_seeds_share_no_episode() -> None:
    starts = [first_observations(seed) for seed in range(4)]
    assert [len(start) for start in starts] == [3, 3, 3, 3]
    assert len(set().union(*starts)) == 12
