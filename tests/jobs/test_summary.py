"""The table at the end of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_runs import dqn_config, ppo_config, q_learning_config, reinforce_config, run_config

from rltrain.config.algorithms import steadier
from rltrain.config.schema import CheckpointConfig, LinearConfig
from rltrain.jobs.findings import findings
from rltrain.jobs.last_words import summary
from rltrain.jobs.messages import how
from rltrain.jobs.population_messages import population_header, population_line
from rltrain.storage.checkpoint_folders import best_folder
from rltrain.training.episode_tally import EpisodeStatistics


def ended(**changes: Any) -> Any:
    """A member that has ended, as far as the table asks of it."""
    told = {"step": 12, "episodes": 0, "train_seconds": 2.0, "solve_step": None, "best_return": None, "metrics": {}}
    return SimpleNamespace(**{**told, **changes})


def test_a_run_too_short_for_an_update_says_so() -> None:
    config = run_config(reinforce_config(), total_steps=10)
    table = run_config(q_learning_config(), total_steps=10)
    member = ended()
    final = EpisodeStatistics((1.0,))
    unchanged = "; no update was due: the network is as it began"
    for of, made, said in ((config, 0, unchanged), (config, 1, ""), (table, 0, "")):
        parts: Any = SimpleNamespace(
            agent=SimpleNamespace(gradient_steps=made), envs=SimpleNamespace(reward_threshold=None, draws=False)
        )
        lines = summary(of, member, final, parts, Path("run"), {}).splitlines()
        assert lines[1] == f"trained         12 steps, 0 episodes, 6 steps/s{said}"


def test_a_run_saved_without_its_experience_is_not_said_to_go_on() -> None:
    envs = SimpleNamespace(reward_threshold=None, draws=False)
    parts: Any = SimpleNamespace(agent=SimpleNamespace(gradient_steps=1), envs=envs)
    instead = "not, as checkpoint.replay=false; init_from=run begins another run with its network"
    for replay, said in ((True, "rltrain resume run total_steps=20"), (False, instead)):
        config = run_config(dqn_config(), total_steps=10, checkpoint=CheckpointConfig(None, 3, replay))
        text = summary(config, ended(), EpisodeStatistics((1.0,)), parts, Path("run"), {})
        assert [line[16:] for line in text.splitlines() if line.startswith("continue")] == [said]


def test_a_table_is_given_advice_that_it_can_take() -> None:
    member = ended(metrics={"diagnostics/value": 9e9, "diagnostics/discounted_return": 1.0})
    for algo, advice in ((q_learning_config(), "algo.alpha"), (dqn_config(), "algo.optimizer.lr")):
        (found,) = findings(run_config(algo), member, EpisodeStatistics((1.0,)), None)
        assert found.text.endswith(f"where 1 came; try a smaller {advice}")
    assert steadier(q_learning_config()) == ["a smaller algo.alpha", "a smaller algo.initial_value"]
    assert steadier(dqn_config()) == ["a smaller algo.optimizer.lr", "algo.max_grad_norm=1"]


@pytest.mark.parametrize(
    ("value", "got", "said"),
    [
        (1.9e8, 9.0, ["values          overestimated: 1.9e+08 expected of an episode where 9 came; try a smaller "]),
        (237.0, -35.0, ["values          overestimated: 237 expected of an episode where -35 came; try a smaller "]),
        (300.0, -99.0, ["values          overestimated: 300 expected of an episode where -99 came; try a smaller "]),
        (-30.0, -99.0, []),
        (98.0, 100.0, []),
        (10.0, 76.0, []),
        (3.0, 0.0, []),
    ],
)
def test_values_far_above_the_returns_are_said(value: float, got: float, said: list[str]) -> None:
    member = ended(metrics={"diagnostics/value": value, "diagnostics/discounted_return": got})
    envs = SimpleNamespace(reward_threshold=None, draws=False)
    parts: Any = SimpleNamespace(agent=SimpleNamespace(gradient_steps=1), envs=envs)
    text = summary(run_config(dqn_config(), total_steps=10), member, EpisodeStatistics((1.0,)), parts, Path("run"), {})
    found = [line for line in text.splitlines() if line.startswith("values")]
    assert [line.replace("algo.optimizer.lr", "") for line in found] == said


@pytest.mark.parametrize(
    ("best", "said"),
    [
        (250.0, ["best network    250.0 in an evaluation, far above the last; rltrain evaluate run checkpoint=best"]),
        (40.0, []),  # the last network's episodes spread as far
        (-60.0, []),
        (None, []),
    ],
)
def test_a_network_that_was_far_better_than_the_last_is_named(
    best: float | None, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    best_folder(Path("run")).mkdir(parents=True)
    envs = SimpleNamespace(reward_threshold=None, draws=False)
    parts: Any = SimpleNamespace(agent=SimpleNamespace(gradient_steps=1), envs=envs)
    config, final = run_config(dqn_config(), total_steps=10), EpisodeStatistics((-150.0, 50.0))
    text = summary(config, ended(best_return=best), final, parts, Path("run"), {})
    assert [line for line in text.splitlines() if line.startswith("best")] == said
    best_folder(Path("run")).rmdir()
    removed = [line.replace("rltrain evaluate run checkpoint=best", "its checkpoint was removed") for line in said]
    text = summary(config, ended(best_return=best), final, parts, Path("run"), {})
    assert [line for line in text.splitlines() if line.startswith("best")] == removed


@pytest.mark.parametrize(
    ("training", "greedy", "said"),
    [
        (-97.3, (-500.0, -500.0), ["in training     -97.3 of late, far above: the network leans on exploration"]),
        (-300.0, (-500.0, -500.0), []),
        (-97.3, (-500.0, -80.0), []),  # some episodes get away
        (150.0, (500.0, 500.0), []),
        (None, (-500.0, -500.0), []),
    ],
)
@pytest.mark.parametrize(("episodes", "epsilon", "learned"), [(100, 0.1, True), (99, 0.1, False), (100, 0.2, False)])
def test_a_greedy_network_that_is_stuck_without_its_exploration_is_named(
    training: float | None, greedy: tuple[float, ...], said: list[str], episodes: int, epsilon: float, learned: bool
) -> None:
    envs = SimpleNamespace(reward_threshold=None, draws=False)
    parts: Any = SimpleNamespace(agent=SimpleNamespace(gradient_steps=1), envs=envs)
    metrics = {"train/epsilon": epsilon} | ({} if training is None else {"rollout/episode_return": training})
    config, final = run_config(dqn_config(), total_steps=10), EpisodeStatistics(greedy)
    member = ended(metrics=metrics, episodes=episodes)
    said = said if learned else []
    text = summary(config, member, final, parts, Path("run"), {})
    assert [line for line in text.splitlines() if line.startswith("in training")] == said
    line = " ".join(population_line("0", "seed=0", config, member, final, None).split())
    assert line.endswith("-97.3 in training: leans on exploration") == bool(said)
    unknown = summary(config, member, replace(final, cut=1, cut_at=500), parts, Path("run"), {})
    assert "in training" not in unknown, "an episode that was cut might have returned as much"


FAR = "moved too far in the last rollout, KL {}; try a smaller algo.optimizer.lr, or algo.target_kl"
COLLAPSED = "collapsed to one action per state; try a smaller algo.optimizer.lr, or a larger algo.entropy_coef"


@pytest.mark.parametrize(
    ("kl", "entropy", "threshold", "said"),
    [
        (5e19, 0.2, None, [FAR.format("5e+19")]),
        (1.5, -3.0, 10.0, [FAR.format("1.5")]),
        (0.4, 0.2, 10.0, []),
        (0.0, 0.0, 10.0, [COLLAPSED]),  # a softmax that is saturated moves no more
        (0.0, 0.0, 9.0, []),  # and is none the worse where it solves the task
        (0.0, 0.0, None, []),
        (0.0, -1.5, 10.0, []),  # of a normal distribution
    ],
)
def test_a_policy_that_fell_apart_is_named(kl: float, entropy: float, threshold: float | None, said: list[str]) -> None:
    envs = SimpleNamespace(reward_threshold=threshold, draws=False)
    parts: Any = SimpleNamespace(agent=SimpleNamespace(gradient_steps=1), envs=envs)
    member = ended(metrics={"train/approx_kl": kl, "train/entropy": entropy})
    text = summary(run_config(ppo_config(), total_steps=10), member, EpisodeStatistics((9.0,)), parts, Path("run"), {})
    assert [line[16:] for line in text.splitlines() if line.startswith("policy")] == said


DEAD = "95% of the hidden units are dead; try a smaller algo.optimizer.lr, or network.layer_norm=true"


@pytest.mark.parametrize(
    ("dormant", "threshold", "said"),
    [(0.95, 10.0, [DEAD]), (0.75, 10.0, []), (None, 10.0, []), (0.95, 9.0, []), (0.95, None, [])],
)
def test_a_network_whose_units_are_dead_is_named(
    dormant: float | None, threshold: float | None, said: list[str]
) -> None:
    envs = SimpleNamespace(reward_threshold=threshold, draws=False)
    parts: Any = SimpleNamespace(agent=SimpleNamespace(gradient_steps=1), envs=envs)
    member = ended(metrics={} if dormant is None else {"diagnostics/dormant_units": dormant})
    text = summary(run_config(dqn_config(), total_steps=10), member, EpisodeStatistics((9.0,)), parts, Path("run"), {})
    assert [line[16:] for line in text.splitlines()[1:] if line.startswith("network ")] == said


def test_a_population_says_once_that_epsilon_is_still_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rltrain.jobs.population_messages.steps_how", lambda parts: "")
    monkeypatch.setattr("rltrain.jobs.population_messages.how", lambda parts: "")
    parts: Any = SimpleNamespace(
        threads=1, device="cpu", agent=SimpleNamespace(replay_bytes=0), replays=SimpleNamespace(same=True)
    )

    def lines(*steps: int) -> list[str]:
        configs = [
            run_config(dqn_config(), exploration=LinearConfig("linear", 1.0, 0.0, n), total_steps=100) for n in steps
        ]
        header = population_header(configs, parts, [Path("sweep/0"), Path("sweep/1")])
        return [line for line in header.splitlines() if line.startswith("epsilon")]

    late = "epsilon   is still 0.50 after total_steps=100, not exploration.end=0: exploration.steps=200"
    assert lines(50, 50) == []
    assert lines(200, 200) == [late]
    assert lines(50, 200) == [f"{late} (the first of 1 such job)"]
    assert lines(200, 400) == [f"{late} (the first of 2 such jobs)"]


def test_more_threads_than_cores_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rltrain.jobs.messages.available_cores", lambda: 2)
    parts: Any = SimpleNamespace(compiled=False, lacks_compiler=False, cuda_graphs=False)
    for threads, said in ((1, "1 thread"), (2, "2 threads"), (64, "64 threads on 2 cores")):
        parts.threads = threads
        assert how(parts) == said
