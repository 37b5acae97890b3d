"""Learning from rollouts of fixed length as a textbook would have it, with loops over time, autograd and torch's
optimizers; and what every algorithm that does so is asked."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from small_runs import ScriptedEnvs, assert_same_state, drive, network_of
from torch import Tensor

from rltrain.config.schema import PPOConfig, PQNConfig, RunConfig
from rltrain.engine.protocol import Agent
from rltrain.seeding import make_generator
from rltrain.types import ObservationSpec, Transition


def advantages(
    reward: np.ndarray, value: np.ndarray, next_value: np.ndarray, terminated: np.ndarray, cut: np.ndarray,
    gamma: float, lam: float,
) -> np.ndarray:  # fmt: skip
    """Schulman et al. 2016, equation 16: from each step on the sum over the steps of its episode. All [T, N]."""
    found = np.zeros(reward.shape)
    for start, env in np.ndindex(*reward.shape):
        weight = 1.0
        for t in range(start, len(reward)):
            bootstrap = 0.0 if terminated[t, env] else next_value[t, env]
            found[start, env] += weight * (reward[t, env] + gamma * bootstrap - value[t, env])
            weight *= gamma * lam
            if terminated[t, env] or cut[t, env]:
                break
    return found


def lambda_returns(
    reward: np.ndarray, next_value: np.ndarray, terminated: np.ndarray, cut: np.ndarray, gamma: float, lam: float
) -> np.ndarray:
    """Of each step by itself the mean of its n-step returns, weighted by (1 - lambda) lambda^(n-1). All [T, N]."""
    found = np.zeros(reward.shape)
    for start, env in np.ndindex(*reward.shape):
        so_far, discount, weight = 0.0, 1.0, 1.0
        for t in range(start, len(reward)):
            so_far += discount * reward[t, env]
            discount *= gamma
            n_step = so_far + (0.0 if terminated[t, env] else discount * next_value[t, env])
            if terminated[t, env] or cut[t, env] or t == len(reward) - 1:
                found[start, env] += weight * n_step
                break
            found[start, env] += weight * (1 - lam) * n_step
            weight *= lam
    return found


class Plain:
    """Updates of the weights of `agent` from the `steps` of a rollout; subclasses say what a loss is."""

    def __init__(self, agent: Agent, config: RunConfig) -> None:
        assert isinstance(config.algo, PPOConfig | PQNConfig)
        self.algo, self.config = config.algo, config
        self.weights = {name: w.requires_grad_() for name, w in network_of(agent).items()}
        kind, settings = {"adam": torch.optim.Adam, "radam": torch.optim.RAdam}, config.algo.optimizer
        self.optimizer = kind[settings.name](self.weights.values(), lr=settings.lr, eps=settings.eps)
        self.order = make_generator(config.seed, "minibatches")
        self.steps: list[Transition] = []
        self.updates = 0

    def columns(self) -> dict[str, Tensor]:
        """Numbers of each step, computed before the first gradient step: each [T * N]."""
        raise NotImplementedError

    def loss(self, obs: Tensor, action: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        """Of a minibatch."""
        raise NotImplementedError

    def of_steps(self, name: str) -> np.ndarray:
        """[T, N, ...]."""
        return np.stack([getattr(step, name) for step in self.steps])

    def update(self) -> None:
        algo, size = self.algo, len(self.steps) * self.config.num_envs
        obs, action = (torch.from_numpy(self.of_steps(name)).flatten(0, 1) for name in ("obs", "action"))
        with torch.no_grad():
            columns = self.columns()
        if algo.anneal_lr:
            begun = self.updates * size
            self.optimizer.param_groups[0]["lr"] = algo.optimizer.lr * (1 - begun / self.config.total_steps)
        for _ in range(algo.epochs):
            order = torch.from_numpy(self.order.random(size).argsort())
            for rows in order.chunk(algo.minibatches):
                self.optimizer.zero_grad()
                self.loss(obs[rows], action[rows], {name: x[rows] for name, x in columns.items()}).backward()
                if algo.max_grad_norm is not None:
                    torch.nn.utils.clip_grad_norm_(self.weights.values(), algo.max_grad_norm)
                self.optimizer.step()
        self.steps, self.updates = [], self.updates + 1


def assert_updates_equal(agent: Agent, plain: Plain) -> None:
    """Three of them."""
    envs = ScriptedEnvs(plain.config.num_envs)
    while plain.updates < 3:
        transition, episodes = envs.step(agent.act(envs.obs), agent.active)
        plain.steps.append(transition)
        agent.observe(transition, episodes)
        if agent.update():
            plain.update()
            for weight, (key, expected) in zip(network_of(agent).values(), plain.weights.items(), strict=True):
                torch.testing.assert_close(
                    weight, expected.detach(), rtol=1e-3, atol=2e-5, msg=f"{key} {plain.updates}"
                )


def assert_trains_and_is_finite(agent: Agent, observation: ObservationSpec) -> None:
    """In two rollouts of 8 steps of two environments."""
    before = network_of(agent)
    found = [metrics for metrics in drive(agent, ScriptedEnvs(2, observation), 16) if metrics]
    assert len(found) == 2
    assert all(math.isfinite(value.item()) for metrics in found for value in metrics.values())
    assert all(not torch.equal(before[name], tensor) for name, tensor in network_of(agent).items())


def assert_continues_bit_for_bit(whole: Agent, continued: Agent, stop: int) -> None:
    """`continued`, of another seed, from the state of `whole` after `stop` steps of two environments."""
    envs = ScriptedEnvs(2)
    list(drive(whole, envs, stop))
    state = {section: dict(part) for section, part in whole.state_dict().items()}
    state["network"] = network_of(whole)
    state["optimizer"] = {name: tensor.clone() for name, tensor in state["optimizer"].items()}
    continued.load_state_dict(state)
    assert_same_state(whole, continued)
    for _ in range(20):
        action = whole.act(envs.obs)
        assert np.array_equal(action, continued.act(envs.obs))
        transition, episodes = envs.step(action, whole.active)
        for agent in (whole, continued):
            agent.observe(transition, episodes)
            agent.update()
    assert_same_state(whole, continued)
