"""DQN's gradient step against NumPy: the pure function in float64, and the whole agent on a recorded stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy_reference import NumpyAdam, NumpyMLP, clipped
from small_runs import CPU, DISCRETE, VECTOR, ScriptedEnvs, dqn_config, make_agent, network_of, optimizer, run_config

from rltrain.agents.dqn import DQN, Losses
from rltrain.config.schema import AnyNetworkConfig, CNNConfig, DQNConfig, NetworkConfig
from rltrain.engine.algorithm import Build, Learned, State
from rltrain.experience import Batch, WeightedBatch
from rltrain.maths.optimizers import eager_gradient, functional_gradient
from rltrain.seeding import make_generator
from rltrain.types import ObservationSpec, Transition

NETWORK = NetworkConfig("mlp", (5, 4), "tanh", 1.0)
MLP = NumpyMLP(3, 5, 4, 3)
SIZE = 16
Arrays = tuple[np.ndarray, ...]


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def tau_log_policy(q_values: np.ndarray, tau: float) -> np.ndarray:
    """Vieillard et al. 2020, appendix B.1: tau ln pi = q - v - tau ln sum exp((q - v) / tau), v the largest q."""
    advantage = q_values - q_values.max(1, keepdims=True)
    return advantage - tau * np.log(np.exp(advantage / tau).sum(1, keepdims=True))


def loss_and_gradient(
    config: DQNConfig, params: np.ndarray, target_params: np.ndarray, batch: Arrays
) -> tuple[float, float, np.ndarray]:
    """Mnih et al. 2015, algorithm 1, written out: mean loss, mean Q(s, a), and the gradient with y held fixed."""
    obs, action, reward, next_obs, discount = batch
    rows = np.arange(len(action))
    q_values = MLP.forward(params, obs)
    target_next = MLP.forward(target_params, next_obs)
    chooser = MLP.forward(params, next_obs) if config.double else target_next
    y = reward + discount * target_next[rows, chooser.argmax(1)]
    if config.munchausen is not None:
        tau = config.munchausen_temperature
        bonus = tau_log_policy(MLP.forward(target_params, obs), tau)[rows, action]
        tau_log_pi = tau_log_policy(target_next, tau)
        value = (np.exp(tau_log_pi / tau) * (target_next - tau_log_pi)).sum(1)
        y = reward + config.munchausen * np.clip(bonus, config.munchausen_clip, 0.0) + discount * value
    y = np.clip(y, config.v_min, config.v_max)
    error = q_values[rows, action] - y
    if config.loss == "mse":
        loss, slope = error**2, 2.0 * error
    else:
        loss = np.where(np.abs(error) < 1.0, 0.5 * error**2, np.abs(error) - 0.5)
        slope = np.clip(error, -1.0, 1.0)
    output_gradient = np.zeros_like(q_values)
    output_gradient[rows, action] = slope / len(action)
    return loss.mean(), q_values[rows, action].mean(), MLP.gradient(params, obs, output_gradient)


def step_by_hand(
    config: DQNConfig, adam: NumpyAdam, params: np.ndarray, target_params: np.ndarray, batch: Arrays
) -> tuple[np.ndarray, dict[str, float]]:
    loss, q_value, grad = loss_and_gradient(config, params, target_params, batch)
    norm = float(np.sqrt((grad**2).sum()))
    if config.max_grad_value is not None:
        grad = np.clip(grad, -config.max_grad_value, config.max_grad_value)
    params = adam.step(params, clipped(grad, config.max_grad_norm))
    return params, {"train/td_loss": loss, "train/q_value": q_value, "train/grad_norm": norm}


def random_batch(generator: np.random.Generator, gamma: float, n_step: int) -> Arrays:
    """Rewards large enough for both branches of huber; full and partial windows, ended and not."""
    lengths = generator.integers(1, n_step + 1, SIZE)
    discount = gamma**lengths * generator.integers(0, 2, SIZE)
    obs, next_obs = generator.normal(size=(2, SIZE, 3))
    return obs, generator.integers(0, 3, SIZE), 2.0 * generator.normal(size=SIZE), next_obs, discount


CONFIGS = {
    "plain": dqn_config(double=False, loss="mse", max_grad_norm=None),
    "double": dqn_config(double=True, loss="mse", max_grad_norm=None),
    "huber": dqn_config(double=False, loss="huber", max_grad_norm=None),
    "double huber, norm clipped": dqn_config(max_grad_norm=0.1),
    "values clipped": dqn_config(max_grad_norm=None, max_grad_value=0.02),
    "both clipped": dqn_config(max_grad_norm=0.05, max_grad_value=0.02),
    "targets bounded": dqn_config(double=False, v_min=-0.5, v_max=0.3),
    "targets bounded above": dqn_config(v_max=0.3),
    "targets bounded below, munchausen": dqn_config(double=False, munchausen=0.9, v_min=-0.5),
    "n-step": dqn_config(n_step=3, gamma=0.7),
    "munchausen": dqn_config(double=False, munchausen=0.9, munchausen_clip=-0.1),
    "munchausen, warm": dqn_config(double=False, munchausen=0.5, munchausen_temperature=0.7, munchausen_clip=-0.8),
}


def maths(config: DQNConfig, network: AnyNetworkConfig, observation: ObservationSpec, seed: int = 0) -> DQN:
    return DQN(Build(run_config(config, network=network, seed=seed), observation, DISCRETE, CPU))


def learn(dqn: DQN, state: State, batch: Batch) -> Learned:
    return dqn.learn(state, batch, {name: torch.tensor(value) for name, value in dqn.knobs.items()}, eager_gradient)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", list(CONFIGS))
def test_gradient_steps_equal_those_by_hand(name: str) -> None:
    config, generator = CONFIGS[name], np.random.default_rng(0)
    dqn = maths(config, NETWORK, VECTOR)
    initial = dqn.networks["q_network"].params
    target_params = initial + 0.3 * torch.randn(MLP.num_parameters)
    state = State({"q_network": initial, "target_network": target_params.clone()}, dqn.init_optimizer())
    params, adam = initial.numpy().copy(), NumpyAdam(config.optimizer.lr)
    for _ in range(5):
        batch = random_batch(generator, config.gamma, config.n_step)
        state, metrics, _ = learn(dqn, state, Batch(*map(torch.from_numpy, batch)))
        params, expected = step_by_hand(config, adam, params, target_params.numpy(), batch)
        np.testing.assert_allclose(state.networks["q_network"].numpy(), params, rtol=1e-10, atol=1e-13)
        assert {tag: value.item() for tag, value in metrics.items()} == pytest.approx(expected, rel=1e-9)
        assert torch.equal(state.networks["target_network"], target_params)


def test_the_gradient_by_hand_equals_finite_differences_with_the_target_held_fixed() -> None:
    config, generator = dqn_config(), np.random.default_rng(1)
    params, target_params = generator.normal(size=(2, MLP.num_parameters))
    batch = random_batch(generator, 0.9, 1)
    obs, action, reward, next_obs, discount = batch
    rows = np.arange(SIZE)
    best = MLP.forward(params, next_obs).argmax(1)
    y = reward + discount * MLP.forward(target_params, next_obs)[rows, best]

    def loss(theta: np.ndarray) -> float:
        error = np.abs(MLP.forward(theta, obs)[rows, action] - y)
        return float(np.where(error < 1.0, 0.5 * error**2, error - 0.5).mean())

    step = 1e-6 * np.eye(MLP.num_parameters)
    differences = np.array([(loss(params + e) - loss(params - e)) / 2e-6 for e in step])
    np.testing.assert_allclose(loss_and_gradient(config, params, target_params, batch)[2], differences, atol=1e-8)


def windows(transitions: list[Transition], n: int, gamma: float) -> list[tuple[Any, ...]]:
    """The n-step transitions of one environment, in the order in which they are complete, by definition."""
    ends = [bool(t.terminated[0] or t.truncated[0]) for t in transitions]
    found = []
    for now, last in enumerate(transitions):
        first = max([now - n + 1, 0, *(k + 1 for k in range(now) if ends[k])])
        for start in range(first, now + 1):
            length = now - start + 1
            if length == n or ends[now]:
                reward = sum(gamma**k * t.reward[0] for k, t in enumerate(transitions[start : now + 1]))
                discount = 0.0 if last.terminated[0] else gamma**length
                first_step = transitions[start]
                found.append((first_step.obs[0], first_step.action[0], reward, last.next_obs[0], discount))
    return found


@pytest.mark.parametrize(("n_step", "anneal_lr"), [(1, False), (3, False), (1, True)])
def test_the_agents_first_gradient_steps_equal_those_by_hand(
    n_step: int, anneal_lr: bool, device: torch.device
) -> None:
    """Everything between the environment and the weights: windows, ring, draws, discount, target, optimiser."""
    config = dqn_config(
        n_step=n_step, gamma=0.8, learning_starts=30, optimizer=optimizer(lr=0.01, eps=1e-2), anneal_lr=anneal_lr
    )
    agent = make_agent(run_config(config, network=NETWORK, seed=3, total_steps=40), device=device)
    envs, transitions = ScriptedEnvs(1, seed=1), []

    def flat(prefix: str) -> np.ndarray:
        weights = network_of(agent)
        return np.concatenate(
            [t.cpu().double().numpy().ravel() for name, t in weights.items() if name.startswith(prefix)]
        )

    params, adam = flat("q_network."), NumpyAdam(0.01, 1e-2)
    draws = make_generator(3, "replay").random((2, config.batch_size))
    for step in range(1, 33):
        transition, episodes = envs.step(agent.act(envs.obs), agent.active)
        transitions.append(transition)
        agent.observe(transition, episodes)
        target_params = flat("target_network.")
        metrics = agent.update()
        if step <= 30:
            assert metrics == {}
            continue
        stored = windows(transitions, n_step, config.gamma)
        assert len(stored) <= config.buffer_size
        batch = tuple(
            np.array(column, np.float64 if k != 1 else np.int64)
            for k, column in enumerate(zip(*(stored[int(u * len(stored))] for u in draws[step - 31]), strict=True))
        )
        adam.lr = 0.01 * (1 - step / 40) if anneal_lr else 0.01
        params, expected = step_by_hand(config, adam, params, target_params, batch)
        np.testing.assert_allclose(flat("q_network."), params, rtol=1e-4, atol=1e-6)
        assert {tag: value.item() for tag, value in metrics.items()} == pytest.approx(expected, rel=1e-4)


def test_bytes_are_learnt_from_as_their_share_of_255(float64: None) -> None:
    """In the value of the taken action, in the choice of the next one and in the target."""
    config = dqn_config(gamma=0.9)
    layers = CNNConfig("cnn", (3,), (2,), (1,), (4,), False, "auto", "tanh", 1.0)
    generator = torch.Generator().manual_seed(0)
    obs, next_obs = torch.randint(0, 256, (2, SIZE, 4, 4, 2), generator=generator, dtype=torch.uint8)
    found = []
    for dtype in ("uint8", "float32"):
        dqn = maths(config, layers, ObservationSpec("box", (4, 4, 2), dtype), seed=1)
        params = dqn.networks["q_network"].params
        images = [obs, next_obs] if dtype == "uint8" else [image.double() / 255.0 for image in (obs, next_obs)]
        batch = Batch(
            images[0], torch.arange(SIZE) % 3, torch.linspace(-1.0, 1.0, SIZE), images[1], torch.full((SIZE,), 0.9)
        )
        state = State({"q_network": params, "target_network": 2.0 * params}, dqn.init_optimizer())
        found.append(learn(dqn, state, batch))
    own = [learned.state.networks["q_network"] for learned in found]
    torch.testing.assert_close(own[0], own[1], rtol=1e-12, atol=1e-14)
    assert found[0][1]["train/td_loss"].item() == pytest.approx(found[1][1]["train/td_loss"].item(), rel=1e-12)


@pytest.mark.parametrize("gradient", [eager_gradient, functional_gradient])
@pytest.mark.parametrize(
    ("field", "change", "found"),
    [
        ("loss", lambda x: x.unsqueeze(-1), r"got loss \(4, 1\), q_value \(4,\), error \(4,\)"),
        ("loss", lambda x: x.mean(), r"got loss \(\), q_value \(4,\)"),
        ("error", lambda x: x.unsqueeze(-1), r"error \(4, 1\)"),
    ],
)
def test_losses_that_are_not_one_number_of_each_sample_are_refused(
    field: str, change: Any, found: str, gradient: Any
) -> None:
    """A plug-in's: the weights [B] of prioritized replay times [B, 1] are [B, B], of which a mean was taken."""

    class Careless(DQN):
        def losses(self, *arguments: Any) -> Losses:
            losses = super().losses(*arguments)
            return losses._replace(**{field: change(getattr(losses, field))})

    def learn(kind: type[DQN]) -> Learned:
        algorithm = kind(Build(run_config(dqn_config(), network=NETWORK), VECTOR, DISCRETE, CPU))
        params = algorithm.networks["q_network"].params
        state = State({"q_network": params, "target_network": params.clone()}, algorithm.init_optimizer())
        obs, ones = torch.ones(4, 3), torch.ones(4)
        batch = WeightedBatch(obs, torch.zeros(4, dtype=torch.int64), ones, obs, ones, ones)
        return algorithm.learn(state, batch, {"lr": torch.tensor(1e-3)}, gradient)

    assert learn(DQN).feedback["error"].shape == (4,)
    with pytest.raises(ValueError, match=rf"need the shape of the batch \(4,\), .*{found}"):
        learn(Careless)
