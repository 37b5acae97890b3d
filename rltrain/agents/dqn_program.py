"""What DQN does on its device, as procedures that write into memory that stays: eager, compiled or captured.

`make_learn` is K gradient steps. `make_step` is a vector step of environments that are there too
(`env.vectorization=compiled`): act, step, store. Everything that a procedure needs of a step is found in its memory at
a cursor that it moves on, so that many calls follow each other without the host: a *block*.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rltrain.agents.agent import Twin
from rltrain.agents.dqn_update import METRICS, DQNState, Hyperparameters, Phase
from rltrain.errors import RunFailed
from rltrain.networks.flat import Apply
from rltrain.replay import Batch, uniform_rows
from rltrain.replay.in_place import StepOf, Window, store


class Learning(NamedTuple):
    """What `make_learn` reads and writes. A single run has no axis M in `uniform` and `metrics`."""

    state: DQNState  # written
    arrays: Batch  # of the replay
    written: Tensor  # [M]
    hyperparameters: Hyperparameters
    uniform: Tensor  # [C, K, M, B] float64, draws from [0, 1) for C calls
    call: Tensor  # [1] int64, written: which of the C is next
    metrics: Tensor  # [C, METRICS, M], written


class Lanes(NamedTuple):
    """L = M * N environments, member by member, as they are now."""

    state: Tensor  # [*state, L]
    obs: Tensor  # [L, *obs]
    episode_return: Tensor  # [L] float64
    episode_length: Tensor  # [L] int64
    begun: Tensor  # [L] int64, episodes that have begun


class Drawn(NamedTuple):
    """What is known beforehand of D vector steps."""

    explore: Tensor  # [D, L] bool
    random_action: Tensor  # [D, L] int64
    starts: Tensor  # [D, *state, L], the first state of episode `begun` lies in row `begun % D`


class Seen(NamedTuple):
    """What became of D vector steps, for the host to look at afterwards."""

    ended: Tensor  # [D, L] bool
    episode_return: Tensor  # [D, L] float64, with the step's reward
    episode_length: Tensor  # [D, L] int64
    finite: Tensor  # [D, L] bool, whether reward and observation are


class Stepping(NamedTuple):
    """What `make_step` reads and writes."""

    params: Tensor  # [P] or [M, P]
    arrays: Batch  # of the replay, written
    written: Tensor  # [M], written
    lanes: Lanes  # written
    window: Window  # written
    drawn: Drawn
    running: Tensor  # [M] bool
    step: Tensor  # [1] int64, written: which of the D is next
    seen: Seen  # written


Learn = Callable[[Learning], None]
Step = Callable[[Stepping], None]


def make_learn(phase: Phase, capacity: int) -> Learn:
    """K gradient steps, in place; `capacity` is the replay's."""

    def learn(memory: Learning) -> None:
        uniform = memory.uniform.index_select(0, memory.call).squeeze(0)  # [K, M, B]
        rows = uniform_rows(uniform, memory.written, capacity)
        new, metrics = phase(memory.state, memory.arrays, rows, memory.hyperparameters)
        for old, value in zip(memory.state.tensors(), new.tensors(), strict=True):
            if value is not old:
                old.copy_(value)
        found = torch.stack([metrics[tag] for tag in METRICS])  # [METRICS, M]
        memory.metrics.index_copy_(0, memory.call, found.to(memory.metrics.dtype).unsqueeze(0))
        memory.call.add_(1)

    return learn


def make_step(q_network: Apply, twin: Twin, members: int, capacity: int, limit: int | None, first_action: int) -> Step:
    """One vector step of all members, epsilon-greedy, as the agent, the environments and the replay make it apart.

    Args:
        limit: the steps after which an episode is cut, None for never.
        first_action: the environment's own number of action 0.
    """
    forward = q_network if members == 1 else torch.vmap(q_network)

    def step(memory: Stepping) -> None:
        lanes, seen, at = memory.lanes, memory.seen, memory.step
        active = memory.running.repeat_interleave(lanes.obs.shape[0] // members, output_size=lanes.obs.shape[0])  # [L]
        action = _act(memory.params, lanes.obs, memory.drawn, at)  # [L]
        after, reward, terminated = twin.step(torch, lanes.state, action + first_action if first_action else action)
        next_obs = _observed(after)  # [L, *obs]
        length = lanes.episode_length + active
        total = torch.where(active, lanes.episode_return + reward, lanes.episode_return)
        ended = terminated if limit is None else terminated | (length >= limit)
        ended = ended & active  # [L]
        done = StepOf(lanes.obs, action, reward.float(), next_obs, terminated, ended, active)
        store(memory.arrays, memory.written, memory.window, done, capacity)
        finite = next_obs.flatten(1).isfinite().all(1) & reward.isfinite() | ~active
        for of_all, now in zip(seen, Seen(ended, total, length, finite), strict=True):
            of_all.index_copy_(0, at, now.unsqueeze(0))
        rows = lanes.begun % len(memory.drawn.starts)  # [L]
        begins = memory.drawn.starts.gather(0, rows.expand(1, *lanes.state.shape)).squeeze(0)  # [*state, L]
        state = torch.where(ended, begins, torch.where(active, after, lanes.state))
        lanes.obs.copy_(_observed(state))
        lanes.state.copy_(state)
        lanes.episode_return.copy_(torch.where(ended, 0.0, total))
        lanes.episode_length.copy_(torch.where(ended, 0, length))
        lanes.begun.add_(ended)
        at.add_(1)

    def _act(params: Tensor, obs: Tensor, drawn: Drawn, at: Tensor) -> Tensor:
        of_members = obs if members == 1 else obs.view(members, -1, *obs.shape[1:])
        greedy = forward(params, of_members).argmax(-1).flatten()  # [L]
        explore, random_action = (x.index_select(0, at).squeeze(0) for x in (drawn.explore, drawn.random_action))
        return torch.where(explore, random_action, greedy)

    def _observed(state: Tensor) -> Tensor:
        observed: Tensor = twin.observe(torch, state)
        return observed.movedim(-1, 0).float().contiguous()

    return step


def check_in_torch(twin: Twin, state: Tensor) -> None:
    """Whether the twin computes with torch what it computes with NumPy; state [*state, L].

    Raises:
        RunFailed: it raises, or returns other shapes or kinds of numbers.
    """
    lanes = state.shape[-1:]
    whose = f"env.vectorization=compiled: the batched twin {type(twin).__name__}"
    try:
        action = torch.zeros(lanes, dtype=torch.int64, device=state.device)
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
