"""REINFORCE as the loop drives it: whole episodes under one policy, what it samples, that it can be saved."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import (
    BOX,
    DISCRETE,
    IMAGES,
    STATES,
    VECTOR,
    ScriptedEnvs,
    assert_same_state,
    drive,
    env_config,
    make_agent,
    network_of,
    optimizer,
    reinforce_config,
    run_config,
)

from rltrain.engine.episodes import EpisodeAgent
from rltrain.jobs.build import build_envs
from rltrain.types import ActionSpec, ObservationSpec, Transition


def small_agent(
    action: ActionSpec = DISCRETE,
    observation: ObservationSpec = VECTOR,
    device: torch.device | None = None,
    num_envs: int = 1,
    seed: int = 0,
    **algo: Any,
) -> EpisodeAgent:
    config = run_config(reinforce_config(**algo), num_envs=num_envs, seed=seed)
    agent = make_agent(config, observation, action, device or torch.device("cpu"))
    assert isinstance(agent, EpisodeAgent)
    return agent


def one_step_episodes(num_envs: int, truncated: bool = False) -> Transition:
    obs = np.random.default_rng(0).normal(size=(num_envs, 3)).astype(np.float32)
    end = np.ones(num_envs, bool)
    action, reward = np.zeros(num_envs, np.int64), np.full(num_envs, 2.0, np.float32)
    return Transition(obs, action, reward, obs, end & (not truncated), end & truncated, end)


@pytest.mark.parametrize("num_envs", [1, 4])
def test_an_update_comes_after_exactly_its_episodes_all_begun_under_its_parameters(num_envs: int) -> None:
    agent, envs = small_agent(num_envs=num_envs, episodes_per_update=4), ScriptedEnvs(num_envs)
    finished, began_at = np.zeros(num_envs, int), np.zeros(num_envs, int)
    for _ in range(200):
        active = agent.active.copy()
        transition, episodes = envs.step(agent.act(envs.obs), active)
        agent.observe(transition, episodes)
        metrics = agent.update()
        for episode in episodes:
            finished[episode.env] += 1
            assert began_at[episode.env] == agent.gradient_steps - bool(metrics)
            began_at[episode.env] = agent.gradient_steps
        assert bool(metrics) == (finished == 4 // num_envs).all()
        if metrics:
            assert agent.active.all()
            finished[:] = 0
            began_at[:] = agent.gradient_steps
        assert np.array_equal(agent.active, finished < 4 // num_envs)
    assert agent.gradient_steps > 3


def test_both_learning_rates_fall_by_the_steps_before_the_episodes() -> None:
    config = run_config(reinforce_config(anneal_lr=True, optimizer=optimizer(lr=1e-2)), num_envs=2, total_steps=400)
    agent, envs = make_agent(config), ScriptedEnvs(2)
    assert isinstance(agent, EpisodeAgent)
    steps, begun, used = 0, 0, 0
    for _ in range(150):
        logged = agent.scalars()["train/learning_rate"]
        assert logged == pytest.approx(1e-2 * (1 - used / 400)), "what is logged is what was used"
        again = make_agent(config)
        again.load_state_dict(agent.state_dict())
        assert again.scalars()["train/learning_rate"] == logged
        active = agent.active.copy()
        agent.observe(*(seen for seen in envs.step(agent.act(envs.obs), active)))
        steps += int(active.sum())
        if agent.update():
            rates = [agent._knobs[name].item() for name in ("lr", "value_lr")]
            assert rates == pytest.approx([rate * (1 - begun / 400) for rate in (1e-2, 1e-2)], rel=1e-5)
            begun, used = steps, begun
    assert 100 < begun < 400


def test_short_episodes_are_not_favoured() -> None:
    """An action leads to an episode of 1 or of 20 steps. Under a policy that chooses evenly half of the episodes are
    long, however many environments there are; those that finish first would nearly all be short."""
    config = run_config(
        reinforce_config(episodes_per_update=8, max_grad_norm=1e-12),
        num_envs=8,
        env=env_config("probe_envs:LongShort-v0"),
    )
    envs = build_envs(config)
    agent = make_agent(config, envs.observation_spec, envs.action_spec)
    assert isinstance(agent, EpisodeAgent)
    agent.networks["policy"].params.zero_()
    obs, lengths = envs.reset(), []
    while len(lengths) < 400:
        transition, obs, episodes = envs.step(agent.act(obs), agent.active.copy())
        agent.observe(transition, episodes)
        lengths += [episode.length for episode in episodes]
        if agent.update():
            agent.networks["policy"].params.zero_()  # Adam makes a step of any gradient
    assert set(lengths) == {1, 20}
    assert abs(lengths.count(20) / 400 - 0.5) < 0.08  # three deviations


@pytest.mark.parametrize("normalize", ["none", "episode", "batch"])
@pytest.mark.parametrize("baseline", ["none", "mean", "value"])
def test_an_update_from_one_step_is_finite(normalize: str, baseline: str, device: torch.device) -> None:
    agent = small_agent(device=device, episodes_per_update=1, normalize_returns=normalize, baseline=baseline)
    before = network_of(agent)
    agent.observe(one_step_episodes(1), [])
    metrics = agent.update()
    assert all(np.isfinite(value.item()) for value in metrics.values())
    after = network_of(agent)
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    if baseline != "mean":  # a mean of one value leaves nothing
        assert metrics["train/policy_loss"].item() != 0.0
        assert any(not torch.equal(after[name], before[name]) for name in before if name.startswith("policy."))


@pytest.mark.parametrize("truncated", [False, True])
def test_only_a_cut_episode_is_continued_by_the_value_of_what_followed(truncated: bool) -> None:
    """The value network says 10 everywhere; one step of reward 2 at gamma 0.9 has a return of 2, or of 11 if cut."""
    agent = small_agent(episodes_per_update=4, num_envs=4, normalize_returns="none", baseline="value", gamma=0.9)
    agent.networks["value"].params.zero_()
    agent.networks["value"].params[-1] = 10.0
    agent.observe(one_step_episodes(4, truncated), [])
    log_prob = -np.log(3.0)
    agent.networks["policy"].params.zero_()
    metrics = agent.update()
    advantage = (11.0 if truncated else 2.0) - 10.0
    assert metrics["train/policy_loss"].item() == pytest.approx(-log_prob * advantage, rel=1e-5)


def test_sampled_actions_follow_the_policy_and_the_best_is_its_mode(device: torch.device) -> None:
    discrete = small_agent(num_envs=1000, episodes_per_update=1000, device=device)
    obs = np.tile(np.array([[0.3, -1.0, 0.5]], np.float32), (1000, 1))
    with torch.no_grad():
        logits = discrete.networks["policy"](torch.from_numpy(obs[:1]).to(device))[0].cpu().double().numpy()
    expected = 5000 * np.exp(logits) / np.exp(logits).sum()
    counts = sum(np.bincount(discrete.act(obs), minlength=3) for _ in range(5))
    assert ((counts - expected) ** 2 / expected).sum() < 13.8  # chi-square with 2 degrees of freedom, p = 0.001
    assert set(discrete.act_greedy(obs).tolist()) == {int(logits.argmax())}

    box = small_agent(BOX, num_envs=1000, episodes_per_update=1000, device=device)
    with torch.no_grad():
        mean, log_std = np.split(
            box.networks["policy"](torch.from_numpy(obs[:1]).to(device))[0].cpu().double().numpy(), 2
        )
    actions = np.concatenate([box.act(obs) for _ in range(5)])
    assert actions.shape == (5000, 2)
    assert actions.dtype == np.float32
    np.testing.assert_allclose(actions.mean(0), mean, atol=4.0 * np.exp(log_std).max() / np.sqrt(5000))
    np.testing.assert_allclose(actions.std(0), np.exp(log_std), rtol=4.0 / np.sqrt(2 * 5000))
    assert abs(np.corrcoef(actions.T)[0, 1]) < 4.0 / np.sqrt(5000)
    np.testing.assert_allclose(box.act_greedy(obs[:1])[0], mean, rtol=1e-5)


def test_actions_keep_their_own_shape() -> None:
    agent = small_agent(ActionSpec("box", (2, 2)), num_envs=3, episodes_per_update=3)
    obs = np.zeros((3, 3), np.float32)
    assert agent.act(obs).shape == agent.act_greedy(obs).shape == (3, 2, 2)
    list(drive(agent, ScriptedEnvs(3), 60))
    assert agent.gradient_steps > 0


def test_the_rollout_holds_the_agents_own_action_not_what_the_bounds_made_of_it() -> None:
    config = run_config(
        reinforce_config(episodes_per_update=4, baseline="none"), num_envs=4, env=env_config("probe_envs:Target-v0")
    )
    envs = build_envs(config)
    agent = make_agent(config, envs.observation_spec, envs.action_spec)
    envs.reset()
    action = np.array([[5.0, -7.0]] * 4, np.float32)  # the environment clips to [-1, 1]
    transition, _, episodes = envs.step(action)
    agent.observe(transition, episodes)
    assert agent.state_dict()["replay"]["rollout.action"][:, 0].tolist() == action.tolist()


def test_acting_greedily_draws_no_random_number() -> None:
    agent = small_agent()
    before = copy.deepcopy(agent.state_dict()["state"])
    agent.act_greedy(np.zeros((5, 3), np.float32))
    assert agent.state_dict()["state"] == before


@pytest.mark.parametrize(
    ("num_envs", "action", "observation", "stopped_at"),
    [
        pytest.param(1, DISCRETE, VECTOR, 0, marks=pytest.mark.slow),
        (1, BOX, IMAGES, 45),
        (4, DISCRETE, STATES, 12),
        pytest.param(4, BOX, VECTOR, 7, marks=pytest.mark.slow),
    ],
)
def test_an_agent_stopped_at_k_continues_bit_for_bit(
    num_envs: int, action: ActionSpec, observation: ObservationSpec, stopped_at: int, device: torch.device
) -> None:
    def make(seed: int) -> EpisodeAgent:
        return small_agent(action, observation, device, num_envs, seed)

    agent, envs = make(0), ScriptedEnvs(num_envs, observation)
    list(drive(agent, envs, stopped_at))
    state = copy.deepcopy(agent.state_dict())
    resumed, resumed_envs = make(9), copy.deepcopy(envs)
    resumed.load_state_dict(state)
    runs = [list(drive(a, e, 80)) for a, e in ((agent, envs), (resumed, resumed_envs))]
    first, second = ([{tag: value.item() for tag, value in step.items()} for step in run] for run in runs)
    assert first == second
    assert any(first)
    assert_same_state(agent, resumed)


def test_abandoned_episodes_are_played_again_whole() -> None:
    agent, envs = small_agent(episodes_per_update=1), ScriptedEnvs(1, end=0.0)
    list(drive(agent, envs, 5))
    agent.abandon_episodes(np.array([True]))
    agent.observe(one_step_episodes(1), [])
    assert agent.state_dict()["replay"]["rollout.length"].tolist() == [1]
    assert agent.update()


def test_policy_and_value_start_apart_and_the_same_on_every_device(device: torch.device) -> None:
    weights, on_cpu = network_of(small_agent(device=device)), network_of(small_agent())
    assert all(torch.equal(weights[name].cpu(), tensor) for name, tensor in on_cpu.items())
    assert not torch.equal(on_cpu["policy.layers.1.weight"], on_cpu["value.layers.1.weight"])
    other = network_of(small_agent(seed=1))
    assert not torch.equal(on_cpu["policy.layers.1.weight"], other["policy.layers.1.weight"])


def test_sizes_for_the_header() -> None:
    policy, value = 3 * 8 + 8 + 8 * 3 + 3, 3 * 8 + 8 + 8 + 1
    assert small_agent(baseline="value").num_parameters == {"policy": policy, "value": value}
    assert small_agent(baseline="none").num_parameters == {"policy": policy}
    assert small_agent().replay_bytes == 4 * 64 * (3 * 4 + 8 + 4)
