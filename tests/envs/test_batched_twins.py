"""Each batched twin of Gymnasium's own environments against them, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from rltrain.envs.batched import BATCHED_ENVS
from rltrain.envs.batched.block import start_states

GYMNASIUM_S = [id for id in BATCHED_ENVS if not id.startswith("MinAtar")]
CASES: list[tuple[str, dict[str, Any]]] = [
    *((id, {}) for id in GYMNASIUM_S),
    ("CartPole-v1", {"sutton_barto_reward": True}),
    ("MountainCar-v0", {"goal_velocity": 0.02}),
    ("Pendulum-v1", {"g": 3.7}),
]


def act(id: str, obs: np.ndarray, step: int, lane: int, rng: np.random.Generator) -> Any:
    """Lanes 0, 4, ... act at random; the others well, so that there are long episodes, high speeds and goals."""
    if id == "Pendulum-v1":
        return rng.uniform(-3, 3, 1).astype(np.float32)
    if lane % 4 == 0:
        return int(rng.integers(0, 3 if id in ("Acrobot-v1", "MountainCar-v0") else 2))
    if id.startswith("CartPole"):
        return int(obs @ [0.1, 0.5, 10.0, 2.0] > 0)
    speed = obs[1] if id == "MountainCar-v0" else obs[5] if lane % 2 else -obs[4]  # swings up
    return 2 if speed > 0 else 0


def state_of(env: gymnasium.Env[Any, Any]) -> np.ndarray:
    return np.array(env.unwrapped.state, np.float64)  # type: ignore[attr-defined]


def episodes(id: str, kwargs: dict[str, Any], count: int) -> Iterator[tuple[int, list[Any]]]:
    """Seed and (obs, action, reward, terminated, state) of whole episodes of Gymnasium's; the first action is None."""
    env = gymnasium.make(id, max_episode_steps=300, disable_env_checker=True, **kwargs)
    for lane in range(count):
        rng, seed = np.random.default_rng(lane), 7919 * lane
        obs, _ = env.reset(seed=seed)
        rows: list[Any] = [(obs, None, 0.0, False, state_of(env))]
        ended = False
        while not ended:
            action = act(id, obs, len(rows), lane, rng)
            obs, reward, terminated, truncated, _ = env.step(action)
            rows.append((obs, action, reward, terminated, state_of(env)))
            ended = terminated or truncated
        yield seed, rows


@pytest.mark.parametrize(("id", "kwargs"), CASES)
@pytest.mark.filterwarnings("ignore:.*out of date")
def test_a_twin_does_what_gymnasium_s_own_does_bit_for_bit(id: str, kwargs: dict[str, Any]) -> None:
    twin = BATCHED_ENVS[id](**kwargs)
    played = list(episodes(id, kwargs, 24))
    starts = np.stack([twin.start_state(np.random.Generator(np.random.PCG64(seed))) for seed, _ in played], -1)
    first = twin.observe(np, starts).astype(np.float32)
    for lane, (_, rows) in enumerate(played):
        assert np.array_equal(first[:, lane], rows[0][0])
        assert np.array_equal(starts[:, lane], rows[0][4])
    state, ends = starts.astype(np.float64), 0
    for t in range(1, max(len(rows) for _, rows in played)):
        lanes = [lane for lane, (_, rows) in enumerate(played) if t < len(rows)]
        now = [played[lane][1][t] for lane in lanes]
        action = np.stack([row[1] for row in now], -1)
        before, after = state[:, lanes], state.copy()
        after[:, lanes], reward, terminated = twin.step(np, before, action)
        assert np.array_equal(before, state[:, lanes])  # nothing was written into
        state = after
        assert np.array_equal(state[:, lanes].T, [row[4] for row in now])
        assert np.array_equal(twin.observe(np, state)[:, lanes].astype(np.float32).T, [row[0] for row in now])
        assert np.array_equal(reward, [row[2] for row in now])
        assert np.array_equal(terminated, [row[3] for row in now])
        ends += terminated.sum()
    assert ends > 3 or id == "Pendulum-v1"
    assert t >= 150


def test_links_of_any_legal_speed_are_turned_as_often_as_gymnasium_does() -> None:
    """More than four times round in a step."""
    rng, turned = np.random.default_rng(0), np.pi * np.array([1.0, 1.0, 4.0, 9.0])
    env = gymnasium.make("Acrobot-v1", disable_env_checker=True).unwrapped
    env.reset(seed=0)
    states = rng.uniform(-turned, turned, (2_000, 4))
    states[1_000:, 2:] = np.sign(states[1_000:, 2:]) * turned[2:]  # as fast as they get
    found, _, _ = BATCHED_ENVS["Acrobot-v1"]().step(np, states.T, np.full(2_000, 2))
    for state, ours in zip(states, found.T, strict=True):
        env.state = state  # type: ignore[attr-defined]
        env.step(2)
        assert np.array_equal(env.state, ours)  # type: ignore[attr-defined]


@pytest.mark.parametrize("id", GYMNASIUM_S)
@pytest.mark.filterwarnings("ignore:.*out of date")
def test_first_observations_are_gymnasium_s(id: str) -> None:
    twin, env = BATCHED_ENVS[id](), gymnasium.make(id, disable_env_checker=True)
    starts = np.stack([twin.start_state(np.random.Generator(np.random.PCG64(seed))) for seed in range(2_000)], -1)
    assert np.array_equal(np.moveaxis(start_states(twin, np.arange(2_000)), 0, -1), starts)
    expected = np.stack([env.reset(seed=seed)[0] for seed in range(2_000)])
    assert np.array_equal(twin.observe(np, starts).astype(np.float32).T, expected)


@pytest.mark.parametrize("id", GYMNASIUM_S)
def test_a_twin_runs_on_tensors_of_any_device(id: str, device: torch.device) -> None:
    twin = BATCHED_ENVS[id]()
    rng = np.random.default_rng(3)
    state = np.stack([twin.start_state(rng) for _ in range(50)], -1).astype(np.float64)
    for _ in range(30):
        if id == "Pendulum-v1":
            action = rng.uniform(-3, 3, (1, 50)).astype(np.float32)
        else:
            action = rng.integers(0, 2, 50)
        expected = twin.step(np, state, action)
        found = twin.step(torch, torch.from_numpy(state).to(device), torch.from_numpy(action).to(device))
        assert [x.device.type for x in found] == [device.type] * 3
        assert [x.dtype for x in found] == [torch.float64, torch.float64, torch.bool]
        assert np.allclose(found[0].cpu().numpy(), expected[0], rtol=1e-12, atol=1e-12)
        squares_torque = id == "Pendulum-v1"  # a float32, of which NumPy's twin has the bits of the C library's powf
        assert np.allclose(found[1].cpu().numpy(), expected[1], rtol=1e-12, atol=1e-9 if squares_torque else 1e-12)
        assert np.array_equal(found[2].cpu().numpy(), expected[2])
        observed = twin.observe(torch, found[0])
        assert np.allclose(observed.cpu().numpy(), twin.observe(np, expected[0]), rtol=1e-12, atol=1e-12)
        state = expected[0]


@pytest.mark.slow
@pytest.mark.parametrize("id", GYMNASIUM_S)
def test_a_twin_compiles_to_one_graph(id: str, device: torch.device) -> None:
    twin = BATCHED_ENVS[id]()
    rng = np.random.default_rng(3)
    state = np.stack([twin.start_state(rng) for _ in range(50)], -1).astype(np.float64)
    action = np.ones((1, 50), np.float32) if id == "Pendulum-v1" else rng.integers(0, 2, 50)
    compiled = torch.compile(lambda state, action: twin.step(torch, state, action), fullgraph=True)
    found = compiled(torch.from_numpy(state).to(device), torch.from_numpy(action).to(device))
    for a, b in zip(found, twin.step(np, state, action), strict=True):
        assert np.allclose(a.cpu().numpy(), b, rtol=1e-12, atol=1e-12)
