"""A whole iteration of DQN as one function of tensors: act, step the environments, store, learn.

`env.vectorization=compiled`: the environments are batched twins, which compute in torch inside the program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rltrain.agents.agent import Twin
from rltrain.agents.dqn_update import DQNState, Hyperparameters, Metrics, Phase
from rltrain.compiling import compiled
from rltrain.errors import RunFailed
from rltrain.networks.flat import Apply
from rltrain.replay import Batch


class Lanes(NamedTuple):
    """L = M * N environments before a step, member by member, and what is drawn and known for it."""

    state: Tensor  # [*state, L]
    obs: Tensor  # [L, *obs]
    explore: Tensor  # [L] bool
    random_action: Tensor  # [L]
    gamma: Tensor  # [L] float64
    places: Tensor  # [L], the rows of the replay that the transitions are written to


class Stepped(NamedTuple):
    """What the environments did; where an episode ended, `state` is its last."""

    action: Tensor  # [L]
    state: Tensor  # [*state, L]
    reward: Tensor  # [L], in the twin's own dtype
    terminated: Tensor  # [L] bool
    next_obs: Tensor  # [L, *obs]


ActAndStore = Callable[[Tensor, Batch, Lanes], Stepped]
"""params, the replay's arrays, which are written, lanes -> what they did."""
Iteration = Callable[[DQNState, Batch, Lanes, Tensor, Hyperparameters], tuple[DQNState, Metrics, Stepped]]
"""`ActAndStore`, then a `Phase`."""


def check_in_torch(twin: Twin, state: Tensor) -> None:
    """Whether the twin computes with torch what it computes with NumPy; state [*state, L].

    Raises:
        RunFailed: it raises, or returns other shapes or kinds of numbers.
    """
    lanes = state.shape[-1:]
    try:
        after, reward, terminated = twin.step(torch, state, torch.zeros(lanes, dtype=torch.int64))
        found = [(x.shape, x.dtype) for x in (after, reward.float(), terminated)]
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RunFailed(f"env.vectorization=compiled: the batched twin fails in torch: {reason}") from error
    expected = [(state.shape, state.dtype), (lanes, torch.float32), (lanes, torch.bool)]
    for name, is_now, should in zip(("state", "reward", "terminated"), found, expected, strict=True):
        if is_now != should:
            shown = f"{is_now[1]} {tuple(is_now[0])}, not {should[1]} {tuple(should[0])}"
            raise RunFailed(f"env.vectorization=compiled: in torch the batched twin gives {name} as {shown}")


def make_act_and_store(q_network: Apply, twin: Twin, members: int) -> ActAndStore:
    """One vector step of all members, epsilon-greedy, as the agent, the environments and the replay make it apart."""
    forward = q_network if members == 1 else torch.vmap(q_network)

    def act_and_store(params: Tensor, arrays: Batch, lanes: Lanes) -> Stepped:
        obs = lanes.obs if members == 1 else lanes.obs.view(members, -1, *lanes.obs.shape[1:])
        greedy = forward(params, obs).argmax(-1).flatten()  # [L]
        action = torch.where(lanes.explore, lanes.random_action, greedy)  # [L]
        state, reward, terminated = twin.step(torch, lanes.state, action)
        next_obs = twin.observe(torch, state).movedim(-1, 0).float().contiguous()  # [L, *obs]
        discount = (lanes.gamma * ~terminated).float()  # [L]
        columns = Batch(lanes.obs, action, reward.float(), next_obs, discount)
        for array, column in zip(arrays, columns, strict=True):
            array.index_copy_(0, lanes.places, column)
        return Stepped(action, state, reward, terminated, next_obs)

    return act_and_store


def make_iteration(act_and_store: ActAndStore, phase: Phase) -> Iteration:
    """A vector step and the gradient steps that are due after it, K of them."""

    def iteration(
        learned: DQNState, arrays: Batch, lanes: Lanes, rows: Tensor, hyperparameters: Hyperparameters
    ) -> tuple[DQNState, Metrics, Stepped]:
        stepped = act_and_store(learned.params, arrays, lanes)
        return *phase(learned, arrays, rows, hyperparameters), stepped

    return iteration


class Iterations:
    """Iterations with gradient steps and without, each compiled at its first call where that is asked for."""

    def __init__(self, act_and_store: ActAndStore, phase: Phase, eager_phase: Phase, compile: bool) -> None:
        self._act_and_store = act_and_store
        self._iteration = eager = make_iteration(act_and_store, eager_phase)
        if compile:
            self._act_and_store = compiled(act_and_store, act_and_store, fixed_shapes=True)
            self._iteration = compiled(make_iteration(act_and_store, phase), eager, fixed_shapes=True)

    def __call__(
        self, learned: DQNState, arrays: Batch, lanes: Lanes, rows: Tensor | None, hyperparameters: Hyperparameters
    ) -> tuple[DQNState, list[Metrics], Stepped]:
        """Without `rows` nothing is learned, and there are no metrics."""
        if rows is None:
            return learned, [], self._act_and_store(learned.params, arrays, lanes)
        learned, metrics, stepped = self._iteration(learned, arrays, lanes, rows, hyperparameters)
        return learned, [metrics], stepped
