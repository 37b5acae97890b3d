"""`env.vectorization=compiled`: one function for the whole iteration gives what its parts give."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import fields, replace
from itertools import product
from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from halves import often
from small_runs import (
    count_loads,
    dqn_config,
    env_config,
    optimizer,
    ppo_config,
    pqn_config,
    reinforce_config,
    run_config,
)

from rltrain.compute.choices import CompileChoice
from rltrain.compute.compiling import has_compiler
from rltrain.compute.staging import StagingBuffers
from rltrain.config.schema import (
    ConstantConfig,
    DQNConfig,
    HardUpdateConfig,
    IQNConfig,
    LinearConfig,
    NetworkConfig,
    PerEpisodeConfig,
    QNetworkConfig,
    ReinforceConfig,
    RunConfig,
    SoftUpdateConfig,
)
from rltrain.config.wrappers import (
    ClipObservationConfig,
    FrameStackConfig,
    NormalizeObservationConfig,
    NormalizeRewardConfig,
    RescaleObservationConfig,
    ScaleRewardConfig,
    TimeAwareConfig,
)
from rltrain.engine.episodes import EpisodeAgent
from rltrain.engine.off_policy import OffPolicyAgent
from rltrain.engine.protocol import Block
from rltrain.envs.batched import BATCHED_ENVS
from rltrain.envs.batched.cartpole import CartPole
from rltrain.envs.vector import VectorEnv
from rltrain.errors import CheckpointError, RequestError, RunFailed
from rltrain.jobs.build import build
from rltrain.types import Episode

Run = tuple[list[tuple[np.ndarray, dict[str, torch.Tensor]]], list[Episode], list[dict[str, Any]]]


def play(config: RunConfig, vectorization: str, members: int, steps: int, compile: bool = False,
         retire: tuple[int, int] = (-1, 0)) -> Run:  # fmt: skip
    """What `steps` vector steps give, the episodes that ended, and each member's state at the end; at step retire[0]
    member retire[1] has reached its end."""
    device = replace(config.device, compile=compile)
    config = replace(config, env=replace(config.env, vectorization=vectorization), device=device)
    gammas = (0.9, 0.8, 0.95)
    population = [replace(config, seed=m, algo=replace(config.algo, gamma=gammas[m])) for m in range(members)]
    with build(config, population=tuple(population) if members > 1 else ()) as parts:
        envs, agent = parts.envs, cast(OffPolicyAgent, parts.agent)
        obs, episodes, shown = envs.reset(), [], []
        for step in range(steps):
            if step == retire[0]:
                agent.retire(retire[1])
            if vectorization == "compiled":
                block = agent.iterate(envs, 1)
                assert block.steps == 1
                ended, obs = block.episodes, envs.now().obs
                metrics = {
                    tag: torch.from_numpy(value[0]) if members > 1 else torch.tensor(value[0])
                    for tag, value in block.metrics.items()
                }
            else:
                transition, after, ended = envs.step(agent.act(obs), agent.active)
                agent.observe(transition, ended)
                obs, metrics = after, agent.update()
            episodes += ended
            shown.append((obs.copy(), {tag: value.clone() for tag, value in metrics.items()}))
        return shown, episodes, [agent.state_dict(m) for m in range(members)]


def assert_same(a: Run, b: Run, running: slice = slice(None)) -> None:
    assert len(a[1]) > 2
    assert [(e.env, e.number, e.length) for e in a[1]] == [(e.env, e.number, e.length) for e in b[1]]
    assert [e.episode_return for e in a[1]] == pytest.approx([e.episode_return for e in b[1]])
    for step, ((obs, metrics), (other_obs, others)) in enumerate(zip(a[0], b[0], strict=True)):
        np.testing.assert_allclose(obs, other_obs, atol=1e-5, err_msg=str(step))
        assert metrics.keys() == others.keys(), step
        for tag in metrics:
            torch.testing.assert_close(
                metrics[tag].view(-1)[running], others[tag].view(-1)[running], rtol=1e-3, atol=1e-5
            )
    for state, other in zip(a[2], b[2], strict=True):
        assert state["state"] == other["state"]
        for section in ("network", "optimizer"):
            for name, tensor in state[section].items():
                torch.testing.assert_close(tensor, other[section][name], rtol=1e-3, atol=1e-4)
        for name, tensor in state["replay"].items():
            if name.startswith("replay."):
                torch.testing.assert_close(tensor, other["replay"][name], rtol=1e-4, atol=1e-5)


CARTPOLE = run_config(dqn_config(buffer_size=500), env=env_config("CartPole-v1"), num_envs=3)
WRAPPERS = (
    RescaleObservationConfig("rescale_observation"), ClipObservationConfig("clip_observation", -0.5, 0.5),
    TimeAwareConfig("time_aware"), NormalizeObservationConfig("normalize_observation"),
    NormalizeRewardConfig("normalize_reward"), ScaleRewardConfig("scale_reward", 0.3),
)  # fmt: skip
CASES = {
    "cartpole": CARTPOLE,
    "acrobot, cut, a ring that is full": run_config(
        dqn_config(buffer_size=100), env=replace(env_config("Acrobot-v1"), max_episode_steps=30), num_envs=4
    ),
    "mountain car, cut, mse, hard by episodes": run_config(
        dqn_config(loss="mse", double=False, optimizer=optimizer("rmsprop")), num_envs=2,
        env=replace(env_config("MountainCar-v0"), max_episode_steps=40),
        target_update=HardUpdateConfig("hard", 2, "episodes"),
    ),
    "several phases of several steps": replace(
        CARTPOLE, algo=dqn_config(train_period=1, gradient_steps=2), target_update=SoftUpdateConfig("soft", 0.1, 1,
                                                                                                  "gradient_steps")
    ),
    "held actions": replace(CARTPOLE, exploration=LinearConfig("linear", 1.0, 0.3, 60, 1.5)),
    "an update now and then": replace(CARTPOLE, algo=dqn_config(train_period=12, gradient_steps=4)),
    "returns of 3 steps, a ring that is full": replace(CARTPOLE, algo=dqn_config(n_step=3, buffer_size=100)),
    "returns of 5 steps, cut, epsilon by episodes, target by gradient steps": run_config(
        dqn_config(n_step=5, buffer_size=200), num_envs=4,
        env=replace(env_config("MountainCar-v0"), max_episode_steps=17),
        exploration=PerEpisodeConfig("per_episode", 1.0, 0.1, 0.9),
        target_update=HardUpdateConfig("hard", 6, "gradient_steps"),
    ),
    "whole episodes": run_config(
        reinforce_config(episodes_per_update=6, gamma=0.9), env=env_config("CartPole-v1"), num_envs=3
    ),
    "whole episodes, cut, box actions": run_config(
        reinforce_config(episodes_per_update=4, normalize_returns="episode"), num_envs=2,
        env=replace(env_config("Pendulum-v1"), max_episode_steps=9),
    ),
    "rollouts": run_config(ppo_config(), env=env_config("CartPole-v1"), num_envs=3),
    "rollouts, cut, box actions": run_config(
        ppo_config(rollout_steps=5, target_kl=1e-4, epochs=3, minibatches=1, normalize_advantage=False), num_envs=2,
        env=replace(env_config("Pendulum-v1"), max_episode_steps=9),
    ),
    "rollouts, epsilon by episodes": run_config(
        pqn_config(), env=env_config("CartPole-v1"), num_envs=3,
        exploration=PerEpisodeConfig("per_episode", 1.0, 0.1, 0.9),
    ),
    "rollouts, held random actions": run_config(
        pqn_config(rollout_steps=9), num_envs=2, env=replace(env_config("MountainCar-v0"), max_episode_steps=17),
        exploration=LinearConfig("linear", 1.0, 0.1, 100, 1.5),
    ),
    "wrapped, clipped rewards": run_config(
        dqn_config(n_step=3, buffer_size=500), num_envs=3,
        env=replace(env_config("MountainCar-v0"), max_episode_steps=30, wrappers=WRAPPERS, reward_clip=0.2),
    ),
    "wrapped whole episodes": run_config(
        reinforce_config(episodes_per_update=6), num_envs=3,
        env=replace(env_config("CartPole-v1"), wrappers=WRAPPERS[2:]),
    ),
    "falling learning rate": replace(CARTPOLE, algo=replace(CARTPOLE.algo, anneal_lr=True), total_steps=150),
    "target by environment steps": replace(CARTPOLE, target_update=SoftUpdateConfig("soft", 0.3, 7, "env_steps")),
    "implicit quantiles": replace(
        CARTPOLE, network=NetworkConfig("mlp", (8,), "tanh", 1.0),
        algo=IQNConfig(
            **{f.name: getattr(CARTPOLE.algo, f.name) for f in fields(QNetworkConfig)} | {"name": "iqn"},
            quantiles=4, target_quantiles=3, acting_quantiles=5, cosines=6,
        ),
    ),
    "noisy": replace(
        CARTPOLE, network=NetworkConfig("mlp", (8,), "tanh", 1.0, noisy=True),
        exploration=ConstantConfig("constant", 0.0),
    ),
}  # fmt: skip


# The fast tests take four cases, each in one of the two tests below, alone or with three members.
ALL = [(name, members) for name in CASES for members in (1, 3)]


@pytest.mark.parametrize(
    ("name", "members"), often(ALL, [("mountain car, cut, mse, hard by episodes", 3), ("whole episodes", 1)])
)
def test_it_computes_what_its_parts_compute(name: str, members: int) -> None:
    steps = 130
    assert_same(play(CASES[name], "batched", members, steps), play(CASES[name], "compiled", members, steps))


@pytest.mark.parametrize(
    ("name", "members"), often(ALL, [("several phases of several steps", 1), ("rollouts, held random actions", 3)])
)
def test_blocks_of_any_size_lead_to_the_same_bit_for_bit(name: str, members: int) -> None:
    """However often the host looks: a run that is stopped, or evaluates more often, computes the same."""
    assert_equal(in_blocks(CASES[name], members, [7, 64, 1, 28]), in_blocks(CASES[name], members, [1] * 100))


def assert_equal(found: Blocks, expected: Blocks) -> None:
    """Bit for bit."""
    assert found[0].keys() == expected[0].keys()
    for tag, values in found[0].items():
        assert np.array_equal(values, expected[0][tag])
    assert found[1] == expected[1]
    for state, other in zip(found[2], expected[2], strict=True):
        assert state["state"] == other["state"]
        for section in ("network", "optimizer", "replay"):
            for key, tensor in state[section].items():
                assert torch.equal(tensor, other[section][key]), key


Blocks = tuple[dict[str, np.ndarray], list[Episode], list[dict[str, Any]]]


def in_blocks(config: RunConfig, members: int, sizes: list[int], resume_after: int = -1) -> Blocks:
    """What blocks of at most these sizes give: the metrics of all updates, the episodes, each member's state. After so
    many of the sizes another agent goes on from the state of the first."""
    config = replace(config, env=replace(config.env, vectorization="compiled"))
    population = tuple(replace(config, seed=m) for m in range(members))
    blocks: list[Block] = []
    with ExitStack() as stack:

        def built() -> tuple[VectorEnv, OffPolicyAgent]:
            parts = build(config, population=population if members > 1 else ())
            made = stack.enter_context(parts)
            return made.envs, cast(OffPolicyAgent, made.agent)

        envs, agent = built()
        envs.reset()
        for number, size in enumerate(sizes):
            if number == resume_after:
                state = envs.state_dict(), [copy.deepcopy(agent.state_dict(m)) for m in range(members)]
                envs, agent = built()
                envs.load_state_dict(state[0])
                for member, of_member in enumerate(state[1]):
                    agent.load_state_dict(of_member, member)
            while size:
                blocks.append(agent.iterate(envs, size))
                size -= blocks[-1].steps
        learned = [block.metrics for block in blocks if block.metrics]
        metrics = {tag: np.concatenate([found[tag] for found in learned]) for tag in learned[0]}
        states = [copy.deepcopy(agent.state_dict(m)) for m in range(members)]
        return metrics, [e for block in blocks for e in block.episodes], states


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the host and the device share lies in two places, as on a GPU, and only transfers carry it."""
    monkeypatch.setattr(StagingBuffers, "is_shared", staticmethod(lambda device: False))


TRANSFERRED = (
    "cartpole", "returns of 3 steps, a ring that is full", "whole episodes", "wrapped, clipped rewards", "rollouts",
)  # fmt: skip


@pytest.mark.parametrize("members", often([1, 3], [3]))
@pytest.mark.parametrize(
    ("name", "resume_after"),
    often(
        product(TRANSFERRED, (1, 3)),
        [(TRANSFERRED[1], 3), (TRANSFERRED[4], 1)],
    ),
)
def test_transfers_carry_all_that_changes_also_after_a_resume(
    name: str, members: int, resume_after: int, request: pytest.FixtureRequest
) -> None:
    """When the next block makes no gradient step, and after many."""
    config = CASES[name]
    if isinstance(config.algo, DQNConfig):
        config = replace(config, algo=replace(config.algo, learning_starts=110))
    expected = in_blocks(config, members, [15, 15, 40, 30])
    request.getfixturevalue("apart")
    assert_equal(in_blocks(config, members, [15, 15, 40, 30], resume_after), expected)


@pytest.mark.parametrize("members", often([1, 3], [3]))
def test_transfers_carry_what_is_stepped_on_the_host(members: int, request: pytest.FixtureRequest) -> None:
    config = CASES["several phases of several steps"]
    expected = play(config, "batched", members, 60)
    request.getfixturevalue("apart")
    found = play(config, "batched", members, 60)
    for state, other in zip(found[2], expected[2], strict=True):
        for section in ("network", "optimizer", "replay"):
            for key, tensor in state[section].items():
                assert torch.equal(tensor, other[section][key]), key


@pytest.mark.parametrize("sizes", often([[7, 64, 1, 128], [1] * 200], [[7, 64, 1, 128]]))
def test_whole_episodes_take_as_many_environment_steps_as_a_block_says(sizes: list[int]) -> None:
    """Environments that have played their share idle, and members wait for each other."""
    config = replace(CASES["whole episodes"], env=replace(env_config("CartPole-v1"), vectorization="compiled"))
    with build(config, population=tuple(replace(config, seed=m) for m in range(3))) as parts:
        agent, envs = cast(EpisodeAgent, parts.agent), parts.envs
        envs.reset()
        played, ended, updates = np.zeros(3, int), np.zeros(3, int), 0
        for size in sizes:
            while size > 0:
                active = agent.active.copy()
                block = agent.iterate(envs, size)
                size -= block.steps
                assert np.array_equal(block.taken[0], active.reshape(3, 3).sum(1))
                assert (np.diff(block.taken, axis=0) <= 0).all()
                played += block.taken.sum(0)
                for episode in block.episodes:
                    ended[episode.env // 3] += episode.length
                if block.learned_at:
                    assert block.learned_at == [block.steps]
                    assert np.array_equal(played, ended)
                    updates += 1
        assert updates > 1


def test_a_member_that_has_ended_is_not_waited_for() -> None:
    config = CASES["whole episodes"]
    whole, ended = (play(config, "compiled", 3, 200, retire=(at, 1)) for at in (-1, 30))
    found = play(config, "batched", 3, 200, retire=(30, 1))
    assert_same(ended, found, slice(0, 1))
    assert ended[2][1]["state"]["gradient_steps"] < whole[2][1]["state"]["gradient_steps"]
    assert ended[2][0]["state"]["gradient_steps"] >= whole[2][0]["state"]["gradient_steps"]


@pytest.mark.slow
def test_a_member_that_has_ended_stays_as_it_is_and_the_others_go_on() -> None:
    stays = play(CARTPOLE, "compiled", 3, 60, retire=(60, 1))[2][1]
    ended = play(CARTPOLE, "compiled", 3, 130, retire=(60, 1))
    for name, tensor in ended[2][1]["network"].items():
        assert torch.equal(tensor, stays["network"][name])
    assert ended[2][1]["state"]["env_steps"] == stays["state"]["env_steps"] == 180
    assert {episode.env // 3 for episode in ended[1][-20:]} == {0, 2}
    whole = play(CARTPOLE, "compiled", 3, 130)
    for member in (0, 2):
        for name, tensor in whole[2][member]["network"].items():
            assert torch.equal(tensor, ended[2][member]["network"][name])


def test_running_episodes_are_taken_up_with_the_state_of_the_twin_itself() -> None:
    """A replay in NumPy leads to another state: torch's sine differs in the last bit."""
    config = replace(CARTPOLE, env=replace(CARTPOLE.env, vectorization="compiled"))
    with build(config) as parts, build(config) as other:
        parts.envs.reset()
        cast(OffPolicyAgent, parts.agent).iterate(parts.envs, 9)
        state = parts.envs.state_dict()
        state["twin_state"] += 1e-12
        obs, exact = other.envs.load_state_dict(state)
        assert exact and np.array_equal(obs, state["obs"])
        assert np.array_equal(other.envs.now().state, state["twin_state"].T)
        for wrong in ({"twin_state": state["twin_state"][:, :3]}, {"twin_state": None}):
            with pytest.raises(CheckpointError, match="no state of its batched twin"):
                other.envs.load_state_dict({**state, **wrong})


def test_a_block_ends_where_programs_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else how long blocks are, which is no part of the config, would decide from which step on a run is compiled."""
    choice = CompileChoice(True, 10 * CARTPOLE.num_envs)
    monkeypatch.setattr("rltrain.jobs.build.choose_compile", lambda *_: choice)
    monkeypatch.setattr("rltrain.jobs.build.has_compiler", lambda: True)
    monkeypatch.setattr("rltrain.jobs.build.BesideCompiler", lambda *_: Mock())
    monkeypatch.setattr("rltrain.compute.compiling.Bound.compile", lambda _: None)
    with build(replace(CARTPOLE, env=replace(CARTPOLE.env, vectorization="compiled"))) as parts:
        parts.envs.reset()
        agent = cast(OffPolicyAgent, parts.agent)
        assert [agent.iterate(parts.envs, most).steps for most in (7, 20, 20)] == [7, 3, 20]


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
@pytest.mark.parametrize(
    ("name", "members", "num_envs"),
    [
        ("several phases of several steps", 1, 3),
        ("several phases of several steps", 3, 3),
        ("noisy", 3, 3),
        ("whole episodes", 3, 16),  # with more than 8 environments Inductor splits loops
    ],
)
def test_as_a_program_it_computes_the_same(
    name: str, members: int, num_envs: int, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(CASES[name], num_envs=num_envs)
    if isinstance(config.algo, ReinforceConfig):
        config = replace(config, algo=replace(config.algo, episodes_per_update=num_envs))
    assert_same(play(config, "compiled", members, 60), play(config, "compiled", members, 60, compile=True))
    assert not [record for record in caplog.records if record.name.startswith("rltrain")], "it ran uncompiled"


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="no C++ compiler")
def test_two_programs_serve_a_whole_run(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Blocks of other lengths, a full replay, a fallen epsilon and a resume compile nothing again."""
    loads = count_loads(monkeypatch)
    env, device = replace(CARTPOLE.env, vectorization="compiled"), replace(CARTPOLE.device, compile=True)
    with build(replace(CARTPOLE, env=env, device=device)) as parts:
        envs, agent = parts.envs, cast(OffPolicyAgent, parts.agent)
        envs.reset()
        for most in (1, 64, 7, 64, 64):
            agent.iterate(envs, most)
        state = envs.state_dict(), copy.deepcopy(agent.state_dict())
        agent.load_state_dict(state[1])
        envs.load_state_dict(state[0])
        agent.iterate(envs, 20)
    assert len(loads) == 2
    assert not [record for record in caplog.records if record.name.startswith("rltrain")], "it ran uncompiled"


@pytest.mark.parametrize("id", ["FrozenLake-v1", "probe_envs:Images-v0"])
def test_what_has_no_twin_is_refused(id: str) -> None:
    with pytest.raises(RequestError, match=r"env\.vectorization=compiled: .* has no batched twin; use sync"):
        play(run_config(dqn_config(), env=env_config(id)), "compiled", 1, 1)


def test_wrappers_that_are_no_formulas_are_refused_by_name_and_after_environments_without_a_twin() -> None:
    def wrapped(id: str) -> RunConfig:
        listed = (TimeAwareConfig("time_aware"), FrameStackConfig("frame_stack", 2))
        return run_config(dqn_config(), env=replace(env_config(id), max_episode_steps=9, wrappers=listed))

    with pytest.raises(RequestError, match=r"without env.wrappers=\[frame_stack\] \(a tuned file .* or leave them out"):
        play(wrapped("CartPole-v1"), "compiled", 1, 1)
    with pytest.raises(RequestError, match="Counter-v0 has no batched twin"):
        play(wrapped("probe_envs:Counter-v0"), "compiled", 1, 1)


class Varying(CartPole):
    def start_state(self, rng: np.random.Generator) -> Any:
        state = super().start_state(rng)
        return state if rng.integers(8) else state[:-1]


def test_a_twin_whose_first_states_do_not_fit_together_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BATCHED_ENVS, "CartPole-v1", Varying)
    monkeypatch.setattr("rltrain.envs.batched.block._MANY", 10**6)
    with pytest.raises(RunFailed, match=r"the batched twin Varying fails in start_state: .*same shape"):
        play(CARTPOLE, "compiled", 1, 1)


class Numpy(CartPole):
    def step(self, xp: Any, state: Any, action: Any) -> Any:
        return super().step(np, state + np.zeros(state.shape), action) if xp is np else np.cos(action.rows)


class Narrow(CartPole):
    def step(self, xp: Any, state: Any, action: Any) -> Any:
        state, reward, terminated = super().step(xp, state, action)
        return (state, reward, terminated) if xp is np else (state.float(), reward, terminated)


@pytest.mark.parametrize(
    ("twin", "text"), [(Numpy, "the batched twin Numpy fails with xp=torch: 'Tensor' object has no attribute 'rows'"),
                       (Narrow, r"twin Narrow gives with xp=torch state as torch.float32 \(4, 3\), not torch.float64")]
)  # fmt: skip
def test_a_twin_that_cannot_compute_in_torch_is_refused(twin: type, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BATCHED_ENVS, "CartPole-v1", twin)
    with pytest.raises(RunFailed, match=text):
        play(CARTPOLE, "compiled", 1, 1)
