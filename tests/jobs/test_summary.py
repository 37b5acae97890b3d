"""The table at the end of a run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from small_runs import q_learning_config, reinforce_config, run_config

from rltrain.jobs.messages import summary
from rltrain.training.episode_tally import EpisodeStatistics


def test_a_run_too_short_for_an_update_says_so() -> None:
    config = run_config(reinforce_config(), total_steps=10)
    table = run_config(q_learning_config(), total_steps=10)
    trainer: Any = SimpleNamespace(step=12, episodes=0, train_seconds=2.0, solve_step=None)
    final = EpisodeStatistics((1.0,))
    unchanged = "; no update was due: the network is as it began"
    for of, made, said in ((config, 0, unchanged), (config, 1, ""), (table, 0, "")):
        parts: Any = SimpleNamespace(
            agent=SimpleNamespace(gradient_steps=made), envs=SimpleNamespace(reward_threshold=None, draws=False)
        )
        lines = summary(of, trainer, final, parts, Path("run"), {}).splitlines()
        assert lines[1] == f"trained         12 steps, 0 episodes, 6 steps/s{said}"
