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
        lanes, device = len(now.obs), context.device
        noise = (depth, networks.members, networks.noise_size)
        acting = {name: ((depth, lanes, *draw.shape), draw.dtype) for name, draw in algorithm.acting_draws.items()}
        inputs = {**acting, NETWORK_NOISE: (noise, torch.float32), **_fields_like({"starts": starts})}
        self._boundary = StagingBuffers(_boundary_fields(now), device)
        self._inputs = StagingBuffers(inputs, device)
        self._records = StagingBuffers(_record_fields(depth, lanes), device)
        between, drawn = self._boundary.on_device, self._inputs.on_device
        memory = Stepping(
            networks.params,
            experience.memory,
            EnvBatch(*(between[name] for name in EnvBatch._fields)),
            StepInputs({name: drawn[name] for name in acting}, drawn[NETWORK_NOISE], drawn["starts"]),
            between["running"],
            between["step"],
            StepRecords(**self._records.on_device),
            {name: between[_KEPT + name] for name in now.kept},
        )
        to_env = make_to_env(envs.first_action, envs.action_scale, device)
        like = torch.zeros(lanes, *context.action.shape, dtype=getattr(torch, context.action.dtype), device=device)
        check_in_torch(envs.twin, torch.from_numpy(now.state).to(device), to_env(like))
        step = make_step(
            algorithm, networks, experience, envs.twin, envs.max_episode_steps, to_env, envs.wrappers,
            envs.reward_clip,
        )  # fmt: skip
        self.program = Bound(step, step, (memory,), cuda_graphs=context.cuda_graphs)

    def prepare(self, acting: Mapping[str, np.ndarray], running: np.ndarray) -> None:
        """Send the inputs of the next steps: the draws of acting, [steps, ...] each, and which members [M] run."""
        between, drawn = self._boundary.host, self._inputs.host
        now = self._envs.now()
        for name, array in _arrays(now).items():
            between[name][:] = array
        drawn["starts"][:], between["begun"][:] = self._envs.next_starts(self.depth)
        between["step"][:] = 0
        between["running"][:] = np.repeat(running, len(now.obs) // len(running))
        for name, draws in acting.items():
            drawn[name][: len(draws)] = draws.reshape(-1, *drawn[name].shape[1:])
        self._boundary.send()
        self._inputs.send()
        self._experience.send()

    def step(self) -> None:
        """The next vector step."""
        self.program()

    def finish(self, steps: int) -> tuple[list[Episode], np.ndarray]:
        """Reports the steps since `prepare` to the environments; waits for them. Returns the episodes that ended, and
        which environments ended one in each step, [steps, M * N] bool."""
        between, records = self._boundary.fetch(), self._records.fetch()
        self._experience.fetch()
        kept = {name.removeprefix(_KEPT): array for name, array in between.items() if name.startswith(_KEPT)}
        own = {name: between[name] for name in BlockBoundary._fields if name != "kept"}
        now = BlockBoundary(**own, kept=kept)
        block = BlockRecords(*(records[name][:steps] for name in BlockRecords._fields))
        return self._envs.record_block(now, block), block.ended


def block_depth(lanes: int) -> int:
    """The most vector steps in a block, for this number of environments."""
    return max(1, min(_MOST_STEPS, _MOST_LANES // lanes))


def _arrays(now: BlockBoundary) -> dict[str, np.ndarray]:
    """By the names that they have in the staging buffers."""
    return {**{name: array for name, array in now._asdict().items() if name != "kept"},
            **{_KEPT + name: array for name, array in now.kept.items()}}  # fmt: skip


def _boundary_fields(now: BlockBoundary) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and types of what environments are between two blocks."""
    lanes = (len(now.obs),)
    more = {"begun": (lanes, torch.int64), "step": ((1,), torch.int64), "running": (lanes, torch.bool)}
    return {**_fields_like(_arrays(now)), **more}


def _record_fields(depth: int, lanes: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and types of `StepRecords`."""
    types = torch.bool, torch.float64, torch.int64, torch.bool
    return {name: ((depth, lanes), dtype) for name, dtype in zip(StepRecords._fields, types, strict=True)}


def _fields_like(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (array.shape, torch.from_numpy(array).dtype) for name, array in arrays.items()}
