"""Whether a run is long enough for its settings."""

from __future__ import annotations

import math

from rltrain.config.schema import (
    ExponentialConfig,
    LinearConfig,
    QNetworkConfig,
    ReinforceConfig,
    RolloutConfig,
    RunConfig,
)
from rltrain.errors import RequestError

_STILL = 0.05
"""The part of the way from exploration.start to exploration.end that may be left at the end of a run."""


def check_horizon(config: RunConfig) -> None:
    """Refuses a run that would end before its first update."""
    algo, steps, episodes = config.algo, config.total_steps, config.total_episodes
    if isinstance(algo, QNetworkConfig):
        first_update = algo.learning_starts + algo.train_period
        if episodes is None and first_update > steps:
            raise RequestError(
                f"learning would never start: the first update is due at step {first_update} (algo.learning_starts="
                f"{algo.learning_starts} + algo.train_period={algo.train_period}), after total_steps={steps}\n"
                f"for a short try: algo.learning_starts={max(1, steps // 10)}, or more steps"
            )
    elif isinstance(algo, ReinforceConfig):
        if episodes is not None and episodes < algo.episodes_per_update:
            raise RequestError(
                f"learning would never start: total_episodes={episodes} is less than"
                f" algo.episodes_per_update={algo.episodes_per_update}"
            )
    elif isinstance(algo, RolloutConfig) and episodes is None and algo.rollout_steps * config.num_envs > steps:
        raise RequestError(
            f"learning would never start: the first update is due after algo.rollout_steps={algo.rollout_steps} *"
            f" num_envs={config.num_envs} steps, and total_steps={steps}"
        )


def epsilon_at_end(config: RunConfig) -> str:
    """That epsilon is still on its way when the run's steps are used up, or is 0 from the start though nothing else
    explores, and which key says so; nothing where not."""
    exploration, network, steps = config.exploration, config.network, config.total_steps
    if exploration is not None and getattr(exploration, "start", exploration.end) == 0:
        quiet = network is not None and not getattr(network, "noisy", False)  # tables explore by optimistic values
        return "is 0 throughout, and nothing else explores: exploration.end=0" if quiet else ""
    if isinstance(exploration, LinearConfig):
        left, why = max(0.0, 1 - steps / exploration.steps), f"exploration.steps={exploration.steps:,}"
    elif isinstance(exploration, ExponentialConfig):
        left, why = math.exp(-steps / exploration.decay), f"exploration.decay={exploration.decay:,g}"
    else:
        return ""
    last = exploration.end + left * (exploration.start - exploration.end)
    if left <= _STILL or exploration.start == exploration.end:
        return ""
    return f"is still {last:.2f} after total_steps={steps:,}, not exploration.end={exploration.end:g}: {why}"
