"""One REINFORCE update against NumPy: loops over episodes and steps, no padding, no mask."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy_reference import NumpyAdam, NumpyMLP, clipped
from small_runs import (
    BOX,
    CPU,
    DISCRETE,
    VECTOR,
    ScriptedEnvs,
    make_agent,
    network_of,
    optimizer,
    reinforce_config,
    run_config,
)

from rltrain.agents.reinforce import Reinforce
from rltrain.config.schema import NetworkConfig, ReinforceConfig, ValueConfig
from rltrain.engine.algorithm import Build, State
from rltrain.experience.episodes import EpisodeBatch
from rltrain.maths.optimizers import eager_gradient
from rltrain.types import ActionSpec

NETWORK = NetworkConfig("mlp", (5, 4), "tanh", 1.0)
VALUE_MLP = NumpyMLP(3, 6, 1)


def kind_or_text(value: ActionSpec | str) -> str:
    return value if isinstance(value, str) else value.kind


@dataclass
class PlayedEpisode:
    """T steps."""

    obs: np.ndarray  # [T, 3]
    action: np.ndarray  # [T] or [T, A]
    reward: np.ndarray  # [T]
    final_obs: np.ndarray  # [3]
    truncated: bool


def policy_mlp(action: ActionSpec) -> NumpyMLP:
    return NumpyMLP(3, 5, 4, action.n if action.kind == "discrete" else 2 * action.shape[0])


def log_prob_and_entropy(output: np.ndarray, action: np.ndarray) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Of one step: log pi(a|s), the entropy, and their gradients with respect to the head's numbers."""
    if action.ndim == 0:
        p = np.exp(output - output.max())
        p /= p.sum()
        entropy = -(p * np.log(p)).sum()
        return np.log(p[action]), entropy, np.eye(len(p))[action] - p, -p * (np.log(p) + entropy)
    mean, log_std = np.split(output, 2)
    z = (action - mean) / np.exp(log_std)
    log_prob = (-0.5 * z**2 - log_std - 0.5 * np.log(2.0 * np.pi)).sum()
    entropy = (log_std + 0.5 * np.log(2.0 * np.pi * np.e)).sum()
    gradient = np.concatenate([z / np.exp(log_std), z**2 - 1.0])
    return log_prob, entropy, gradient, np.concatenate([np.zeros(2), np.ones(2)])


def returns_by_hand(config: ReinforceConfig, value_params: np.ndarray, episode: PlayedEpisode) -> np.ndarray:
    following = 0.0
    if config.baseline == "value" and episode.truncated:
        following = VALUE_MLP.forward(value_params, episode.final_obs[None])[0, 0]
    returns = np.zeros(len(episode.reward))
    for t in reversed(range(len(returns))):
        following = episode.reward[t] + config.gamma * following
        returns[t] = following
    return returns


def normalized(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / x.std(ddof=1) if len(x) > 1 else x


def advantages_by_hand(
    config: ReinforceConfig, value_params: np.ndarray, episodes: list[PlayedEpisode], returns: list[np.ndarray]
) -> list[np.ndarray]:
    ends = np.cumsum([len(g) for g in returns])[:-1]
    advantages = returns
    if config.baseline == "value":
        advantages = [g - VALUE_MLP.forward(value_params, e.obs)[:, 0] for g, e in zip(returns, episodes, strict=True)]
    if config.baseline == "mean":
        advantages = [g - np.concatenate(returns).mean() for g in returns]
    if config.normalize_returns == "episode":
        return [normalized(a) for a in advantages]
    if config.normalize_returns == "batch":
        return np.split(normalized(np.concatenate(advantages)), ends)
    return advantages


def update_by_hand(
    config: ReinforceConfig,
    mlp: NumpyMLP,
    adams: tuple[NumpyAdam, NumpyAdam],
    params: np.ndarray,
    value_params: np.ndarray,
    episodes: list[PlayedEpisode],
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    returns = [returns_by_hand(config, value_params, episode) for episode in episodes]
    steps = sum(map(len, returns))
    weight = 1.0 / steps if config.loss_reduction == "mean" else 1.0 / len(episodes)
    grad, policy_loss, entropy_sum = np.zeros(mlp.num_parameters), 0.0, 0.0
    advantages = advantages_by_hand(config, value_params, episodes, returns)
    for episode, advantage in zip(episodes, advantages, strict=True):
        for t in range(len(advantage)):
            obs = episode.obs[t : t + 1]
            output = mlp.forward(params, obs)[0]
            log_prob, entropy, d_log_prob, d_entropy = log_prob_and_entropy(output, episode.action[t])
            policy_loss -= weight * log_prob * advantage[t]
            entropy_sum += entropy
            slope = -weight * (advantage[t] * d_log_prob + config.entropy_coef * d_entropy)
            grad += mlp.gradient(params, obs, slope[None])
    metrics = {
        "train/policy_loss": policy_loss, "train/entropy": entropy_sum / steps,
        "train/grad_norm": float(np.sqrt((grad**2).sum())),
    }  # fmt: skip
    params = adams[0].step(params, clipped(grad, config.max_grad_norm))
    if config.baseline == "value":
        obs, target = np.concatenate([e.obs for e in episodes]), np.concatenate(returns)
        for _ in range(config.value.steps):
            error = VALUE_MLP.forward(value_params, obs)[:, 0] - target
            metrics["train/value_loss"] = (error**2).mean()
            slope = (2.0 * error / steps)[:, None]
            value_params = adams[1].step(value_params, VALUE_MLP.gradient(value_params, obs, slope))
    return params, value_params, metrics


def random_episodes(generator: np.random.Generator, action: ActionSpec) -> list[PlayedEpisode]:
    """One of a single step, both kinds of end, rewards whose returns differ between episodes."""
    episodes = []
    for length, truncated in [(5, True), (1, False), (8, False), (1, True), (3, True)]:
        actions = generator.integers(0, 3, length) if action.kind == "discrete" else generator.normal(size=(length, 2))
        obs, reward = generator.normal(size=(length, 3)), 1.0 + 2.0 * generator.normal(size=length)
        episodes.append(PlayedEpisode(obs, actions, reward, generator.normal(size=3), truncated))
    return episodes


def padded(episodes: list[PlayedEpisode]) -> EpisodeBatch:
    """As the update takes them, with something in the padding that must not matter."""
    steps = 8

    def column(name: str, filler: float) -> torch.Tensor:
        rows = [getattr(episode, name) for episode in episodes]
        out = np.full((len(rows), steps, *rows[0].shape[1:]), filler, rows[0].dtype)
        for k, row in enumerate(rows):
            out[k, : len(row)] = row
        return torch.from_numpy(out)

    length = np.array([len(episode.reward) for episode in episodes])[:, None]
    mask, last = np.arange(steps) < length, np.arange(steps) == length - 1
    return EpisodeBatch(
        column("obs", 3.0), column("action", 1), column("reward", 0.0), torch.from_numpy(mask.astype(np.float64)),
        torch.from_numpy(last.astype(np.float64)), torch.from_numpy(np.stack([e.final_obs for e in episodes])),
        torch.tensor([float(e.truncated) for e in episodes]),
    )  # fmt: skip


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


CASES = [
    *itertools.product(["none", "mean", "value"], ["none", "episode", "batch"], ["mean", "sum"], [DISCRETE]),
    ("none", "none", "mean", BOX), ("value", "batch", "mean", BOX), ("mean", "episode", "sum", BOX),
]  # fmt: skip


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("baseline", "normalize", "reduction", "action"), CASES, ids=kind_or_text)
def test_updates_equal_those_by_hand(baseline: str, normalize: str, reduction: str, action: ActionSpec) -> None:
    config = reinforce_config(
        baseline=baseline, normalize_returns=normalize, loss_reduction=reduction, gamma=0.8, entropy_coef=0.1,
        max_grad_norm=0.5, value=ValueConfig(0.02, 3, (6,)), optimizer=optimizer(eps=1e-3),
    )  # fmt: skip
    algorithm = Reinforce(Build(run_config(config, network=NETWORK), VECTOR, action, CPU))
    state = State({name: network.params for name, network in algorithm.networks.items()}, algorithm.init_optimizer())
    knobs = {name: torch.tensor(number) for name, number in algorithm.knobs.items()}
    params, value_params = (state.networks[name].numpy().copy() for name in ("policy", "value"))
    adams = NumpyAdam(config.optimizer.lr, 1e-3), NumpyAdam(0.02, 1e-3)
    generator = np.random.default_rng(0)
    for _ in range(2):
        episodes = random_episodes(generator, action)
        state, metrics, _ = algorithm.learn(state, padded(episodes), knobs, eager_gradient)
        params, value_params, expected = update_by_hand(
            config, policy_mlp(action), adams, params, value_params, episodes
        )
        # The deviation's own 1e-8 is not in the formula.
        np.testing.assert_allclose(state.networks["policy"].numpy(), params, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(state.networks["value"].numpy(), value_params, rtol=1e-9, atol=1e-12)
        assert {tag: value.item() for tag, value in metrics.items()} == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("action", [DISCRETE, BOX], ids=kind_or_text)
def test_the_gradients_by_hand_equal_finite_differences(action: ActionSpec) -> None:
    generator = np.random.default_rng(1)
    output = generator.normal(size=3 if action.kind == "discrete" else 4)
    taken = np.array(2) if action.kind == "discrete" else generator.normal(size=2)
    _, _, d_log_prob, d_entropy = log_prob_and_entropy(output, taken)
    for k, e in enumerate(1e-6 * np.eye(len(output))):
        above, below = log_prob_and_entropy(output + e, taken), log_prob_and_entropy(output - e, taken)
        assert d_log_prob[k] == pytest.approx((above[0] - below[0]) / 2e-6, abs=1e-8)
        assert d_entropy[k] == pytest.approx((above[1] - below[1]) / 2e-6, abs=1e-8)


@pytest.mark.parametrize("num_envs", [1, 2])
@pytest.mark.parametrize("action", [DISCRETE, BOX], ids=kind_or_text)
def test_the_agents_first_update_equals_the_one_by_hand(
    num_envs: int, action: ActionSpec, device: torch.device
) -> None:
    """Everything between the environments and the weights: which steps make an episode, its end, the optimiser."""
    config = reinforce_config(gamma=0.8, optimizer=optimizer(lr=0.01, eps=1e-2), value=ValueConfig(0.02, 2, (6,)))
    agent = make_agent(run_config(config, num_envs=num_envs, network=NETWORK, seed=3), action=action, device=device)
    envs = ScriptedEnvs(num_envs, seed=2)

    def flat(prefix: str) -> np.ndarray:
        weights = network_of(agent)
        return np.concatenate(
            [t.cpu().double().numpy().ravel() for name, t in weights.items() if name.startswith(prefix)]
        )

    params, value_params = flat("policy."), flat("value.")
    running: list[list[tuple[np.ndarray, np.ndarray, float]]] = [[] for _ in range(num_envs)]
    episodes: list[PlayedEpisode] = []
    metrics: dict[str, torch.Tensor] = {}
    while not metrics:
        active = agent.active.copy()
        transition, finished = envs.step(agent.act(envs.obs), active)
        for env in np.flatnonzero(active):
            running[env].append((transition.obs[env], transition.action[env], float(transition.reward[env])))
            if transition.terminated[env] or transition.truncated[env]:
                obs, actions, rewards = (np.array(column) for column in zip(*running[env], strict=True))
                final = transition.next_obs[env]
                episodes.append(PlayedEpisode(obs, actions, rewards, final, not transition.terminated[env]))
                running[env] = []
        agent.observe(transition, finished)
        metrics = agent.update()
    assert len(episodes) == config.episodes_per_update
    assert not any(running)
    params, value_params, expected = update_by_hand(
        config, policy_mlp(action), (NumpyAdam(0.01, 1e-2), NumpyAdam(0.02, 1e-2)), params, value_params, episodes
    )
    np.testing.assert_allclose(flat("policy."), params, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(flat("value."), value_params, rtol=1e-4, atol=1e-6)
    assert {tag: value.item() for tag, value in metrics.items()} == pytest.approx(expected, rel=1e-4)
