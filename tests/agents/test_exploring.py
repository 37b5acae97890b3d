"""Acting as in training, outside of it: the same choices as the agent's own, at the moment that is asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_runs import (
    CPU,
    DISCRETE,
    STATES,
    VECTOR,
    dqn_config,
    make_agent,
    network_of,
    ppo_config,
    q_learning_config,
    run_config,
)

from rltrain.agents import AgentContext, make_policy
from rltrain.agents.q_learning import GreedyTable
from rltrain.config.schema import ConstantConfig, NetworkConfig, PerEpisodeConfig, RunConfig
from rltrain.engine.protocol import Explorer, Policy
from rltrain.types import ObservationSpec

ROWS = 4000


def policy_of(config: RunConfig, observation: ObservationSpec = VECTOR) -> Explorer:
    policy = make_policy(AgentContext(config, observation, DISCRETE, CPU))
    assert isinstance(policy, Explorer)
    if isinstance(policy, GreedyTable):  # of equal values its training takes any
        policy.q_table[:] = np.random.default_rng(0).normal(size=policy.q_table.shape)
    return policy


def observations(observation: ObservationSpec = VECTOR) -> np.ndarray:
    generator = np.random.default_rng(0)
    if observation.kind == "discrete":
        return generator.integers(0, observation.n, ROWS)
    return generator.normal(size=(ROWS, *observation.shape)).astype(np.float32)


def share_of_best(policy: Explorer, exploring: Policy, observation: ObservationSpec = VECTOR) -> float:
    obs = observations(observation)
    return float((exploring.act_greedy(obs) == policy.act_greedy(obs)).mean())


@pytest.mark.parametrize("algo", [dqn_config(), q_learning_config()], ids=["dqn", "q_learning"])
@pytest.mark.parametrize(("env_step", "epsilon"), [(0, 1.0), (30, 0.55), (60, 0.1), (10_000, 0.1)])
def test_epsilon_is_that_of_the_moment(algo: object, env_step: int, epsilon: float) -> None:
    config = run_config(algo)  # type: ignore[arg-type]
    observation = STATES if algo == q_learning_config() else VECTOR
    policy = policy_of(config, observation)
    found = share_of_best(policy, policy.exploring(3, env_step, 0), observation)
    assert found == pytest.approx(1 - epsilon + epsilon / 3, abs=0.03)  # a random action may be the best of three


def test_epsilon_that_falls_with_episodes_is_that_of_their_number() -> None:
    policy = policy_of(run_config(dqn_config(), exploration=PerEpisodeConfig("per_episode", 1.0, 0.0, 0.5)))
    for episodes, epsilon in ((0, 1.0), (1, 0.5), (10**9, 0.0)):
        found = share_of_best(policy, policy.exploring(3, 0, episodes))
        assert found == pytest.approx(1 - epsilon + epsilon / 3, abs=0.03)


def test_random_actions_are_held() -> None:
    config = run_config(dqn_config(), exploration=ConstantConfig("constant", 1.0, duration=1.5))
    exploring = policy_of(config).exploring(0, 0, 0)
    actions = np.stack([exploring.act_greedy(observations()) for _ in range(20)])
    assert (actions[1:] == actions[:-1]).mean() > 0.6  # of three, a third by chance


def test_a_noisy_network_acts_under_noise_that_changes() -> None:
    network = NetworkConfig("mlp", (8,), "tanh", 1.0, noisy=True)
    policy = policy_of(run_config(dqn_config(), network=network, exploration=ConstantConfig("constant", 0.0)))
    exploring, obs = policy.exploring(0, 0, 0), observations()
    first, second, best = exploring.act_greedy(obs), exploring.act_greedy(obs), policy.act_greedy(obs)
    assert (first != second).any() and (first != best).any()


def test_a_policy_is_sampled() -> None:
    """Softmax probabilities, counted on one observation."""
    agent = make_agent(run_config(ppo_config()))
    policy = policy_of(run_config(ppo_config()))
    policy.load_network(network_of(agent))  # type: ignore[attr-defined]
    obs = np.repeat(np.array([[0.3, -1.0, 2.0]], np.float32), ROWS, 0)
    taken = policy.exploring(1, 0, 0).act_greedy(obs)
    logits = policy._acting.outputs(obs[:1])[0].numpy().astype(np.float64)  # type: ignore[attr-defined]
    probability = np.exp(logits) / np.exp(logits).sum()
    assert np.bincount(taken, minlength=3) / ROWS == pytest.approx(probability, abs=0.03)


@pytest.mark.parametrize("algo", [dqn_config(), ppo_config(), q_learning_config()], ids=["dqn", "ppo", "q_learning"])
def test_a_seed_repeats_and_another_does_not(algo: object) -> None:
    observation = STATES if algo == q_learning_config() else VECTOR
    policy = policy_of(replace(run_config(algo)), observation)  # type: ignore[arg-type]
    obs = observations(observation)
    first, again, other = (policy.exploring(seed, 0, 0).act_greedy(obs) for seed in (5, 5, 6))
    assert (first == again).all() and (first != other).any()
