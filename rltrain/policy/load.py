"""A trained policy, from Python: `rltrain.load(run).act(obs)`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rltrain.agents import AgentContext, Explorer, LoadablePolicy, Policy, make_policy
from rltrain.compute.device import device_named, float32_by_default
from rltrain.config.folders import import_plugins
from rltrain.config.schema import RunConfig
from rltrain.envs.batches import observations_in
from rltrain.envs.space_data import space_from_plain
from rltrain.envs.spaces import ObservationWriter, action_spec, make_action_transform, observation_spec, to_env_action
from rltrain.envs.wrappers import WrapperContext, WrapperStack, make_wrappers
from rltrain.envs.wrappers.stack import statistics_in
from rltrain.envs.wrappers.wrapper import Fixed
from rltrain.errors import CheckpointError, RequestError
from rltrain.policy.source import EVAL_ENVS, check_network, checkpoint_of, stored_config
from rltrain.storage.checkpoint import Checkpoint, read_checkpoint
from rltrain.storage.run_folder import folder_named
from rltrain.types import ObservationSpec

_MANY = 10**9  # episodes, where the checkpoint does not tell: a `best` of earlier versions


class TrainedPolicy:
    """The greedy policy of a checkpoint.

    Attributes:
        config: of the run that trained it.
        observation_space, action_space: of its environment, before `env.wrappers`.
        observation, network_observation: what the environment gives, and what the network takes, after `env.wrappers`.
        statistics: what the wrappers knew of the environment at this checkpoint, by name; {} where there are none.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self.config: RunConfig = stored_config(checkpoint)
        try:
            self.observation_space = space_from_plain(checkpoint.manifest.get("observation_space", {}))
            self.action_space = space_from_plain(checkpoint.manifest.get("action_space", {}))
            self.statistics = statistics_in(checkpoint.state.get("envs", {}))
        except CheckpointError as error:
            raise CheckpointError(f"{checkpoint.folder}: {error}") from error
        self.checkpoint = checkpoint.folder
        self.env_step = checkpoint.step
        solve_step = checkpoint.state.get("solve_step")
        self.solve_step: int | None = solve_step if type(solve_step) is int else None
        episodes = checkpoint.state.get("episodes")
        self._episodes = min(episodes, _MANY) if type(episodes) is int and episodes >= 0 else _MANY
        self.eval_envs = checkpoint.manifest.get(EVAL_ENVS)
        limit = checkpoint.manifest.get("max_episode_steps")
        self._limit = limit if type(limit) is int and limit > 0 else None
        self.observation, action = observation_spec(self.observation_space), action_spec(self.action_space)
        self._writer = ObservationWriter(self.observation_space)
        self._wrappers = self._make_wrappers(self.config.env.wrappers)
        self._wrappers.load_statistics(self.statistics)
        self._steps = 0  # observations since the episode began
        self.network_observation = self._wrappers.spec
        context = AgentContext(self.config, self.network_observation, action, device)
        check_network(context, checkpoint)
        with float32_by_default():
            self.agent_policy: LoadablePolicy = make_policy(context)
        try:
            self.agent_policy.load_network(checkpoint.tensors["network"])
        except (ValueError, KeyError) as error:
            raise CheckpointError(f"{checkpoint.folder}: {error}") from error

    def __repr__(self) -> str:
        what = f"{self.config.algo.name} on {self.config.env.id}, step {self.env_step:,}"
        return f"<TrainedPolicy of {what}, {str(self.checkpoint)!r}>"

    def exploring(self, seed: int) -> Policy:
        """The policy as it acted in training when the checkpoint was written, for observations of `eval_envs`.

        Raises:
            RequestError: a plug-in's agent that can only act greedily.
        """
        if not isinstance(self.agent_policy, Explorer):
            raise RequestError(f"greedy=false: algo={self.config.algo.name} can only act greedily")
        return self.agent_policy.exploring(seed, self.env_step, self._episodes)

    def act(self, obs: Any) -> Any:
        """The best action for one observation of the environment, or the best of each for a batch of them.

        The wrappers of the run are applied here. Those that look back (`frame_stack`, `time_aware`) take each call for
        the next step of one episode: `reset()` comes before the first of each.

        Args:
            obs: one observation as the environment returns it (an array, an integer, a dict, a tuple, ...); or B of
                them along one axis more, the first, as `gymnasium.vector` environments return them.

        Returns:
            An action as the environment takes it; of a batch an array [B, *action].

        Raises:
            ValueError: it is not of `observation_space`, the episode is longer than its time limit, or it is a batch
                and a wrapper looks back.
        """
        batch = observations_in(self.observation_space, obs)
        if batch is None:
            return to_env_action(self.action_space, self._act_greedy(self._seen(obs))[0])
        if self._wrappers.remembers:
            shape = f"; this has shape {obs.shape}" if isinstance(obs, np.ndarray) else ""
            one = f"one observation of {self.observation_space} at a time{shape}"
            raise ValueError(f"act takes {one}: a wrapper of this run looks back")
        nothing = np.empty((0, *self.network_observation.shape), self.network_observation.dtype)
        rows = np.concatenate([nothing, *map(self._seen, batch)])
        return make_action_transform(self.action_space)(self._act_greedy(rows))

    def _act_greedy(self, rows: np.ndarray) -> np.ndarray:
        if torch.get_default_dtype() is torch.float32:
            return self.agent_policy.act_greedy(rows)
        with float32_by_default():
            return self.agent_policy.act_greedy(rows)

    def _seen(self, obs: Any) -> np.ndarray:
        """One observation of the environment as the network takes it, [1, *obs]."""
        row = self._writer.row(obs)[None]
        if not self._wrappers:
            return row
        if self._wrappers.remembers and self._limit is not None and self._steps >= self._limit:
            raise ValueError(f"the episode is over after {self._limit} steps: reset() comes before the next one")
        self._steps += 1
        return self._wrappers.follow(row) if self._steps > 1 else self._wrappers.reset(row)

    def fixed(self) -> tuple[list[Any], ObservationSpec, list[Fixed]]:
        """The steps of `act` before the network.

        Returns:
            The configs of the wrappers that look back, the form of the observations that these alone return, and all
            steps that come after them.

        Raises:
            RequestError: it cannot be taken apart.
        """
        positions, steps = self._wrappers.fixed()
        look_back = [self.config.env.wrappers[position] for position in positions]
        return look_back, self._make_wrappers(look_back).whole_spec, steps

    def _make_wrappers(self, configs: Sequence[Any]) -> WrapperStack:
        alone = WrapperContext(self.config.env.id, 1, 1, self._limit, frozen=True)
        return make_wrappers(configs, self.observation, alone)

    def reset(self) -> None:
        """An episode begins: what `act` was shown before does not belong to it."""
        self._steps = 0


def load(run: str | Path, device: str | torch.device = "cpu") -> TrainedPolicy:
    """The policy of a run's newest checkpoint, or of the checkpoint folder that is given. Runs no code of the file's.
    The modules that $RLTRAIN_PLUGINS names are imported.

    Args:
        device: where its network is: auto, cpu, cuda, cuda:1, or a torch.device.

    Raises:
        CheckpointError: there is none, or it is damaged or foreign.
        RequestError: `run` is no path, or there is no such device.
    """
    import_plugins()
    where = device_named(device)
    return TrainedPolicy(read_checkpoint(checkpoint_of(folder_named(run)), only=("network",)), where)
