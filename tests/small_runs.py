"""Small configurations, agents, scripted steps for them, and what surrounds a trainer, for tests of what learns."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from rltrain.agents import Agent, AgentContext
from rltrain.agents import make_agent as build_agent
from rltrain.compute import ahead
from rltrain.config.schema import (
    AlgoConfig,
    CheckpointConfig,
    CriticConfig,
    DeviceConfig,
    DQNConfig,
    EnvConfig,
    EvalConfig,
    HardUpdateConfig,
    LinearConfig,
    NetworkConfig,
    OptimizerConfig,
    PPOConfig,
    PQNConfig,
    QLearningConfig,
    QNetworkConfig,
    ReinforceConfig,
    RunConfig,
    ValueConfig,
)
from rltrain.engine.protocol import StateDict
from rltrain.types import ActionSpec, Episode, ObservationSpec, Transition

CPU = torch.device("cpu")
VECTOR = ObservationSpec("box", (3,), "float32")
STATES = ObservationSpec("discrete", (), "int64", n=6)
IMAGES = ObservationSpec("box", (2, 2), "uint8")
DISCRETE = ActionSpec("discrete", (), n=3)
BOX = ActionSpec("box", (2,))


def optimizer(name: str = "adam", **changes: Any) -> OptimizerConfig:
    return replace(OptimizerConfig(name, 1e-3, 1e-8, 0.0, False), **changes)  # type: ignore[arg-type]


def dqn_config(**changes: Any) -> DQNConfig:
    config = DQNConfig(
        name="dqn", gamma=0.9, n_step=1, double=True, batch_size=8, buffer_size=50, learning_starts=10, train_period=1,
        gradient_steps=1, loss="huber", max_grad_norm=10.0, max_grad_value=None, optimizer=optimizer(),
        prioritized=None, anneal_lr=False, v_min=None, v_max=None, munchausen=None, munchausen_temperature=0.03,
        munchausen_clip=-1.0,
    )  # fmt: skip
    return replace(config, **changes)


def reinforce_config(**changes: Any) -> ReinforceConfig:
    config = ReinforceConfig(
        name="reinforce", gamma=0.9, episodes_per_update=4, baseline="value", normalize_returns="batch",
        anneal_lr=False, loss_reduction="mean", entropy_coef=0.01, max_grad_norm=1.0, value=ValueConfig(1e-2, 2, (8,)),
        optimizer=optimizer(),
    )  # fmt: skip
    return replace(config, **changes)


def ppo_config(**changes: Any) -> PPOConfig:
    config = PPOConfig(
        name="ppo", gamma=0.9, gae_lambda=0.8, rollout_steps=8, epochs=2, minibatches=2, clip=0.2,
        normalize_advantage=True, entropy_coef=0.01, target_kl=None, anneal_lr=True, max_grad_norm=0.5,
        value=CriticConfig((8,), 0.5, None), optimizer=optimizer(),
    )  # fmt: skip
    return replace(config, **changes)


def pqn_config(**changes: Any) -> PQNConfig:
    config = PQNConfig(
        name="pqn", gamma=0.9, q_lambda=0.7, rollout_steps=8, epochs=2, minibatches=2, anneal_lr=True,
        max_grad_norm=0.5, optimizer=optimizer("radam"),
    )  # fmt: skip
    return replace(config, **changes)


def q_learning_config(**changes: Any) -> QLearningConfig:
    return replace(QLearningConfig("q_learning", gamma=0.9, alpha=0.5, alpha_decay=0.0, initial_value=0.0), **changes)


def env_config(id: str, **kwargs: Any) -> EnvConfig:
    return EnvConfig(id, kwargs, None, None, "sync", None)


def run_config(algo: AlgoConfig, **changes: Any) -> RunConfig:
    dqn, table = isinstance(algo, QNetworkConfig), algo.name == "q_learning"
    explores = dqn or table or algo.name == "pqn"
    config = RunConfig(
        name=None, seed=0, total_steps=200, total_episodes=None, num_envs=1, log_period=50, stop_at_return=None,
        init_from=None, dry_run=False, eval=EvalConfig(None, 3), checkpoint=CheckpointConfig(None, 3, True), algo=algo,
        network=None if table else NetworkConfig("mlp", (8,), "tanh", 1.0),
        target_update=HardUpdateConfig("hard", 7, "env_steps") if dqn else None,
        exploration=LinearConfig("linear", 1.0, 0.1, 60) if explores else None,
        env=env_config("CartPole-v1"),
        device=DeviceConfig(name="cpu", index=0, threads=1, compile=False, cuda_graphs="auto", deterministic=False),
    )  # fmt: skip
    return replace(config, **changes)


def make_agent(
    config: RunConfig, observation: ObservationSpec = VECTOR, action: ActionSpec = DISCRETE, device: torch.device = CPU
) -> Agent:
    return build_agent(AgentContext(config, observation, action, device))


class ScriptedEnvs:
    """N environments that show random observations and pay random rewards; episodes end with probability `end`, half of
    them cut. What it does depends on its seed and on which environments step, not on the actions."""

    def __init__(self, num_envs: int, observation: ObservationSpec = VECTOR, seed: int = 0, end: float = 0.15) -> None:
        self.num_envs, self._spec, self._end = num_envs, observation, end
        self._generator = np.random.default_rng(seed)
        self._length = np.zeros(num_envs, np.int64)
        self._number = np.zeros(num_envs, np.int64)
        self.obs = self._draw()

    def _draw(self) -> np.ndarray:
        shape = (self.num_envs, *self._spec.shape)
        if self._spec.dtype == "float32":
            return self._generator.normal(size=shape).astype(np.float32)
        return self._generator.integers(0, self._spec.n or 256, shape).astype(self._spec.dtype)

    def step(self, action: np.ndarray, active: np.ndarray) -> tuple[Transition, list[Episode]]:
        next_obs, after_reset = self._draw(), self._draw()
        ended = active & (self._generator.random(self.num_envs) < self._end)
        cut = self._generator.random(self.num_envs) < 0.5
        reward = self._generator.normal(size=self.num_envs).astype(np.float32)
        self._length += active
        transition = Transition(self.obs, action, reward, next_obs, ended & ~cut, ended & cut, active)
        episodes = [Episode(int(i), int(self._number[i]), 0.0, int(self._length[i])) for i in np.flatnonzero(ended)]
        self._length[ended] = 0
        self._number += ended
        rows = ended.reshape(-1, *[1] * len(self._spec.shape))
        idle = ~active.reshape(rows.shape)
        self.obs = np.where(idle, self.obs, np.where(rows, after_reset, next_obs))
        return transition, episodes


def drive(agent: Agent, envs: ScriptedEnvs, vector_steps: int) -> Iterator[dict[str, Any]]:
    """Runs the loop's act, step, observe, update; yields the metrics of each vector step."""
    for _ in range(vector_steps):
        active = agent.active.copy()
        transition, episodes = envs.step(agent.act(envs.obs), active)
        agent.observe(transition, episodes)
        yield agent.update()


def network_of(agent: Agent) -> dict[str, torch.Tensor]:
    """A copy of all weights."""
    return {name: tensor.clone() for name, tensor in agent.state_dict()["network"].items()}


def assert_same_state(a: Agent, b: Agent) -> None:
    """Bit for bit."""
    first, second = a.state_dict(), b.state_dict()
    assert first["state"] == second["state"]
    for section in first.keys() - {"state", "rings"}:
        assert list(first[section]) == list(second[section])
        for name, tensor in first[section].items():
            assert torch.equal(tensor, second[section][name]), name


class Log:
    """Keeps the rows, without what the clock says."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self.rows.append((step, {tag: value for tag, value in scalars.items() if tag != "time/steps_per_second"}))

    def flush(self) -> None: ...

    def close(self, completed: bool | None = None) -> None: ...


class Keeper:
    """Keeps what was saved, as deep copies."""

    def __init__(self) -> None:
        self.saved: list[tuple[int, StateDict]] = []
        self.best: list[int] = []
        self.filmed: list[int] = []

    def save(self, step: int, state: StateDict) -> None:
        self.saved.append((step, copy.deepcopy(state)))

    def film(self, step: int, state: StateDict) -> None:
        self.filmed.append(step)

    def save_best(self, step: int, state: StateDict) -> None:
        self.best.append(step)

    def prune(self) -> None: ...

    @property
    def steps(self) -> list[int]:
        return [step for step, _ in self.saved]


class Stop:
    """Asked once per vector step: true from the look after `looks` on."""

    def __init__(self, looks: int | None = None) -> None:
        self.looks = looks

    def take_save_request(self) -> bool:
        return False

    @property
    def requested(self) -> bool:
        if self.looks is not None:
            self.looks -= 1
        return self.looks is not None and self.looks < 0


def count_loads(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Grows by one for each program that is compiled ahead or loaded."""
    loads: list[None] = []
    program = ahead.program

    def counted(*args: Any) -> Any:
        loads.append(None)
        return program(*args)

    monkeypatch.setattr(ahead, "program", counted)
    return loads


def make_steps(agent: Any, envs: Any, obs: np.ndarray) -> np.ndarray:
    """Some vector steps on the device, or one on the host, with the updates due; returns obs of the next."""
    if envs.stepped_by_agent:
        agent.iterate(envs, 8)
        return obs
    transition, next_obs, ended = envs.step(agent.act(obs), agent.active.copy())
    agent.observe(transition, ended)
    agent.update()
    return np.asarray(next_obs)
