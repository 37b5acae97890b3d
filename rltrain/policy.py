"""A trained policy, from Python: `rltrain.load(run).act(obs)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rltrain.agents import POLICIES, AgentContext, LoadablePolicy
from rltrain.build import checkpoint_of, stored_config
from rltrain.config.schema import RunConfig
from rltrain.envs.space_data import space_from_plain
from rltrain.envs.spaces import action_spec, from_env_observation, observation_spec, to_env_action
from rltrain.errors import CheckpointError
from rltrain.training.checkpoint import Checkpoint, read_checkpoint


class TrainedPolicy:
    """The greedy policy of a checkpoint.

    Attributes:
        config: of the run that trained it.
        observation_space, action_space: of its environment.
    """

    def __init__(self, checkpoint: Checkpoint, device: str | torch.device = "cpu") -> None:
        self.config: RunConfig = stored_config(checkpoint)
        try:
            self.observation_space = space_from_plain(checkpoint.manifest.get("observation_space", {}))
            self.action_space = space_from_plain(checkpoint.manifest.get("action_space", {}))
        except CheckpointError as error:
            raise CheckpointError(f"{checkpoint.folder}: {error}") from error
        self.checkpoint = checkpoint.folder
        self.env_step = checkpoint.step
        self.solve_step: int | None = checkpoint.state.get("solve_step")
        observation, action = observation_spec(self.observation_space), action_spec(self.action_space)
        context = AgentContext(self.config, observation, action, torch.device(device))
        self.agent_policy: LoadablePolicy = POLICIES[self.config.algo.name](context)
        try:
            self.agent_policy.load_network(checkpoint.tensors["network"])
        except (ValueError, KeyError) as error:
            raise CheckpointError(f"{checkpoint.folder}: {error}") from error

    def act(self, obs: Any) -> Any:
        """The best action for one observation of the environment, in the environment's own form.

        Args:
            obs: one observation as the environment returns it: an array, an integer, a dict, a tuple, ...

        Raises:
            ValueError: it is not of `observation_space`.
        """
        batch = from_env_observation(self.observation_space, obs)[None]
        return to_env_action(self.action_space, self.agent_policy.act_greedy(batch)[0])


def load(run: str | Path, device: str | torch.device = "cpu") -> TrainedPolicy:
    """The policy of a run's newest checkpoint, or of the checkpoint folder that is given. Runs no code of the file's.

    Raises:
        CheckpointError: there is none, or it is damaged or foreign.
    """
    return TrainedPolicy(read_checkpoint(checkpoint_of(Path(run)), only=("network",)), device)
