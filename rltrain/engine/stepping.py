"""One vector step of environments whose twin is computed on the agent's device: act, step, store, in place, eager,
compiled or captured.

Each step reads its inputs from memory on the device, at a cursor that it advances, so that many steps, a *block*, run
without waiting for the host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from rltrain.engine.algorithm import Algorithm
from rltrain.engine.members import MemberNetworks
from rltrain.engine.protocol import Formulas, Twin
from rltrain.errors import RunFailed
from rltrain.experience.in_place import StepOf
from rltrain.types import ActionScale


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
    network_noise: Tensor  # [D, M, E]; E is 0 where the network is not noisy
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
    envs: EnvBatch  # written
    inputs: StepInputs
    running: Tensor  # [L] bool, the environments of members that run; of [M], Inductor fails on the index l // N
    step: Tensor  # [1] int64, written: which of the D is next
    records: StepRecords  # written
    kept: dict[str, Tensor]  # by the wrappers, written


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
) -> Callable[[Stepping], None]:  # fmt: skip
    """One vector step of all members as one procedure: what the agent, the environments and the experience do in turn
    where they are apart.

    Args:
        limit: the steps after which an episode is cut, None for never.
        to_env: from the agent's actions to the environment's own.
        wrappers, reward_clip: what comes between the twin and the agent.
    """

    def step(memory: Stepping) -> None:
        envs, at = memory.envs, memory.step
        active = experience.playing(memory.memory, memory.running)  # [L]
        action = _act(algorithm, networks, memory)
        after, reward, terminated = twin.step(torch, envs.state, to_env(action))
        bare = next_obs = _observed(twin, after, envs.obs.dtype)
        length = envs.episode_length + active
        total = torch.where(active, envs.episode_return + reward, envs.episode_return)
        ended = terminated if limit is None else terminated | (length >= limit)
        ended = ended & active  # [L]
        earned, kept = reward.float(), cast(Mapping[str, Tensor], memory.kept)
        if wrappers is not None:
            earned, kept = wrappers.rewarded(torch, kept, earned, active)
            next_obs, kept = wrappers.stepped(torch, kept, bare, active)
        if reward_clip is not None:
            earned = earned.clamp(-reward_clip, reward_clip)
        done = StepOf(envs.obs, action, earned, next_obs, terminated, ended, active)
        experience.store(memory.memory, done)
        finite = bare.flatten(1).isfinite().all(1) & reward.isfinite() | ~active
        for of_all, now in zip(memory.records, StepRecords(ended, total, length, finite), strict=True):
            of_all.index_copy_(0, at, now.unsqueeze(0))
        first = _first_states(memory)
        _show(memory, done, kept, _observed(twin, first, envs.obs.dtype), wrappers)
        envs.state.copy_(torch.where(ended, first, torch.where(active, after, envs.state)))
        envs.episode_return.copy_(torch.where(ended, 0.0, total))
        envs.episode_length.copy_(torch.where(ended, 0, length))
        envs.begun.add_(ended)
        at.add_(1)

    return step


def _act(algorithm: Algorithm, networks: MemberNetworks, memory: Stepping) -> Tensor:
    """The actions [L, *action] of this step."""
    inputs, at = memory.inputs, memory.step
    noise = [inputs.network_noise.index_select(0, at).squeeze(0)] if networks.noise_size else []  # [M, E]
    output = networks.all(memory.params, memory.envs.obs, *noise)  # [L, outputs]
    now = {name: draws.index_select(0, at).squeeze(0) for name, draws in inputs.acting.items()}
    action: Tensor = algorithm.choose(torch, output, now)
    return action


def _observed(twin: Twin, state: Tensor, dtype: torch.dtype) -> Tensor:
    """The observations [L, *obs] of states [*state, L]."""
    observed: Tensor = twin.observe(torch, state)
    return observed.movedim(-1, 0).to(dtype).contiguous()


def _first_states(memory: Stepping) -> Tensor:
    """The first state [*state, L] of each environment's next episode."""
    starts = memory.inputs.starts
    rows = memory.envs.begun % len(starts)  # [L]
    return starts.gather(0, rows.expand(1, *memory.envs.state.shape)).squeeze(0)


def _show(memory: Stepping, done: StepOf, kept: Mapping[str, Tensor], first: Tensor, wrappers: Formulas | None) -> None:
    """Writes the observations that the agent acts on next: the `first` of an episode where one has ended."""
    if wrappers is not None:
        first, kept = wrappers.begun(torch, kept, first, done.ended)
    of_env = (-1, *[1] * (first.ndim - 1))
    went_on = torch.where(done.active.view(of_env), done.next_obs, memory.envs.obs)
    memory.envs.obs.copy_(torch.where(done.ended.view(of_env), first, went_on))
    for name, tensor in memory.kept.items():
        tensor.copy_(kept[name])


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
