"""From the `env.*` keys to N environments that step together."""

from __future__ import annotations

import logging

from rltrain.config.schema import EnvConfig
from rltrain.envs.batched import BATCHED_ENVS
from rltrain.envs.batched.environment import make_twin
from rltrain.envs.lane_group import LaneGroup
from rltrain.envs.lanes import Lanes
from rltrain.envs.make import FEWER, EnvMaker, close, draws, find_environment, make_copies
from rltrain.envs.spaces import action_spec, observation_spec
from rltrain.envs.vector import EpisodeSeed, VectorEnv
from rltrain.envs.wrappers import WrapperContext, make_wrappers
from rltrain.errors import RequestError
from rltrain.terminal.output import warn

_log = logging.getLogger(__name__)


def make_vector_env(
    config: EnvConfig,
    num_envs: int,
    episode_seed: EpisodeSeed,
    members: int = 1,
    frozen: bool = False,
    least: int | None = None,
    seconds: float | None = None,
) -> VectorEnv:
    """Builds `num_envs` copies of the environment; `step_timeout` holds where they run in workers.

    Args:
        config: the `env.*` keys.
        num_envs: N >= 1, of all members together.
        members: M, of which each has running statistics of its own.
        frozen: running statistics are given (`load_statistics`) and do not change, as in an evaluation.
        episode_seed: (environment, episode number from 0) -> seed of that episode's reset; `EpisodeSeeds` knows many at
            once.
        least: a multiple of M that suffices where no more can be made, or not within `seconds`; None: all are needed.

    Raises:
        RequestError: unknown id, kwargs the environment does not take, an unsupported space, a wrapper that fits not.
    """
    make = find_environment(config)
    first = make()
    spaces = first.observation_space, first.action_space
    can_draw = draws(first)
    try:
        observation, _ = observation_spec(spaces[0]), action_spec(spaces[1])
        make_wrappers(config.wrappers, observation, WrapperContext(config.id, 1, 1, make.time_limit, frozen))
    except RequestError as error:
        close(first, config.id)
        raise RequestError(f"environment {config.id}: {error}") from None
    group: LaneGroup
    kind = VectorEnv
    if config.vectorization == "async":
        close(first, config.id)
        group, num_envs = _workers(make, num_envs, least, config.step_timeout)
    elif config.vectorization in ("batched", "compiled"):
        from rltrain.envs.agent_stepped import AgentSteppedEnv
        from rltrain.envs.batched.lanes import BatchedLanes

        close(first, config.id)
        twin = make_twin(make.spec, config, BATCHED_ENVS, spaces[0])
        stores_state = config.vectorization == "compiled"
        kind = AgentSteppedEnv if stores_state else VectorEnv
        group = BatchedLanes(twin, num_envs, config.id, *spaces, make.time_limit, stores_state)
    else:
        copies = make_copies(make, first, num_envs, least, seconds, members)
        num_envs = len(copies)
        group = Lanes(copies, 0, config.id, of_each=num_envs // members)
    context = WrapperContext(config.id, num_envs // members, members, make.time_limit, frozen)
    wrappers = make_wrappers(config.wrappers, observation, context)
    envs = kind(group, num_envs, episode_seed, spaces, make, config.reward_clip, wrappers)
    envs.draws = can_draw
    return envs


def _workers(make: EnvMaker, num_envs: int, least: int | None, step_timeout: float | None) -> tuple[LaneGroup, int]:
    """`num_envs` environments in workers, or `least` where that many cannot be made; and their number."""
    from rltrain.envs.workers import WorkerGroup

    try:
        return WorkerGroup(make, num_envs, step_timeout), num_envs
    except RequestError as error:
        if least is None or least == num_envs:
            raise
        warn(_log, f"{FEWER.format(least)}: {error}")
    return WorkerGroup(make, least, step_timeout), least
