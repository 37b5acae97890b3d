"""A population against the same runs one by one: what one member does, its end and its failure are its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from halves import often
from small_runs import (
    CPU,
    Keeper,
    Log,
    Stop,
    dqn_config,
    env_config,
    ppo_config,
    pqn_config,
    q_learning_config,
    reinforce_config,
    run_config,
)

from rltrain.agents import AgentContext, make_agent
from rltrain.config.schema import (
    CheckpointConfig,
    CNNConfig,
    ConstantConfig,
    CriticConfig,
    EvalConfig,
    HardUpdateConfig,
    LinearConfig,
    NetworkConfig,
    RunConfig,
    SoftUpdateConfig,
    ValueConfig,
)
from rltrain.config.wrappers import (
    FrameStackConfig,
    NormalizeObservationConfig,
    NormalizeRewardConfig,
    TimeAwareConfig,
)
from rltrain.engine.episodes import EpisodeAgent
from rltrain.engine.turns import Turns
from rltrain.errors import RunFailed
from rltrain.jobs.build import build_envs
from rltrain.training import saving
from rltrain.training.evaluator import Evaluator
from rltrain.training.loop import Loop
from rltrain.training.member import Member, Output

SEEDS = (3, 11, 12)
GAMMAS = (0.99, 0.8, 0.9)
RATES = (1e-3, 4e-3, 2e-3)
VALUE_RATES = (1e-2, 2e-3, 5e-3)
EXPLORATIONS = tuple(LinearConfig("linear", 1.0, *rest) for rest in ((0.1, 80), (0.3, 40), (0.5, 160)))
TARGETS = {
    "soft": tuple(SoftUpdateConfig("soft", tau, 1, "gradient_steps") for tau in (0.05, 0.3, 0.1)),
    "hard": tuple(HardUpdateConfig("hard", period, "env_steps") for period in (30, 7, 50)),
    "hard by episodes": tuple(HardUpdateConfig("hard", period, "episodes") for period in (3, 1, 2)),
}
CASES = [*TARGETS, "reinforce", "ppo", "pqn", "q_learning"]
GREEDY = ConstantConfig("constant", 0.0)
CARTPOLE = replace(env_config("CartPole-v1"), vectorization="batched")
Changes = dict[str, Any]


def members(case: str, *changes: Changes, **common: Any) -> list[RunConfig]:
    """Three runs that differ in all that the case's members may differ in; `changes` is one dict per member."""
    keys: Changes = {"num_envs": 2, "log_period": 20, "eval": EvalConfig(60, 3), "env": CARTPOLE, **common}
    configs = []
    for member, own in enumerate(changes or ({}, {}, {})):
        algo: Any
        if case == "q_learning":
            configs.append(q_learning_member(member, **{**keys, **own}))
            continue
        if case == "ppo":
            algo = ppo_config(
                entropy_coef=(0.0, 0.3, 0.1)[member], clip=(0.2, 0.01, 0.1)[member], gae_lambda=(0.9, 0.0, 1.0)[member],
                value=CriticConfig((8,), (0.5, 0.1, 1.0)[member], None),
            )  # fmt: skip
            keys |= {"total_steps": (180, 180, 160)[member]}
        elif case == "pqn":
            algo = pqn_config(q_lambda=(0.9, 0.0, 1.0)[member])
            keys |= {"total_steps": (180, 180, 160)[member], "exploration": EXPLORATIONS[member]}
        elif case == "reinforce":
            algo = reinforce_config(
                entropy_coef=(0.0, 0.3, 0.1)[member], value=ValueConfig(VALUE_RATES[member], 2, (8,))
            )
            keys |= {"total_steps": 400, "log_period": 3}  # rows where members wait for an update, too
        else:
            algo = dqn_config(n_step=3, learning_starts=30, train_period=4, buffer_size=90)
            keys |= {"total_steps": 180, "target_update": TARGETS[case][member], "exploration": EXPLORATIONS[member]}
        adam = replace(algo.optimizer, lr=own.get("lr", RATES[member]))
        algo = replace(algo, gamma=GAMMAS[member], max_grad_norm=(10.0, 0.5, 1.0)[member], optimizer=adam)
        rest = {key: value for key, value in own.items() if key != "lr"}
        configs.append(run_config(algo, **{**keys, "seed": SEEDS[member], **rest}))
    return configs


def q_learning_member(member: int, **changes: Any) -> RunConfig:
    algo = q_learning_config(
        gamma=GAMMAS[member], alpha=(1.0, 0.3, 0.7)[member], alpha_decay=(0.6, 0.0, 1.0)[member],
        initial_value=(0.0, 1.0, 0.5)[member],
    )  # fmt: skip
    own = {"total_steps": 180, "exploration": EXPLORATIONS[member], "seed": SEEDS[member]}
    env = replace(env_config("Taxi-v4"), max_episode_steps=20)
    return run_config(algo, **{**changes, "env": env, **own})


class Single:
    """One member as a run of its own."""

    def __init__(self, config: RunConfig) -> None:
        envs = build_envs(config)
        agent = make_agent(AgentContext(config, envs.observation_spec, envs.action_spec, CPU))
        self.log, self.keeper = Log(), Keeper()
        evaluator = Evaluator(config.env, config.seed, config.eval.episodes, envs.statistics)
        self.loop = Loop([config], envs, agent, evaluator, [Output(self.log, self.keeper)], CPU, Stop())

    @property
    def member(self) -> Member:
        return self.loop.members[0]


class Together:
    """The members as one population."""

    def __init__(self, configs: Sequence[RunConfig], stop_after: int | None = None) -> None:
        first, population = configs[0], tuple(configs)
        envs = build_envs(first, population)
        context = AgentContext(first, envs.observation_spec, envs.action_spec, CPU, population=population)
        self.agent = make_agent(context)
        self.logs, self.keepers = [Log() for _ in configs], [Keeper() for _ in configs]
        outputs = [Output(*pair) for pair in zip(self.logs, self.keepers, strict=True)]
        evaluator = Evaluator(first.env, [config.seed for config in configs], first.eval.episodes, envs.statistics)
        stop: Any = Stop(2000 if stop_after is None else stop_after)  # a population that waits for ever ends, too
        self.loop = Loop(configs, envs, self.agent, evaluator, outputs, CPU, stop)

    def last_states(self) -> list[Any]:
        return [keeper.saved[-1][1] for keeper in self.keepers]


def assert_member_equals(together: Together, member: int, single: Single) -> None:
    log, keeper, own = together.logs[member], together.keepers[member], together.loop.members[member]
    assert [step for step, _ in log.rows] == [step for step, _ in single.log.rows]
    for (step, row), (_, expected) in zip(log.rows, single.log.rows, strict=True):
        assert row == pytest.approx(expected, rel=1e-3, abs=1e-5), f"member {member}, step {step}"
    assert (keeper.best, keeper.steps) == (single.keeper.best, single.keeper.steps)
    assert (own.step, own.episodes) == (single.member.step, single.member.episodes)
    for (_, found), (_, wanted) in zip(keeper.saved, single.keeper.saved, strict=True):
        assert found["state"]["agent"] == wanted["state"]["agent"], "its counters and its draws"
        # On the CPU the members of both compute by themselves.
        exact = "q_table" in wanted["network"] or "rollout.finished" in wanted["replay"]
        for section in ("network", "optimizer", "replay"):
            tolerance = {"rtol": 0.0, "atol": 0.0} if exact else {"rtol": 1e-3, "atol": 1e-4}
            torch.testing.assert_close(found[section], wanted[section], **tolerance)


def test_members_that_end_together_have_their_last_rows_before_one_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saving takes a while, which would pass for training time of the others."""
    together = Together(members("soft"))
    done: list[str] = []
    for of, name in ((Log, "log"), (Keeper, "save")):
        inner = getattr(of, name)

        def noted(self: Any, *args: Any, inner: Any = inner, name: str = name) -> None:
            done.append(name)
            inner(self, *args)

        monkeypatch.setattr(of, name, noted)
    together.loop.run()
    assert done[-6:] == ["log"] * 3 + ["save"] * 3


def test_members_with_convolutions_equal_their_own_runs() -> None:
    layers = CNNConfig("cnn", (3,), (2,), (1,), (4,), True, "auto", "relu", 1.0)
    configs = members("soft", env=env_config("probe_envs:Noise-v0"), network=layers)
    together = Together(configs)
    together.loop.run()
    for member, config in enumerate(configs):
        single = Single(config)
        single.loop.run()
        assert_member_equals(together, member, single)


def test_noisy_members_equal_their_own_runs() -> None:
    """Each under noise of its own seed, in acting and in learning; in evaluations without."""
    noisy = {"network": NetworkConfig("mlp", (6,), "tanh", 1.0, noisy=True), "exploration": GREEDY}
    configs = members("hard", *[{**noisy, "total_steps": 100}] * 3)
    together = Together(configs)
    together.loop.run()
    for member, config in enumerate(configs):
        single = Single(config)
        single.loop.run()
        assert_member_equals(together, member, single)


def assert_equal(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


WRAPPED = replace(
    CARTPOLE,
    max_episode_steps=50,
    wrappers=(
        TimeAwareConfig("time_aware"), NormalizeObservationConfig("normalize_observation"),
        FrameStackConfig("frame_stack", 2), NormalizeRewardConfig("normalize_reward"),
    ),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", ["soft", "reinforce"])
def test_members_see_through_wrappers_what_they_would_see_alone(case: str) -> None:
    """Also past the end of one, and each its own statistics, in its evaluations too."""
    configs = members(case, {}, {"total_episodes": 5}, {}, env=WRAPPED)
    together = Together(configs)
    together.loop.run()
    assert together.loop.failures == {}
    for member, config in enumerate(configs):
        single = Single(config)
        single.loop.run()
        assert_member_equals(together, member, single)
        found, wanted = (keeper.saved[-1][1]["state"]["envs"] for keeper in (together.keepers[member], single.keeper))
        assert found.keys() == wanted.keys()
        for name, array in found.items():
            assert array == pytest.approx(wanted[name], rel=1e-3, abs=1e-4), name


EARLY = list(zip(CASES, (1, 0, 2, 1, 0, 1, 2), strict=True))


@pytest.mark.parametrize(("case", "early"), often(EARLY, [EARLY[0], EARLY[-1]]))
def test_members_are_the_runs_that_they_would_be_alone_also_past_the_end_of_one(case: str, early: int) -> None:
    changes: list[Changes] = [{}, {}, {}]
    changes[early] = {"total_episodes": 5}
    configs = members(case, *changes)
    together = Together(configs)
    together.loop.run()
    assert together.loop.failures == {}
    singles = [Single(config) for config in configs]
    for member, single in enumerate(singles):
        single.loop.run()
        assert single.member.solve_step is None
        assert_member_equals(together, member, single)
    ends = [single.member.step for single in singles]
    assert together.loop.step == sum(ends), "who has ended takes no steps"
    assert ends[early] < min(end for member, end in enumerate(ends) if member != early) * 0.8
    tag = "rollout/episode_return" if case == "q_learning" else "eval/episode_return"
    returns = [[row.get(tag) for _, row in single.log.rows] for single in singles]
    assert returns[0] != returns[1] != returns[2], "or the members cannot be told apart"

    # The others went on: what the member that ended has is what it had then.
    ended, now = together.last_states()[early], together.agent.state_dict(early)
    assert_equal(now["network"], ended["network"])
    assert_equal(now["optimizer"], ended["optimizer"])
    for name, rows in now["replay"].items():
        if name.startswith("replay."):
            assert_equal(rows, ended["replay"][name])
    counters = {"reinforce": ("gradient_steps",), "q_learning": ("env_steps", "episodes", "exploration_draws")}.get(
        case, ("gradient_steps", "env_steps", "episodes")
    )
    assert [now["state"][key] for key in counters] == [ended["state"]["agent"][key] for key in counters]


@pytest.mark.slow
def test_members_hold_their_actions_for_durations_of_their_own() -> None:
    """As they would alone; the exponents are so low that most of what is tried is held."""
    own: list[Changes] = [{"exploration": LinearConfig("linear", 1.0, 0.5, 150, mu)} for mu in (1.2, 4.0, 1.5)]
    together = Together(members("soft", *own))
    together.loop.run()
    for member, config in enumerate(members("soft", *own)):
        single = Single(config)
        single.loop.run()
        assert_member_equals(together, member, single)
        state = single.keeper.saved[-1][1]["state"]["agent"]["held_actions"]
        assert together.keepers[member].saved[-1][1]["state"]["agent"]["held_actions"] == state


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("case", often(["soft", "reinforce", "ppo"], ["soft"]))
def test_a_member_whose_loss_is_not_finite_fails_alone(case: str, failing: int) -> None:
    changes: list[Changes] = [{}, {}, {}]
    changes[failing] = {"lr": 1e38}
    configs = members(case, *changes)
    together = Together(configs)
    together.loop.run()
    assert list(together.loop.failures) == [failing]
    singles = [Single(config) for config in configs]
    for member, single in enumerate(singles):
        if member != failing:
            single.loop.run()
            assert_member_equals(together, member, single)
            continue
        with pytest.raises(RunFailed) as failure:
            single.loop.run()
        assert str(together.loop.failures[member]) == str(failure.value)
        assert together.keepers[member].saved == []
    assert together.loop.step == sum(single.member.step for single in singles), "who has failed takes no steps"


def test_a_member_whose_checkpoint_cannot_be_written_fails_alone() -> None:
    configs = members("soft", checkpoint=CheckpointConfig(80, 3, True))
    together = Together(configs)
    failure = RunFailed("the disk is full")

    def refuse(step: int, state: object) -> None:
        raise failure

    together.keepers[2].save = refuse  # type: ignore[method-assign]
    together.loop.run()
    assert together.loop.failures == {2: failure}
    assert [keeper.steps[-1] for keeper in together.keepers[:2]] == [180, 180]
    for member, config in enumerate(configs[:2]):
        single = Single(replace(config, checkpoint=CheckpointConfig(None, 3, True)))
        single.loop.run()
        del together.keepers[member].saved[:-1]
        assert_member_equals(together, member, single)


def test_members_that_run_are_saved_at_each_period_and_one_that_ended_no_more() -> None:
    configs = members("soft", {}, {"total_episodes": 5}, {}, checkpoint=CheckpointConfig(40, 3, True))
    together = Together(configs)
    together.loop.run()
    all_members, (first, second, third) = together.loop.members, (keeper.steps for keeper in together.keepers)
    end = all_members[1].step
    assert end < 160
    # In the mean the members have 40, 80, ... steps; after the end of one, two have to bring what three did.
    due = {max(multiple, -(-(3 * multiple - end) // 4) * 2) for multiple in range(40, 180, 40)}
    assert first == third == sorted({*(step for step in due if step < 180), 180})
    assert second == sorted({*(step for step in first if step < end), end})


def test_a_population_passes_over_saves_that_would_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(saving, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(saving, "AUTO_SAVE_STEPS", 20)
    together = Together(members("soft", checkpoint=CheckpointConfig("auto", 3, True)))
    for keeper in together.keepers:
        keeper.prune = lambda: setattr(clock, "now", clock.now + 1.0)  # type: ignore[method-assign]
    together.loop.run()
    assert [keeper.steps for keeper in together.keepers] == [[20, 180]] * 3


def test_what_was_done_before_a_save_is_not_due_after_it() -> None:
    together = Together(members("soft", checkpoint=CheckpointConfig(60, 3, True)))  # evaluated and logged then, too
    together.loop.run()
    for keeper in together.keepers:
        assert [(step, state["state"]["duties_from"]) for step, state in keeper.saved] == [
            (60, None), (120, None), (180, None)
        ]  # fmt: skip


def test_a_member_saved_while_it_waits_for_its_last_update_is_saved_after_it() -> None:
    configs = members("reinforce", {"total_episodes": 4}, {}, {}, checkpoint=CheckpointConfig(2, 3, True))
    together, single = Together(configs), Single(replace(configs[0], checkpoint=CheckpointConfig(None, 3, True)))
    together.loop.run()
    single.loop.run()
    keeper = together.keepers[0]
    assert keeper.steps.count(single.member.step) > 1, "it was not saved while it waited"
    del keeper.saved[:-1]
    assert_member_equals(together, 0, single)


@pytest.mark.parametrize(
    ("case", "stop_after"),
    often(
        [("soft", 35), ("hard by episodes", 25), ("reinforce", 40), ("ppo", 43), ("q_learning", 35)],
        [("soft", 35), ("q_learning", 35)],
    ),
)
def test_members_stopped_at_k_continue_bit_for_bit(case: str, stop_after: int) -> None:
    configs = members(case, {}, {"total_episodes": 5}, {})
    whole = Together(configs)
    whole.loop.run()
    first = Together(configs, stop_after)
    first.loop.run()
    assert not all(member.done for member in first.loop.members)
    between = Together(configs, 0)  # stopped again at once
    second = Together(configs)
    states = first.last_states()
    for run in (between, second):
        assert run.loop.load_state_dicts(states, first.loop.vector_steps) == [True] * 3
        run.loop.run()
        states = [
            keeper.saved[-1][1] if keeper.saved else state for keeper, state in zip(run.keepers, states, strict=True)
        ]
    assert [log.rows for log in between.logs] == [[], [], []]
    for member in range(3):
        rows, expected = first.logs[member].rows + second.logs[member].rows, whole.logs[member].rows
        assert [step for step, _ in rows] == [step for step, _ in expected]
        for (_, row), (_, expected_row) in zip(rows, expected, strict=True):
            assert row == pytest.approx(expected_row, rel=1e-6)  # sums of floats were broken off in another place
        assert first.keepers[member].best + second.keepers[member].best == whole.keepers[member].best
    for state, keeper in zip(states, whole.keepers, strict=True):
        expected_state = keeper.saved[-1][1]
        for section in ("network", "optimizer", "replay"):
            assert_equal(state[section], expected_state[section])
        assert state["state"]["agent"] == expected_state["state"]["agent"]
        assert state["state"]["step"] == expected_state["state"]["step"]


def test_members_that_learn_in_one_call_as_on_a_gpu_equal_those_that_learn_one_by_one() -> None:
    at_once, one_by_one = Together(members("reinforce")), Together(members("reinforce"))
    agent = cast(EpisodeAgent, at_once.agent)
    agent._turns = Turns(agent._state, agent._stack_knobs(), [slice(0, len(agent._running))])
    for together in (at_once, one_by_one):
        together.loop.run()
    for found, expected in zip(at_once.last_states(), one_by_one.last_states(), strict=True):
        assert found["state"]["agent"] == expected["state"]["agent"]
        for section in ("network", "optimizer"):
            torch.testing.assert_close(found[section], expected[section], rtol=1e-3, atol=1e-4)
