"""What DQN keeps on its device, and how the procedures of `dqn_program` are run there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from rltrain.agents.agent import AgentContext, SteppedByAgent
from rltrain.agents.dqn_program import Drawn, Lanes, Learning, Seen, Stepping, check_in_torch, make_learn, make_step
from rltrain.agents.dqn_update import METRICS, DQNState, Hyperparameters, make_phase, make_update
from rltrain.agents.members import MemberNetworks
from rltrain.compiling import bound, note_compiled
from rltrain.config.schema import DQNConfig
from rltrain.exchange import Exchange
from rltrain.optimizers import functional_gradient
from rltrain.replay import UniformReplay
from rltrain.replay.n_step import NStepWindow
from rltrain.types import BlockSeen, Episode, LanesNow


class Learner:
    """Calls of K gradient steps each, which follow each other without waiting for the device."""

    def __init__(
        self,
        context: AgentContext,
        config: DQNConfig,
        q_network: MemberNetworks,
        state: DQNState,
        hyperparameters: Hyperparameters,
        replay: UniformReplay,
        steps: int,
        most_calls: int,
    ) -> None:
        """`steps` is K; `most_calls` C are prepared together."""
        self._members, self._steps, self._replay = q_network.members, steps, replay
        axis = () if self._members == 1 else (self._members,)
        self._draws = Exchange(
            {
                "uniform": ((most_calls, steps, *axis, config.batch_size), torch.float64),
                "call": ((1,), torch.int64),
            },
            context.device,
        )
        self._metrics = Exchange({"metrics": ((most_calls, len(METRICS), *axis), torch.float32)}, context.device)
        draws, metrics = self._draws.on_device, self._metrics.on_device["metrics"]
        memory = Learning(
            state,
            replay.arrays,
            replay.written,
            hyperparameters,
            draws["uniform"],
            draws["call"],
            metrics,
        )
        functional = make_update(config, q_network.apply, functional_gradient)
        if self._members > 1:
            functional = eager = torch.vmap(functional)
        else:
            eager = make_update(config, q_network.apply)
        self._learn = bound(
            make_learn(make_phase(functional), replay.capacity),
            make_learn(make_phase(eager), replay.capacity),
            (memory,),
            compile=context.compile_update,
            cuda_graphs=context.cuda_graphs,
            done=partial(note_compiled, context.configs[0], self._members, context.cuda_graphs),
        )

    def prepare(self, uniform: np.ndarray) -> None:
        """Takes draws from [0, 1), [M, calls * K * B], for the next calls."""
        host = self._draws.host
        into = host["uniform"]
        calls = uniform.shape[1] // (self._steps * into.shape[-1])
        of_calls = uniform.reshape(self._members, calls, self._steps, -1)
        into[:calls] = of_calls[0] if self._members == 1 else of_calls.transpose(1, 2, 0, 3)
        host["call"][:] = 0
        self._draws.send()
        self._replay.send_counts()

    def learn(self) -> None:
        """The next call."""
        self._learn()

    def metrics(self, calls: int) -> dict[str, Tensor]:
        """Their means over the calls since `prepare`, each [] or [M], on the device."""
        found = self._metrics.on_device["metrics"]
        means = found[0].clone() if calls == 1 else found[:calls].mean(0)
        return dict(zip(METRICS, means.unbind(), strict=True))

    def fetch(self, calls: int) -> np.ndarray:
        """[calls, METRICS, M] or [calls, METRICS], of the calls since `prepare`; waits for them."""
        return self._metrics.fetch()["metrics"][:calls]


class Stepper:
    """Vector steps of environments whose twin is computed on the device too, many before the host looks.

    Attributes:
        depth: how many, at most.
    """

    def __init__(
        self,
        context: AgentContext,
        q_network: MemberNetworks,
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
                "running": ((q_network.members,), torch.bool),
            },
            context.device,
        )
        self._drawn = Exchange(
            {
                "explore": ((depth, lanes), torch.bool),
                "random_action": ((depth, lanes), torch.int64),
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
        on_device = self._lanes.on_device
        memory = Stepping(
            q_network.params,
            replay.arrays,
            replay.written,
            Lanes(*(on_device[name] for name in Lanes._fields)),
            window.on_device(),
            Drawn(**self._drawn.on_device),
            on_device["running"],
            on_device["step"],
            Seen(**self._seen.on_device),
        )
        limit, first_action = envs.max_episode_steps, envs.first_action
        step = make_step(q_network.apply, envs.twin, q_network.members, replay.capacity, limit, first_action)
        self._step = bound(step, step, (memory,), compile=context.compile_update, cuda_graphs=context.cuda_graphs)

    def prepare(self, explore: np.ndarray, random_action: np.ndarray, running: np.ndarray) -> None:
        """For the next steps: [steps, M * N] each, and which members [M] move."""
        lanes, drawn = self._lanes.host, self._drawn.host
        now = self._envs.now()
        for name, array in now._asdict().items():
            lanes[name][:] = array
        drawn["starts"][:], lanes["begun"][:] = self._envs.next_starts(self.depth)
        lanes["step"][:] = 0
        lanes["running"][:] = running
        drawn["explore"][: len(explore)] = explore
        drawn["random_action"][: len(explore)] = random_action
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
