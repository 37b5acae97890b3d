"""The loop: what is due at which step, what is saved, and that looking at a run does not change it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from halves import often
from small_runs import (
    CPU,
    Keeper,
    Log,
    Stop,
    assert_same_state,
    dqn_config,
    env_config,
    make_agent,
    reinforce_config,
    run_config,
)

from rltrain.config.schema import CheckpointConfig, EvalConfig, RunConfig
from rltrain.engine.protocol import Agent, StateDict
from rltrain.errors import RunFailed
from rltrain.jobs.build import build_envs
from rltrain.training import saving
from rltrain.training.evaluator import REPORT_EPISODES, EpisodeStatistics, Evaluator
from rltrain.training.loop import Loop
from rltrain.training.member import Member, Output
from rltrain.types import Episode, Transition

SEVEN_STEPS = env_config("probe_envs:FixedLength-v0")
BANDIT = env_config("probe_envs:Bandit-v0")  # its threshold is 1
ALGOS = {"dqn": dqn_config(n_step=2, train_period=3), "reinforce": reinforce_config(episodes_per_update=3)}


class CountingAgent:
    """Acts without a network; its loss is how often it was updated, its weight whatever a test puts there."""

    def __init__(self, num_envs: int) -> None:
        self.active = np.ones(num_envs, bool)
        self.gradient_steps = 0
        self.weight = 1.0
        self.loss: Callable[[int], float] = float
        self.abandoned: list[list[bool]] = []
        self.order: list[str] = []

    def act(self, obs: np.ndarray) -> np.ndarray:
        self.order.append("act")
        return np.zeros(len(obs), np.int64)

    act_greedy = act

    def observe(self, transition: Transition, episodes: list[Episode]) -> None:
        self.order.append("observe")

    def update(self) -> dict[str, torch.Tensor]:
        self.order.append("update")
        self.gradient_steps += 1
        return {"train/td_loss": torch.tensor(self.loss(self.gradient_steps), dtype=torch.float64)}

    def scalars(self) -> dict[str, float]:
        return {"train/gradient_steps": float(self.gradient_steps)}

    def abandon_episodes(self, envs: np.ndarray) -> None:
        self.abandoned.append(envs.tolist())

    def state_dict(self) -> StateDict:
        network = {"q_network.weight": torch.tensor([self.weight])}
        return {"network": network, "optimizer": {}, "replay": {}, "state": {"gradient_steps": self.gradient_steps}}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        self.gradient_steps = state["state"]["gradient_steps"]


class ScriptedEvaluator:
    """Returns the given means in turn (the last one for ever) and notes what was asked."""

    def __init__(self, *means: float | None) -> None:
        self.means, self.asked = list(means), list[tuple[int, int]]()
        self.diagnostics: dict[str, float] = {}

    def evaluate_members(
        self, policy: object, episodes: int, keys: Mapping[int, int], stop: Callable[[], bool], partly: bool
    ) -> dict[int, EpisodeStatistics] | None:
        self.asked.append((keys[0], episodes))
        mean = self.means.pop(0) if len(self.means) > 1 else self.means[0]
        return None if mean is None else {0: EpisodeStatistics((mean - 1.0, mean + 1.0), diagnostics=self.diagnostics)}


class Run:
    """A single run with everything around it at hand."""

    def __init__(
        self, config: RunConfig, evaluator: Any = None, agent: Any = None, stop_after: int | None = None
    ) -> None:
        self.envs = build_envs(config)
        self.agent = agent or CountingAgent(config.num_envs)
        self.log, self.keeper = Log(), Keeper()
        self.evaluator = evaluator or ScriptedEvaluator(0.0)
        self.loop = Loop(
            [config], self.envs, self.agent, self.evaluator, [Output(self.log, self.keeper)], CPU, Stop(stop_after)
        )

    @property
    def member(self) -> Member:
        return self.loop.members[0]

    def train(self) -> bool:
        """Whether it got to its end."""
        self.loop.run()
        return self.member.done

    def load(self, state: Any) -> bool:
        return self.loop.load_state_dicts([state])[0]


def short_config(**changes: Any) -> RunConfig:
    keys: dict[str, Any] = {"env": SEVEN_STEPS, "total_steps": 40, "log_period": 10**6}
    return run_config(changes.pop("algo", dqn_config()), **{**keys, **changes})


def multiples(period: int, num_envs: int, until: int) -> list[int]:
    """The first step that a loop of num_envs steps at a time reaches at or after each multiple of the period."""
    due = {-(-multiple // num_envs) * num_envs for multiple in range(period, until + 1, period)}
    return sorted(due)


def test_the_order_is_act_step_observe_update() -> None:
    run = Run(short_config(total_steps=3))
    run.train()
    assert run.agent.order == ["act", "observe", "update"] * 3


@pytest.mark.parametrize(("num_envs", "last"), [(1, 42), (4, 44), (5, 45)])
def test_every_period_is_in_environment_steps(num_envs: int, last: int) -> None:
    config = short_config(
        num_envs=num_envs,
        total_steps=42,
        log_period=10,
        eval=EvalConfig(15, 3),
        checkpoint=CheckpointConfig(7, 3, True),
    )
    run = Run(config)
    assert run.train()
    assert run.member.step == last
    evaluated = multiples(15, num_envs, last)
    assert run.evaluator.asked == [(step, 3) for step in evaluated]
    logged = {step for step, row in run.log.rows if "train/gradient_steps" in row}
    assert logged == {*multiples(10, num_envs, last), last}
    assert {step for step, row in run.log.rows if "eval/episode_return" in row} == set(evaluated)
    steps = [step for step, _ in run.log.rows]
    assert steps == sorted(set(steps)), "one row per step"
    assert run.keeper.steps == sorted({*multiples(7, num_envs, last), last})


def saved_by(config: RunConfig, step_seconds: float, save_seconds: float, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps at which a run is saved whose steps and saves take so long."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(saving, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    run = Run(config)

    def loss(updates: int) -> float:
        clock.now += step_seconds
        return 0.0

    def save(step: int, state: StateDict) -> None:
        clock.now += save_seconds
        run.keeper.saved.append((step, state))

    run.agent.loss, run.keeper.save = loss, save  # type: ignore[method-assign]
    run.train()
    return run.keeper.steps


@pytest.mark.parametrize(
    ("period", "save_seconds", "saved"),
    [
        (100, 1000.0, [100, 200, 300, 400]),  # a period that is named is kept, whatever a save takes
        ("auto", 0.2, list(range(10, 401, 10))),
        ("auto", 4.0, [10, 160, 240, 310, 390, 400]),  # made so that all are a twentieth: the second once 8 s are that
        ("auto", 10_000.0, [10, 400]),  # nobody knew what the first takes; the last state is always saved
    ],
)
def test_an_automatic_period_spares_time(
    period: int | Literal["auto"], save_seconds: float, saved: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "AUTO_SAVE_STEPS", 10)
    monkeypatch.setattr(saving, "_LONGEST_UNSAVED", float("inf"))
    config = short_config(total_steps=400, checkpoint=CheckpointConfig(period, 3, True))
    assert saved_by(config, 1.0, save_seconds, monkeypatch) == saved


@pytest.mark.parametrize(
    ("period", "save_seconds", "saved"),
    [
        ("auto", 1.0, [3, 6, 9, 10, 13, 16, 19, 20]),  # after 75 s, and at the multiples of 10
        ("auto", 5.0, [3, 8, 12, 16, 20]),  # so that all are a twentieth: two once 10 s are that
        (10, 1.0, [10, 20]),
        (None, 1.0, [20]),
    ],
)
def test_a_slow_run_is_saved_after_a_minute(
    period: int | Literal["auto"] | None, save_seconds: float, saved: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was killed lost all that it had done until its first 10,000 steps, which may take an hour."""
    monkeypatch.setattr(saving, "AUTO_SAVE_STEPS", 10)
    config = short_config(total_steps=20, checkpoint=CheckpointConfig(period, 3, True))
    assert saved_by(config, 25.0, save_seconds, monkeypatch) == saved


def test_several_multiples_in_one_vector_step_are_one_duty() -> None:
    run = Run(short_config(num_envs=8, total_steps=32, log_period=3, eval=EvalConfig(2, 1)))
    run.train()
    assert [step for step, _ in run.log.rows] == [key for key, _ in run.evaluator.asked] == [8, 16, 24, 32]


def test_a_row_holds_the_means_of_its_period_and_undiscounted_returns() -> None:
    run = Run(short_config(total_steps=20, log_period=8, eval=EvalConfig(16, 3)), ScriptedEvaluator(5.0))
    run.train()
    assert run.log.rows == [
        (8, {"train/td_loss": 4.5, "rollout/episode_return": 21.0, "rollout/episode_length": 7.0,
             "train/gradient_steps": 8.0}),
        (16, {"train/td_loss": 12.5, "rollout/episode_return": 21.0, "rollout/episode_length": 7.0,
              "train/gradient_steps": 16.0, "eval/episode_return": 5.0, "eval/episode_return_std": 1.0}),
        (20, {"train/td_loss": 18.5, "train/gradient_steps": 20.0}),
    ]  # fmt: skip


def test_idle_environments_take_no_steps() -> None:
    config = short_config(num_envs=4, total_steps=30)
    agent = CountingAgent(4)
    agent.active = np.array([True, False, True, True])
    run = Run(config, agent=agent)
    run.train()
    assert (run.member.step, len(agent.order)) == (30, 30)  # ten vector steps of three calls


@pytest.mark.parametrize(("num_envs", "steps", "episodes"), [(1, 21, 3), (2, 28, 4)])
def test_the_limit_that_comes_first_ends_the_run(num_envs: int, steps: int, episodes: int) -> None:
    run = Run(short_config(num_envs=num_envs, total_steps=1000, total_episodes=3))
    assert run.train()
    assert (run.member.step, run.member.episodes) == (steps, episodes)
    assert run.keeper.steps == [steps]
    assert [step for step, _ in run.log.rows] == [steps]


def test_a_return_that_ends_the_run_is_confirmed_on_a_hundred_other_episodes() -> None:
    evaluator = ScriptedEvaluator(5.0, 20.0, 14.0, 21.0, 15.0)
    run = Run(short_config(total_steps=1000, stop_at_return=15.0, eval=EvalConfig(10, 3)), evaluator)
    assert run.train()
    assert run.member.step == 30  # at 20 the confirmation said 14
    assert [episodes for _, episodes in evaluator.asked] == [3, 3, REPORT_EPISODES, 3, REPORT_EPISODES]
    keys = [key for key, _ in evaluator.asked]
    assert len(set(keys)) == 5
    assert keys[:2] == [10, 20]
    assert keys[3] == 30
    assert run.log.rows[-1][1]["eval/episode_return"] == 21.0


def test_a_confirmation_ends_the_network_that_it_confirmed_and_no_other() -> None:
    def confirmed(run: Run) -> Any:
        return run.keeper.saved[-1][1]["state"]["confirmed_return"]

    short = short_config(total_steps=20, stop_at_return=15.0, eval=EvalConfig(10, 3))
    missed = Run(short, ScriptedEvaluator(20.0, 14.0, 3.0))
    assert missed.train() and missed.member.step == 20
    assert confirmed(missed) is None, "a lower goal later was not reached by the last network"
    reached = Run(short, ScriptedEvaluator(20.0, 16.0))
    assert reached.train() and reached.member.step == 10 and confirmed(reached) == 16.0
    assert reached.member.limit is not None and reached.member.limit.key == "stop_at_return"
    on = Run(replace(short, stop_at_return=None, eval=EvalConfig(None, 3)), ScriptedEvaluator())
    on.load(reached.keeper.saved[-1][1])
    assert on.train() and on.member.step == 20 and confirmed(on) is None


def test_the_best_network_and_the_first_solving_step_are_kept() -> None:
    evaluator = ScriptedEvaluator(0.5, 0.2, 0.5, 1.0, 0.9, 3.0)
    run = Run(short_config(env=BANDIT, total_steps=60, eval=EvalConfig(10, 3)), evaluator)
    run.train()
    assert run.keeper.best == [10, 40, 60]
    assert run.member.solve_step == 40
    assert run.member.best_return == 3.0


def test_returns_that_no_value_may_reach_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    evaluator = ScriptedEvaluator(-99.0)
    evaluator.diagnostics = {"diagnostics/discounted_return": -99.0}
    config = short_config(algo=dqn_config(v_min=0.25, v_max=100.0), eval=EvalConfig(10, 3))
    Run(config, evaluator).train()
    said = capsys.readouterr().err
    assert said.count("discounted returns are less than algo.v_min=0.25, beyond which no value is learned") == 1


def test_the_newest_of_each_metric_is_kept_and_goes_on_after_a_resume() -> None:
    run = Run(short_config(log_period=3))
    run.train()
    tag, rows = "rollout/episode_return", [row for _, row in run.log.rows]
    assert tag not in rows[-1]
    assert run.member.metrics[tag] == [row[tag] for row in rows if tag in row][-1]
    again = Run(short_config(log_period=3))
    again.load(run.member.state_dict())
    assert again.member.metrics == run.member.metrics


def test_a_finished_run_does_nothing_when_it_is_run_again() -> None:
    run = Run(short_config(checkpoint=CheckpointConfig(20, 3, True)))
    assert run.train()
    before = len(run.agent.order)
    assert run.train()
    assert len(run.agent.order) == before
    assert run.keeper.steps == [20, 40]
    resumed = Run(short_config(checkpoint=CheckpointConfig(20, 3, True)))
    resumed.load(run.keeper.saved[-1][1])
    assert resumed.train()
    assert (resumed.agent.order, resumed.keeper.steps, resumed.log.rows) == ([], [], [])


def test_a_request_to_stop_finishes_the_step_and_saves() -> None:
    run = Run(short_config(log_period=3), stop_after=5)
    assert not run.train()
    assert run.keeper.steps == [5]
    assert run.keeper.saved[0][1]["state"]["step"] == 5


def test_an_interrupted_evaluation_is_made_again_on_resume_with_all_that_was_due() -> None:
    config = short_config(log_period=10, eval=EvalConfig(10, 3), checkpoint=CheckpointConfig(10, 3, True))
    whole = Run(config, ScriptedEvaluator(4.0))
    whole.train()

    first = Run(config, ScriptedEvaluator(4.0, None), stop_after=20)
    assert not first.train()
    assert first.keeper.steps == [10, 20]
    assert [step for step, _ in first.log.rows] == [10]
    second = Run(config, ScriptedEvaluator(4.0))
    second.load(first.keeper.saved[-1][1])
    assert second.train()
    assert second.evaluator.asked == [(20, 3), (30, 3), (40, 3)]
    assert first.log.rows + second.log.rows == whole.log.rows
    assert second.keeper.steps == [20, 30, 40]


def test_an_interrupted_confirmation_decides_nothing() -> None:
    config = short_config(total_steps=30, stop_at_return=3.0, eval=EvalConfig(10, 3))
    first = Run(config, ScriptedEvaluator(4.0, None), stop_after=10)
    assert not first.train()
    assert first.keeper.best == []
    second = Run(config, ScriptedEvaluator(4.0))
    second.load(first.keeper.saved[-1][1])
    assert second.train()
    assert second.member.step == 10
    assert second.evaluator.asked == first.evaluator.asked == [(10, 3), (second.evaluator.asked[1][0], REPORT_EPISODES)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_at_once_and_is_never_saved(value: float) -> None:
    run = Run(short_config(checkpoint=CheckpointConfig(1, 3, True)))
    run.agent.loss = lambda count: value if count == 13 else 1.0
    with pytest.raises(RunFailed, match=r"train/td_loss is .* at environment step 13"):
        run.train()
    assert run.keeper.steps == list(range(1, 13))


def test_a_weight_that_is_not_finite_is_never_saved() -> None:
    run = Run(short_config(checkpoint=CheckpointConfig(10, 3, True), eval=EvalConfig(15, 3)))
    run.agent.loss = lambda count: setattr(run.agent, "weight", np.nan if count == 15 else 1.0) or 1.0
    with pytest.raises(RunFailed, match=r"weights of q_network.weight are not finite at environment step 15"):
        run.train()  # the best network is judged at step 15
    assert run.keeper.steps == [10]
    assert run.keeper.best == []


def test_episodes_that_do_not_replay_are_abandoned_where_they_are() -> None:
    config = short_config(env=env_config("probe_envs:Unrepeatable-v0"), num_envs=2, total_steps=20)
    first = Run(config, stop_after=4)
    first.train()
    second = Run(config)
    assert not second.load(first.keeper.saved[-1][1])
    assert second.agent.abandoned == [[True, True]]
    third = Run(short_config(num_envs=2))
    fourth = Run(short_config(num_envs=2), stop_after=4)
    fourth.train()
    assert third.load(fourth.keeper.saved[-1][1])
    assert third.agent.abandoned == []


def real_run(name: str, num_envs: int, *, seed: int = 0, stop_after: int | None = None, **changes: Any) -> Run:
    config = run_config(ALGOS[name], num_envs=num_envs, seed=seed, **{"total_steps": 150, **changes})
    envs = build_envs(config)
    agent: Agent = make_agent(config, envs.observation_spec, envs.action_spec)
    envs.close()
    return Run(config, Evaluator(config.env, seed, 3), agent, stop_after)


@pytest.mark.parametrize(("name", "num_envs"), often(product(ALGOS, (1, 3)), [("dqn", 3), ("reinforce", 1)]))
def test_evaluating_and_saving_leave_the_training_as_it_was(name: str, num_envs: int) -> None:
    plain = real_run(name, num_envs)
    watched = real_run(name, num_envs, eval=EvalConfig(20, 3), checkpoint=CheckpointConfig(7, 3, True))
    for run in (plain, watched):
        assert run.train()
    assert len(watched.keeper.saved) > 7
    assert plain.agent.gradient_steps > 1
    assert_same_state(plain.agent, watched.agent)
    ends = [run.envs.state_dict() for run in (plain, watched)]
    assert all(np.array_equal(ends[0][key], ends[1][key]) for key in ends[0])
    evaluations = "eval/", "diagnostics/"
    rows = [{tag: v for tag, v in row.items() if not tag.startswith(evaluations)} for _, row in watched.log.rows]
    assert [row for row in rows if row] == [row for _, row in plain.log.rows]


@pytest.mark.parametrize(
    ("stop_after", "name", "num_envs"),
    often(product((1, 43), ALGOS, (1, 3)), [(43, "dqn", 3), (1, "reinforce", 3), (43, "reinforce", 1)]),
)
def test_a_run_stopped_at_k_continues_bit_for_bit(name: str, num_envs: int, stop_after: int) -> None:
    changes: dict[str, Any] = {"eval": EvalConfig(40, 2), "total_steps": 150 * num_envs}
    whole = real_run(name, num_envs, **changes)
    assert whole.train()
    first = real_run(name, num_envs, stop_after=stop_after, **changes)
    assert not first.train()
    second = real_run(name, num_envs, **changes)
    second.agent.act(np.zeros((num_envs, 4), np.float32))  # what it did before must not matter
    assert second.load(first.keeper.saved[-1][1])
    assert second.train()
    assert first.log.rows + second.log.rows == whole.log.rows
    assert_same_state(second.agent, whole.agent)
    assert (second.member.best_return, second.member.episodes) == (whole.member.best_return, whole.member.episodes)
