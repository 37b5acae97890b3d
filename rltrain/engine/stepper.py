"""Vector steps of environments whose twin is computed on the agent's device (`env.vectorization=compiled`): act, step,
store, in place, eager, compiled or captured.

Everything that a step needs is found in its memory at a cursor that it moves on, so that many calls follow each other
without the host: a *block*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rltrain.compiling import bound
from rltrain.engine.algorithm import Algorithm
from rltrain.engine.members import MemberNetworks
from rltrain.engine.protocol import AgentContext, SteppedByAgent, Twin
from rltrain.errors import RunFailed
from rltrain.exchange import Exchange
from rltrain.replay import UniformReplay
from rltrain.replay.in_place import StepOf, Window
from rltrain.replay.n_step import NStepWindow
from rltrain.types import BlockSeen, Episode, LanesNow


class Lanes(NamedTuple):
    """L = M * N environments, member by member, as they are now."""

    state: Tensor  # [*state, L]
    obs: Tensor  # [L, *obs]
    episode_return: Tensor  # [L] float64
    episode_length: Tensor  # [L] int64
    begun: Tensor  # [L] int64, episodes that have begun


class Drawn(NamedTuple):
    """What is known beforehand of D vector steps."""

    acting: dict[str, Tensor]  # the algorithm's `acting_draws`, each [D, L]
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
    memory: Any  # the replay's, written
    lanes: Lanes  # written
    window: Window  # written
    drawn: Drawn
    running: Tensor  # [M] bool
    step: Tensor  # [1] int64, written: which of the D is next
    seen: Seen  # written


Step = Callable[[Stepping], None]


def make_step(
    algorithm: Algorithm, replay: UniformReplay, twin: Twin, members: int, limit: int | None, first_action: int
) -> Step:
    """One vector step of all members, as the agent, the environments and the replay make it apart.

    Args:
        limit: the steps after which an episode is cut, None for never.
        first_action: the environment's own number of action 0.
    """
    apply = algorithm.networks[algorithm.acts].apply
    forward = apply if members == 1 else torch.vmap(apply)

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
        replay.store(memory.memory, memory.window, done)
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
        output = forward(params, of_members)  # [M, N, outputs]
        output = output if members == 1 else output.flatten(0, 1)
        now = {name: draws.index_select(0, at).squeeze(0) for name, draws in drawn.acting.items()}
        action: Tensor = algorithm.choose(torch, output, now)  # [L]
        return action

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
        replay: UniformReplay,
        window: NStepWindow,
        envs: SteppedByAgent,
        depth: int,
    ) -> None:
        self.depth = depth
        self._window, self._replay, self._envs = window, replay, envs
        now, (starts, _) = envs.now(), envs.next_starts(depth)
        lanes = len(now.obs)
        check_in_torch(envs.twin, torch.from_numpy(now.state).to(context.device))
        self._lanes = Exchange(
            {
                **_fields_like(now._asdict()),
                "begun": ((lanes,), torch.int64),
                "step": ((1,), torch.int64),
                "running": ((networks.members,), torch.bool),
            },
            context.device,
        )
        self._drawn = Exchange(
            {
                **{name: ((depth, lanes, *draw.shape), draw.dtype) for name, draw in algorithm.acting_draws.items()},
                **_fields_like({"starts": starts}),
            },
            context.device,
        )
        self._seen = Exchange(
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
            replay.memory,
            Lanes(*(on_device[name] for name in Lanes._fields)),
            window.on_device(),
            Drawn({name: drawn[name] for name in algorithm.acting_draws}, drawn["starts"]),
            on_device["running"],
            on_device["step"],
            Seen(**self._seen.on_device),
        )
        limit, first_action = envs.max_episode_steps, envs.first_action
        step = make_step(algorithm, replay, envs.twin, networks.members, limit, first_action)
        self._step = bound(step, step, (memory,), compile=context.compile_update, cuda_graphs=context.cuda_graphs)

    def prepare(self, acting: Mapping[str, np.ndarray], running: np.ndarray) -> None:
        """For the next steps: the algorithm's draws, [steps, M * N] each, and which members [M] move."""
        lanes, drawn = self._lanes.host, self._drawn.host
        now = self._envs.now()
        for name, array in now._asdict().items():
            lanes[name][:] = array
        drawn["starts"][:], lanes["begun"][:] = self._envs.next_starts(self.depth)
        lanes["step"][:] = 0
        lanes["running"][:] = running
        for name, draws in acting.items():
            drawn[name][: len(draws)] = draws
        for exchange in (self._lanes, self._drawn, self._window):
            exchange.send()
        self._replay.send_counts()  # a checkpoint that was loaded has told the host alone

    def step(self) -> None:
        """The next vector step."""
        self._step()

    def finish(self, steps: int) -> list[Episode]:
        """Tells the environments what became of the steps since `prepare`; waits for them. Returns the episodes that
        ended."""
        lanes, seen = self._lanes.fetch(), self._seen.fetch()
        self._window.fetch()
        self._replay.fetch_counts()
        now = LanesNow(*(lanes[name] for name in LanesNow._fields))
        return self._envs.take_block(now, BlockSeen(*(seen[name][:steps] for name in BlockSeen._fields)))


def _fields_like(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (array.shape, torch.from_numpy(array).dtype) for name, array in arrays.items()}
