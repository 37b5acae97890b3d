"""`make results`, for tables: Q-learning where the optimum is known exactly, scored exactly.

100 greedy episodes on FrozenLake have a standard error of 0.04, twice the distance to the optimum that is asked for.
So the greedy policy of the final table is valued by dynamic programming through the environment's own model: the
expected return within the time limit, over all first states. The sampled score is shown beside it.

Each row is one sweep, a population of 20 seeds: `rltrain -m <command> 'seed=range(0,20)'`. Runs that are there already
(outputs/results) are kept.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import rltrain
from rltrain.report import curve

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))
from dynamic_programming import Model  # noqa: E402

SEEDS = 20
PICTURES = ("q_values", "learning_curve")
GAMMA = 0.99
"""Of the policy that counts as the optimum; a tuned file may have another."""


@dataclass(frozen=True)
class TableRow:
    """One environment, and how far from its optimum a seed may be."""

    env: str
    within: float

    @property
    def name(self) -> str:
        return f"q_learning_{self.env}"

    @property
    def command(self) -> tuple[str, ...]:
        return "algo=q_learning", f"env={self.env}"


ROWS = (
    TableRow("FrozenLake-v1", 0.02),
    TableRow("FrozenLake8x8-v1", 0.03),
    TableRow("Taxi-v4", 0.13),
    TableRow("CliffWalking-v1", 0.0),
)


@dataclass(frozen=True)
class TableOutcome:
    """What one seed's final table came to."""

    seed: int
    steps: int
    exact: float
    sampled: float


def run(row: TableRow, runs: Path) -> list[TableOutcome]:
    """The row's sweep, trained where it is not there yet or was cut off."""
    sweep = runs / row.name
    if not is_done(row, runs):
        shutil.rmtree(sweep, ignore_errors=True)
        command = [sys.executable, "-m", "rltrain", "-m", *row.command, f"seed=range(0,{SEEDS})"]
        subprocess.run([*command, f"hydra.sweep.dir={sweep}"], cwd=ROOT, check=True)
    model = Model(row.env)
    return [outcome(job, seed, model) for seed, job in enumerate(_jobs(row, runs))]


def is_done(row: TableRow, runs: Path) -> bool:
    return all((job / "result.json").exists() for job in _jobs(row, runs))


def _jobs(row: TableRow, runs: Path) -> list[Path]:
    return [runs / row.name / str(seed) for seed in range(SEEDS)]


def outcome(job: Path, seed: int, model: Model) -> TableOutcome:
    policy, result = rltrain.load(job), json.loads((job / "result.json").read_text())
    greedy = np.array([policy.act(state) for state in range(len(model.starts))])
    return TableOutcome(seed, result["env_step"], model.mean_return(greedy), result["episode_return"]["mean"])


def optimum(env: str) -> float:
    """What the greedy policy of Q* (gamma 0.99) returns within the time limit."""
    model = Model(env)
    return model.mean_return(model.optimal_q(GAMMA).argmax(-1))


def copy_pictures(row: TableRow, folder: Path) -> None:
    """Copies the pictures of the first seed to `folder`."""
    source = ROOT / "outputs" / "results" / row.name / "0"
    curve.plot_learning_curve(source)  # a sweep draws none of its jobs'
    folder.mkdir(parents=True, exist_ok=True)
    for picture in PICTURES:
        shutil.copy(source / f"{picture}.png", folder / f"{row.name}_{picture}.png")


def page(done: Sequence[tuple[TableRow, list[TableOutcome]]]) -> list[str]:
    """The section of docs/results/tuned.md."""
    parts = [
        "## Tabular Q-learning",
        "Where an environment carries its own model, the final table's greedy policy is valued exactly, by dynamic"
        " programming (`benchmarks/tabular.py`): *exact* is its expected return within the time limit (200 steps on the"
        f" cliff), over all first states; *optimum* is that of Q*, by value iteration with gamma {GAMMA}. A larger"
        " gamma can do better within the time limit. *Sampled* is the mean of 100 greedy episodes that every run"
        " reports; on FrozenLake its standard error is about 0.04. Each row is one sweep, seeds 0 to 19.",
        "| command | steps | exact: mean (min to max) | optimum | sampled: mean | within | seeds within |"
        " seeds that are not |\n|---|---|---|---|---|---|---|---|",
    ]
    for row, outcomes in done:
        best, exact = optimum(row.env), np.array([o.exact for o in outcomes])
        far = [o for o in outcomes if o.exact < best - row.within - 1e-9]
        named = ", ".join(f"{o.seed} ({o.exact:.3f})" for o in far) or "none"
        parts[-1] += (
            f"\n| `rltrain {' '.join(row.command)}` | {outcomes[0].steps:,} | {exact.mean():.3f} ({exact.min():.3f} to"
            f" {exact.max():.3f}) | {best:.3f} | {np.mean([o.sampled for o in outcomes]):.2f} | {row.within:g} |"
            f" {len(outcomes) - len(far)} of {len(outcomes)} | {named} |"
        )
    for row, outcomes in done:
        head = "| seed | " + " | ".join(str(o.seed) for o in outcomes) + " |\n|---|" + "---|" * len(outcomes)
        exact_line = "| exact | " + " | ".join(f"{o.exact:.3f}" for o in outcomes) + " |"
        sampled_line = "| sampled | " + " | ".join(f"{o.sampled:.2f}" for o in outcomes) + " |"
        parts += [f"### {row.name}", f"{head}\n{exact_line}\n{sampled_line}"]
        parts += [f"![{picture} of seed 0](tuned/{row.name}_{picture}.png)" for picture in PICTURES]
    return parts
