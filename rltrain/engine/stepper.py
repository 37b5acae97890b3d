"""Blocks of vector steps on the device, `env.vectorization=compiled`: inputs sent before one, records read after it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from rltrain.compute.compiling import Bound
from rltrain.compute.staging import StagingBuffers
from rltrain.engine.algorithm import NETWORK_NOISE, Algorithm
from rltrain.engine.members import MemberNetworks
from rltrain.engine.protocol import AgentContext, SteppedByAgent
from rltrain.engine.stepping import (
    EnvBatch,
    StepInputs,
    Stepping,
    StepRecords,
    Store,
    check_in_torch,
    make_step,
    make_to_env,
)
from rltrain.types import BlockBoundary, BlockRecords, Episode

_KEPT = "kept."
# With so many vector steps what the host does between blocks is spread; their draws and first states take memory.
_MOST_STEPS, _MOST_LANES = 64, 2**17


class Stepper:
    """Vector steps of environments whose twin is computed on the device too, many before the host looks.

    Attributes:
        depth: how many, at most.
    """

    def __init__(
        self,
        context: AgentContext,
        algorithm: Algorithm,
        networks: MemberNetworks,
        experience: Store,
        envs: SteppedByAgent,
        depth: int,
    ) -> None:
        self.depth = depth
        self._experience, self._envs = experience, envs
        now, (starts, _) = envs.now(), envs.next_starts(depth)
        lanes = len(now.obs)
        to_env = make_to_env(envs.first_action, envs.action_scale, context.device)
        action = context.action
        like = torch.zeros(lanes, *action.shape, dtype=getattr(torch, action.dtype), device=context.device)
        check_in_torch(envs.twin, torch.from_numpy(now.state).to(context.device), to_env(like))
        self._lanes = StagingBuffers(
            {
                **_fields_like(_arrays(now)),
                "begun": ((lanes,), torch.int64),
                "step": ((1,), torch.int64),
                "running": ((lanes,), torch.bool),
            },
            context.device,
        )
        axis = () if networks.members == 1 else (networks.members,)
        self._drawn = StagingBuffers(
            {
                **{name: ((depth, lanes, *draw.shape), draw.dtype) for name, draw in algorithm.acting_draws.items()},
                NETWORK_NOISE: ((depth, *axis, networks.noise_size), torch.float32),
                **_fields_like({"starts": starts}),
            },
            context.device,
        )
        self._seen = StagingBuffers(
            {
                "ended": ((depth, lanes), torch.bool),
                "episode_return": ((depth, lanes), torch.float64),
                "episode_length": ((depth, lanes), torch.int64),
                "finite": ((depth, lanes), torch.bool),
            },
            context.device,
        )
        on_device, drawn = self._lanes.on_device, self._drawn.on_device
        memory = Stepping(
            networks.params,
            experience.memory,
            EnvBatch(*(on_device[name] for name in EnvBatch._fields)),
            StepInputs({name: drawn[name] for name in algorithm.acting_draws}, drawn[NETWORK_NOISE], drawn["starts"]),
            on_device["running"],
            on_device["step"],
            StepRecords(**self._seen.on_device),
            {name: on_device[_KEPT + name] for name in now.kept},
        )
        step = make_step(
            algorithm, networks, experience, envs.twin, envs.max_episode_steps, to_env, envs.wrappers,
            envs.reward_clip,
        )  # fmt: skip
        self.program = Bound(step, step, (memory,), cuda_graphs=context.cuda_graphs)

    def prepare(self, acting: Mapping[str, np.ndarray], running: np.ndarray) -> None:
        """Send the inputs of the next steps: the draws of acting, [steps, ...] each, and which members [M] run."""
        lanes, drawn = self._lanes.host, self._drawn.host
        now = self._envs.now()
        for name, array in _arrays(now).items():
            lanes[name][:] = array
        drawn["starts"][:], lanes["begun"][:] = self._envs.next_starts(self.depth)
        lanes["step"][:] = 0
        lanes["running"][:] = np.repeat(running, len(now.obs) // len(running))
        for name, draws in acting.items():
            drawn[name][: len(draws)] = draws.reshape(-1, *drawn[name].shape[1:])
        self._lanes.send()
        self._drawn.send()
        self._experience.send()

    def step(self) -> None:
        """The next vector step."""
        self.program()

    def finish(self, steps: int) -> tuple[list[Episode], np.ndarray]:
        """Reports the steps since `prepare` to the environments; waits for them. Returns the episodes that ended, and
        which environments ended one in each step, [steps, M * N] bool."""
        lanes, seen = self._lanes.fetch(), self._seen.fetch()
        self._experience.fetch()
        kept = {name.removeprefix(_KEPT): array for name, array in lanes.items() if name.startswith(_KEPT)}
        own = {name: lanes[name] for name in BlockBoundary._fields if name != "kept"}
        now = BlockBoundary(**own, kept=kept)
        block = BlockRecords(*(seen[name][:steps] for name in BlockRecords._fields))
        return self._envs.record_block(now, block), block.ended


def block_depth(lanes: int) -> int:
    """The most vector steps in a block, for this number of environments."""
    return max(1, min(_MOST_STEPS, _MOST_LANES // lanes))


def _arrays(now: BlockBoundary) -> dict[str, np.ndarray]:
    """By the names that they have in the staging buffers."""
    return {**{name: array for name, array in now._asdict().items() if name != "kept"},
            **{_KEPT + name: array for name, array in now.kept.items()}}  # fmt: skip


def _fields_like(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (array.shape, torch.from_numpy(array).dtype) for name, array in arrays.items()}
