"""PPO and A2C as the loop drives them, against an update that is written out plainly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from plain_rollouts import (
    Plain,
    advantages,
    assert_continues_bit_for_bit,
    assert_trains_and_is_finite,
    assert_updates_equal,
)
from small_runs import (
    BOX,
    CPU,
    DISCRETE,
    IMAGES,
    STATES,
    VECTOR,
    ScriptedEnvs,
    drive,
    env_config,
    make_agent,
    network_of,
    optimizer,
    ppo_config,
    run_config,
)
from torch import Tensor

from rltrain.agents import AgentContext
from rltrain.agents import make_agent as build_agent
from rltrain.config.schema import CriticConfig, PPOConfig, RunConfig
from rltrain.engine.rollouts import RolloutAgent
from rltrain.engine.turns import parts_of
from rltrain.types import ActionSpec, ObservationSpec, Transition

A2C = {
    "name": "a2c", "rollout_steps": 5, "epochs": 1, "minibatches": 1, "gae_lambda": 1.0, "normalize_advantage": False,
    "anneal_lr": False,
}  # fmt: skip


def small_agent(
    action: ActionSpec = DISCRETE,
    observation: ObservationSpec = VECTOR,
    num_envs: int = 2,
    device: torch.device = CPU,
    **algo: Any,
) -> RolloutAgent:
    agent = make_agent(run_config(ppo_config(**algo), num_envs=num_envs), observation, action, device)
    assert isinstance(agent, RolloutAgent)
    return agent


class PlainPPO(Plain):
    """PPO, or A2C, without a ratio."""

    def __init__(self, agent: RolloutAgent, config: RunConfig, action: ActionSpec) -> None:
        super().__init__(agent, config)
        self.action = action

    def head(self, network: str, obs: Tensor) -> Tensor:
        first, bias, last, last_bias = (w for name, w in self.weights.items() if name.startswith(f"{network}."))
        return torch.tanh(obs @ first.T + bias) @ last.T + last_bias

    def distribution(self, obs: Tensor) -> torch.distributions.Distribution:
        output = self.head("policy", obs)
        if self.action.kind == "discrete":
            return torch.distributions.Categorical(logits=output)
        mean, log_std = output.chunk(2, -1)
        normal = torch.distributions.Normal(mean, log_std.clamp(-5, 2).exp())
        return torch.distributions.Independent(normal, 1)

    def columns(self) -> dict[str, Tensor]:
        assert isinstance(self.algo, PPOConfig)
        obs, action = (torch.from_numpy(self.of_steps(name)) for name in ("obs", "action"))
        values = [self.head("value", torch.from_numpy(self.of_steps(o))).squeeze(-1) for o in ("obs", "next_obs")]
        ends = (self.of_steps(name) for name in ("terminated", "truncated"))
        arguments = (self.of_steps("reward"), *(value.numpy() for value in values), *ends)
        advantage = torch.from_numpy(advantages(*arguments, self.algo.gamma, self.algo.gae_lambda)).float()
        log_prob = self.distribution(obs).log_prob(action)
        columns = {"advantage": advantage, "value": values[0], "returns": advantage + values[0], "log_prob": log_prob}
        return {name: column.flatten() for name, column in columns.items()}

    def loss(self, obs: Tensor, action: Tensor, columns: Mapping[str, Tensor]) -> Tensor:
        algo, distribution, advantage = self.algo, self.distribution(obs), columns["advantage"]
        assert isinstance(algo, PPOConfig)
        if algo.normalize_advantage:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        log_prob, value = distribution.log_prob(action), self.head("value", obs).squeeze(-1)
        if algo.name == "a2c":
            policy_loss = -(log_prob * advantage).mean()
        else:
            ratio = (log_prob - columns["log_prob"]).exp()
            clipped = ratio.clamp(1 - algo.clip, 1 + algo.clip)
            policy_loss = -torch.min(ratio * advantage, clipped * advantage).mean()
        value_loss = (value - columns["returns"]).square()
        if algo.value.clip is not None:
            near = columns["value"] + (value - columns["value"]).clamp(-algo.value.clip, algo.value.clip)
            value_loss = torch.max(value_loss, (near - columns["returns"]).square())
        entropy = distribution.entropy().mean()
        return policy_loss + algo.value.coef * value_loss.mean() - algo.entropy_coef * entropy


VARIANTS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "larger steps, which are clipped": {"optimizer": optimizer(lr=2e-2), "clip": 0.05, "anneal_lr": False},
    "an entropy bonus": {"entropy_coef": 0.5, "minibatches": 4, "max_grad_norm": None},
    "values clipped, advantages as they are": {
        "value": CriticConfig((8,), 1.0, 0.01), "normalize_advantage": False, "optimizer": optimizer(lr=1e-2),
    },
    "a2c": A2C,
}  # fmt: skip


@pytest.mark.parametrize("action", [DISCRETE, BOX], ids=["discrete", "box"])
@pytest.mark.parametrize("name", VARIANTS)
def test_updates_are_those_of_a_plain_implementation(name: str, action: ActionSpec) -> None:
    config = run_config(ppo_config(**VARIANTS[name]), num_envs=3, total_steps=100)
    agent = make_agent(config, VECTOR, action)
    assert isinstance(agent, RolloutAgent)
    assert_updates_equal(agent, PlainPPO(agent, config, action))


def test_an_update_comes_after_each_rollout_and_makes_its_epochs() -> None:
    agent, envs = small_agent(rollout_steps=6, epochs=3, minibatches=4), ScriptedEnvs(2)
    updated = [bool(metrics) for metrics in drive(agent, envs, 20)]
    assert [step for step, found in enumerate(updated, 1) if found] == [6, 12, 18]
    assert agent.gradient_steps == 3 * 3 * 4


def test_the_first_gradient_step_is_made_at_a_ratio_of_one() -> None:
    agent = small_agent(epochs=1, minibatches=1, optimizer=optimizer(lr=0.1))
    found = [metrics for metrics in drive(agent, ScriptedEnvs(2), 40) if metrics]
    for metrics in found:
        assert metrics["train/approx_kl"].item() == pytest.approx(0.0, abs=1e-6)
        assert metrics["train/clip_fraction"].item() == 0.0
    again = small_agent(epochs=2, minibatches=1, optimizer=optimizer(lr=0.1))
    (metrics,) = (metrics for metrics in drive(again, ScriptedEnvs(2), 8) if metrics)
    assert metrics["train/approx_kl"].item() > 1e-3
    assert metrics["train/clip_fraction"].item() > 0.1


def test_each_epoch_takes_every_step_once_in_another_order() -> None:
    agent = small_agent(rollout_steps=8)
    rows = agent._rollout.rows(np.random.default_rng(0).random((1, 3 * 16))).reshape(3, 16)
    assert [sorted(epoch) for epoch in rows.tolist()] == [list(range(16))] * 3
    assert len({tuple(epoch) for epoch in rows.tolist()}) == 3


@pytest.mark.parametrize("limit", [1e-9, 1e9])
def test_no_epoch_follows_one_that_moved_the_policy_too_far(limit: float) -> None:
    agent = small_agent(target_kl=limit, epochs=4, optimizer=optimizer(lr=0.1))
    list(drive(agent, ScriptedEnvs(2), 8))
    assert agent.gradient_steps == (2 if limit < 1 else 8)


def test_each_member_stops_at_its_own_limit_with_the_metrics_of_its_own_epochs() -> None:
    """The member with the larger learning rate stops after its first epoch, as it would alone."""
    configs = [
        run_config(
            ppo_config(target_kl=0.01, epochs=4, optimizer=optimizer(lr=lr), anneal_lr=False), num_envs=2, seed=seed
        )
        for seed, lr in enumerate((0.3, 1e-4))
    ]
    together = build_agent(AgentContext(configs[0], VECTOR, DISCRETE, CPU, population=tuple(configs)))
    envs = [ScriptedEnvs(2, seed=1), ScriptedEnvs(2, seed=2)]
    alone = [make_agent(config) for config in configs]
    for _ in range(8):
        action = together.act(np.concatenate([env.obs for env in envs]))
        steps = []
        for member, env in enumerate(envs):
            assert np.array_equal(alone[member].act(env.obs), action[2 * member : 2 * member + 2])
            steps.append(env.step(action[2 * member : 2 * member + 2], np.ones(2, bool))[0])
            alone[member].observe(steps[-1], [])
        columns = (np.concatenate(parts) for parts in zip(*(vars_of(step) for step in steps), strict=True))
        together.observe(Transition(*columns), [])
        metrics = together.update()
        expected = [agent.update() for agent in alone]
    assert [agent.gradient_steps for agent in alone] == [2, 8]
    for member, agent in enumerate(alone):
        assert together.state_dict(member)["state"] == agent.state_dict()["state"]
        torch.testing.assert_close(
            together.state_dict(member)["network"], agent.state_dict()["network"], rtol=1e-3, atol=1e-5
        )
        for tag, value in expected[member].items():
            torch.testing.assert_close(metrics[tag][member], value, rtol=1e-3, atol=1e-5, msg=tag)


def vars_of(step: Transition) -> list[np.ndarray]:
    return [getattr(step, name) for name in Transition.__dataclass_fields__]


def test_the_learning_rate_falls_to_nothing() -> None:
    config = run_config(ppo_config(rollout_steps=10, optimizer=optimizer(lr=1e-2)), num_envs=2, total_steps=100)
    agent, rates = make_agent(config), []
    for metrics in drive(agent, ScriptedEnvs(2), 50):
        rates.append(agent.scalars()["train/learning_rate"])
        if metrics:
            used = agent._knobs["lr"].item()  # type: ignore[attr-defined]
            assert used == pytest.approx(1e-2 * (1 - (len(rates) - 10) * 2 / 100), rel=1e-5)
            assert rates[-1] == pytest.approx(used, rel=1e-5), "what is logged is what was used"
            saved = agent.state_dict()
            again = make_agent(config)
            again.load_state_dict(saved)
            assert again.scalars() == agent.scalars()
    assert rates[9::10] == pytest.approx([1e-2, 8e-3, 6e-3, 4e-3, 2e-3])
    steady = make_agent(replace(config, algo=replace(config.algo, anneal_lr=False)))  # type: ignore[call-arg]
    list(drive(steady, ScriptedEnvs(2), 30))
    assert steady.scalars()["train/learning_rate"] == pytest.approx(1e-2)


@pytest.mark.parametrize("observation", [VECTOR, STATES, IMAGES], ids=["vector", "states", "images"])
@pytest.mark.parametrize("action", [DISCRETE, BOX], ids=["discrete", "box"])
def test_every_space_trains_and_is_finite(action: ActionSpec, observation: ObservationSpec) -> None:
    assert_trains_and_is_finite(small_agent(action, observation), observation)


def test_a_minibatch_of_one_step_is_finite() -> None:
    agent = small_agent(rollout_steps=2, minibatches=2, num_envs=1)
    list(drive(agent, ScriptedEnvs(1), 2))
    assert all(torch.isfinite(tensor).all() for tensor in network_of(agent).values())


@pytest.mark.parametrize("stop", [3, 8, 13])
def test_it_continues_bit_for_bit_in_the_middle_of_a_rollout(stop: int) -> None:
    continued = make_agent(run_config(ppo_config(target_kl=1e-3), num_envs=2, seed=5))
    assert_continues_bit_for_bit(small_agent(target_kl=1e-3), continued, stop)


def test_an_episode_that_begins_anew_counts_as_cut() -> None:
    """After a resume that could not continue it: its advantages do not run on into the next one."""
    agent, envs = small_agent(), ScriptedEnvs(2, end=0.0)
    agent.abandon_episodes(np.array([True, True]))  # before the first step there is nothing to cut
    list(drive(agent, envs, 3))
    agent.abandon_episodes(np.array([False, True]))
    ended, terminated = (agent.state_dict()["replay"][f"rollout.{name}"] for name in ("ended", "terminated"))
    assert ended.tolist() == [[False, False], [False, False], [False, True]]
    assert not terminated.any()


def test_sampled_actions_are_kept_as_they_are_and_bounds_come_later() -> None:
    """The ratio is of the density of the action that was drawn; that of a clipped one is not the policy's."""
    config = run_config(ppo_config(), num_envs=4, env=env_config("Pendulum-v1"))
    agent = make_agent(config, VECTOR, ActionSpec("box", (1,), low=-np.ones(1), high=np.ones(1)))
    envs = ScriptedEnvs(4)
    list(drive(agent, envs, 7))
    assert agent.state_dict()["replay"]["rollout.action"].abs().max() > 1.0


@pytest.mark.parametrize("limit", [None, 0.01])
def test_members_that_learn_in_parts_equal_those_that_learn_all_at_once(
    limit: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four members, two at a time; the one whose limit ends its epochs early, and one that retires, among them."""
    configs = [
        run_config(
            ppo_config(target_kl=limit, epochs=3, optimizer=optimizer(lr=lr), gamma=0.8 + seed / 20),
            num_envs=2,
            seed=seed,
        )
        for seed, lr in enumerate((0.1, 1e-4, 1e-3, 0.1))
    ]
    context = AgentContext(configs[0], VECTOR, DISCRETE, CPU, population=tuple(configs))
    at_once = build_agent(context)
    monkeypatch.setattr("rltrain.engine.rollouts._MOST_TOGETHER", 2)
    monkeypatch.setattr("rltrain.engine.rollouts._LEAST_TOGETHER", 2)
    in_parts = build_agent(context)
    assert isinstance(in_parts, RolloutAgent) and in_parts._turns.parts == [slice(0, 2), slice(2, 4)]
    envs = ScriptedEnvs(8)
    for step in range(24):
        if step == 10:
            for agent in (at_once, in_parts):
                agent.retire(2)
        action = at_once.act(envs.obs)
        assert np.array_equal(action, in_parts.act(envs.obs))
        transition, episodes = envs.step(action, at_once.active)
        found, expected = ((agent.observe(transition, episodes), agent.update())[1] for agent in (in_parts, at_once))
        assert found.keys() == expected.keys()
        running = [0, 1, 3] if step > 10 else [0, 1, 2, 3]
        for tag, value in expected.items():
            torch.testing.assert_close(found[tag][running], value[running], rtol=1e-3, atol=1e-5, msg=tag)
    for member in range(4):
        assert in_parts.state_dict(member)["state"] == at_once.state_dict(member)["state"]
        for section in ("network", "optimizer"):
            torch.testing.assert_close(
                in_parts.state_dict(member)[section], at_once.state_dict(member)[section], rtol=1e-3, atol=1e-5
            )


def test_parts_are_of_one_size_on_a_cpu_and_all_members_on_a_gpu() -> None:
    sizes = {m: {part.stop - part.start for part in parts_of(m, 8, 4, CPU)} for m in (1, 3, 8, 10, 13, 30, 32, 256)}
    assert sizes == {1: {1}, 3: {3}, 8: {8}, 10: {5}, 13: {13}, 30: {6}, 32: {8}, 256: {8}}
    assert parts_of(12, 8, 4, CPU) == [slice(0, 6), slice(6, 12)]
    assert parts_of(32, 8, 4, torch.device("cuda")) == [slice(0, 32)]
