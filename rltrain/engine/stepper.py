"""Vector steps of environments whose twin is computed on the agent's device (`env.vectorization=compiled`): act, step,
store, in place, eager, compiled or captured.

Everything that a step needs is found in its memory at a cursor that it moves on, so that many calls follow each other
without the host: a *block*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from rltrain.compute.compiling import Bound
from rltrain.compute.staging import StagingBuffers
from rltrain.engine.algorithm import NETWORK_NOISE, Algorithm
from rltrain.engine.members import MemberNetworks
from rltrain.engine.protocol import AgentContext, Formulas, SteppedByAgent, Twin
from rltrain.errors import RunFailed
from rltrain.experience.in_place import StepOf
from rltrain.types import ActionScale, BlockBoundary, BlockRecords, Episode


class Store(Protocol):
    """Experience that a program writes, L = M * N environments at a time."""

    @property
    def memory(self) -> Any:
        """The first argument of `playing` and `store`, on the device; always the same tensors."""
        ...

    def playing(self, memory: Any, running: Tensor) -> Tensor:
        """The environments [L] of running members that this step moves. Part of the program."""
        ...

    def store(self, memory: Any, step: StepOf) -> None:
        """Stores one step of all environments. Part of the program."""
        ...

    def send(self) -> None:
        """Sends the host's counters to the device."""
        ...

    def fetch(self) -> None:
        """Fetches the device's counters; waits for them."""
        ...


class EnvBatch(NamedTuple):
    """The present state of L = M * N environments, member by member."""

    state: Tensor  # [*state, L]
    obs: Tensor  # [L, *obs]
    episode_return: Tensor  # [L] float64
    episode_length: Tensor  # [L] int64
    begun: Tensor  # [L] int64, episodes that have begun


class StepInputs(NamedTuple):
    """Inputs of D vector steps that the host draws beforehand."""

    acting: dict[str, Tensor]  # the algorithm's `acting_draws`, each [D, L]
    network_noise: Tensor  # [D, M, E], of a single run [D, E]; E is 0 where the network is not noisy
    starts: Tensor  # [D, *state, L], the first state of episode `begun` lies in row `begun % D`


class StepRecords(NamedTuple):
    """Outcomes of D vector steps, which the host reads afterwards."""

    ended: Tensor  # [D, L] bool
    episode_return: Tensor  # [D, L] float64, with the step's reward
    episode_length: Tensor  # [D, L] int64
    finite: Tensor  # [D, L] bool, whether reward and observation are


class Stepping(NamedTuple):
    """The tensors that a vector step reads and writes."""

    params: Tensor  # [P] or [M, P]
    memory: Any  # the store's, written
    lanes: EnvBatch  # written
    drawn: StepInputs
    running: Tensor  # [L] bool, the environments of members that run; of [M], Inductor fails on the index l // N
    step: Tensor  # [1] int64, written: which of the D is next
    seen: StepRecords  # written
    kept: dict[str, Tensor]  # by the wrappers, written


Step = Callable[[Stepping], None]
_KEPT = "kept."
ToEnv = Callable[[Tensor], Tensor]


def make_to_env(first_action: int, scale: ActionScale | None, device: torch.device) -> ToEnv:
    """From the agent's actions [L, *action] to the environment's [*action, L]."""
    if scale is None:
        return lambda action: action + first_action if first_action else action
    bounds = (scale.scale, scale.centre, scale.low, scale.high)
    by, centre, low, high = (torch.tensor(array, dtype=torch.float64, device=device) for array in bounds)
    dtype = getattr(torch, scale.dtype)

    def to_box(action: Tensor) -> Tensor:
        wanted = action.double() * by + centre
        return torch.minimum(torch.maximum(wanted, low), high).to(dtype).movedim(0, -1)

    return to_box


def make_step(
    algorithm: Algorithm, networks: MemberNetworks, experience: Store, twin: Twin, limit: int | None, to_env: ToEnv,
    wrappers: Formulas | None = None, reward_clip: float | None = None,
) -> Step:  # fmt: skip
    """One vector step of all members, as the agent, the environments and the experience make it apart.

    Args:
        limit: the steps after which an episode is cut, None for never.
        to_env: from the agent's actions to the environment's own.
        wrappers, reward_clip: what comes between the twin and the agent.
    """
    members, forward = networks.members, networks.forward

    def step(memory: Stepping) -> None:
        lanes, seen, at = memory.lanes, memory.seen, memory.step
        active = experience.playing(memory.memory, memory.running)  # [L]
        action = _act(memory.params, lanes.obs, memory.drawn, at)  # [L, *action]
        after, reward, terminated = twin.step(torch, lanes.state, to_env(action))
        bare = next_obs = _observed(after)  # [L, *obs]
        length = lanes.episode_length + active
        total = torch.where(active, lanes.episode_return + reward, lanes.episode_return)
        ended = terminated if limit is None else terminated | (length >= limit)
        ended = ended & active  # [L]
        earned, kept = reward.float(), cast(Mapping[str, Tensor], memory.kept)
        if wrappers is not None:
            earned, kept = wrappers.rewarded(torch, kept, earned, active)
            next_obs, kept = wrappers.stepped(torch, kept, bare, active)
        if reward_clip is not None:
            earned = earned.clamp(-reward_clip, reward_clip)
        done = StepOf(lanes.obs, action, earned, next_obs, terminated, ended, active)
        experience.store(memory.memory, done)
        finite = bare.flatten(1).isfinite().all(1) & reward.isfinite() | ~active
        for of_all, now in zip(seen, StepRecords(ended, total, length, finite), strict=True):
            of_all.index_copy_(0, at, now.unsqueeze(0))
        rows = lanes.begun % len(memory.drawn.starts)  # [L]
        begins = memory.drawn.starts.gather(0, rows.expand(1, *lanes.state.shape)).squeeze(0)  # [*state, L]
        state = torch.where(ended, begins, torch.where(active, after, lanes.state))
        if wrappers is None:
            lanes.obs.copy_(_observed(state))
        else:
            shown, kept = wrappers.begun(torch, kept, _observed(begins), ended)
            rows_of = (-1, *[1] * (shown.ndim - 1))
            went_on = torch.where(active.view(rows_of), next_obs, lanes.obs)
            lanes.obs.copy_(torch.where(ended.view(rows_of), shown, went_on))
            for name, tensor in memory.kept.items():
                tensor.copy_(kept[name])
        lanes.state.copy_(state)
        lanes.episode_return.copy_(torch.where(ended, 0.0, total))
        lanes.episode_length.copy_(torch.where(ended, 0, length))
        lanes.begun.add_(ended)
        at.add_(1)

    def _act(params: Tensor, obs: Tensor, drawn: StepInputs, at: Tensor) -> Tensor:
        of_members = obs if members == 1 else obs.view(members, -1, *obs.shape[1:])
        noise = [drawn.network_noise.index_select(0, at).squeeze(0)] if networks.noise_size else []  # [M, E]
        output = forward(params, of_members, *noise)  # [M, N, outputs]
        output = output if members == 1 else output.flatten(0, 1)
        now = {name: draws.index_select(0, at).squeeze(0) for name, draws in drawn.acting.items()}
        action: Tensor = algorithm.choose(torch, output, now)
        return action

    def _observed(state: Tensor) -> Tensor:
        observed: Tensor = twin.observe(torch, state)
        return observed.movedim(-1, 0).float().contiguous()

    return step


def check_in_torch(twin: Twin, state: Tensor, action: Tensor) -> None:
    """Check that the twin computes with torch what it computes with NumPy; state [*state, L], action [*action, L].

    Raises:
        RunFailed: it raises, or returns other shapes or kinds of numbers.
    """
    lanes = state.shape[-1:]
    whose = f"env.vectorization=compiled: the batched twin {type(twin).__name__}"
    try:
        after, reward, terminated = twin.step(torch, state, action)
        found = [(x.shape, x.dtype) for x in (after, reward.float(), terminated)]
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RunFailed(f"{whose} fails with xp=torch: {reason}") from error
    expected = [(state.shape, state.dtype), (lanes, torch.float32), (lanes, torch.bool)]
    for name, is_now, should in zip(("state", "reward", "terminated"), found, expected, strict=True):
        if is_now != should:
            shown = f"{is_now[1]} {tuple(is_now[0])}, not {should[1]} {tuple(should[0])}"
            raise RunFailed(f"{whose} gives with xp=torch {name} as {shown}")


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
        dtype = torch.int64 if envs.action_scale is None else torch.float32
        like = torch.zeros(lanes, *context.action.shape, dtype=dtype, device=context.device)
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


def _arrays(now: BlockBoundary) -> dict[str, np.ndarray]:
    """By the names that they have in the staging buffers."""
    return {**{name: array for name, array in now._asdict().items() if name != "kept"},
            **{_KEPT + name: array for name, array in now.kept.items()}}  # fmt: skip


def _fields_like(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (array.shape, torch.from_numpy(array).dtype) for name, array in arrays.items()}
