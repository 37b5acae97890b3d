"""`make family`: every algorithm, and each part of Rainbow alone, on seeds 0 to 19, and MinAtar on ten:
docs/results/family.md.

Each row is one sweep, `rltrain -m <command> 'seed=range(0,20)'`. What it came to is kept in docs/results/family.json,
from which the page is made, so that rows can be run on different days: ONLY=text runs those whose name contains it
again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from results import DOCS, ROOT, start, write_by_line

from rltrain.report.statistics import iqm, iqm_interval

RUNS = ROOT / "outputs" / "family"
KEPT = DOCS / "family.json"
SEEDS = 20

PARTS = {
    "DQN, one network for both": "algo=dqn algo.double=false",
    "double DQN (`algo=dqn`)": "algo=dqn",
    "dueling": "algo=dqn network=dueling",
    "3-step returns": "algo=dqn algo.n_step=3",
    "prioritized replay": "algo=dqn replay=prioritized",
    "noisy layers": "algo=dqn network.noisy=true exploration=none",
    "Munchausen": "algo=dqn algo.munchausen=0.9 algo.double=false",
    "C51": "algo=c51",
    "QR-DQN": "algo=qr_dqn",
    "IQN": "algo=iqn",
    "Rainbow (`experiment=rainbow`)": "experiment=rainbow",
    "PQN": "algo=pqn",
    "REINFORCE": "algo=reinforce",
    "A2C": "algo=a2c",
    "PPO": "algo=ppo",
}
SUPPORT = {
    "CartPole-v1": "algo.v_min=0 algo.v_max=100",
    "Acrobot-v1": "algo.v_min=-100 algo.v_max=0",
    "MountainCar-v0": "algo.v_min=-90 algo.v_max=0",
}
"""Returns that the atoms of C51 and Rainbow span: they have to be told."""
ON_DEFAULTS = {"CartPole-v1": 50_000, "Acrobot-v1": 50_000}
ON_TUNED = {"MountainCar-v0": 120_000}
"""Environments that default settings do not solve: value methods on DQN's tuned settings, others on defaults."""
TUNED = {
    "CartPole-v1": ("dqn", "c51", "qr_dqn", "iqn", "reinforce", "pqn", "a2c", "ppo"),
    "Acrobot-v1": ("dqn", "reinforce", "pqn", "a2c", "ppo"),
    "MountainCar-v0": ("dqn", "ppo"),
    "LunarLander-v3": ("ppo",),
    "Pendulum-v1": ("reinforce", "a2c", "ppo"),
    "InvertedPendulum-v5": ("reinforce", "a2c", "ppo"),
}
MUJOCO = "MuJoCo, seeds 0 to 9"
ROBOTS = ("HalfCheetah", "Hopper", "Walker2d")
MINATAR = "MinAtar, seeds 0 to 9"
GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")


class Row(NamedTuple):
    """One line of a table."""

    table: str
    name: str
    command: str
    seeds: int = SEEDS

    @property
    def key(self) -> str:
        return f"{self.table}: {self.name}"


class Outcome(NamedTuple):
    """What the seeds of a row came to."""

    finals: list[float]  # mean of 100 greedy episodes of the last network, by seed
    solve_steps: list[int | None]
    areas: list[float]  # mean of the rows of training returns


def rows() -> Iterator[Row]:
    for env, steps in ON_DEFAULTS.items():
        for name, part in PARTS.items():
            spans = f" {SUPPORT[env]}" if "c51" in part or "rainbow" in part else ""
            tuned = "" if "rainbow" in part else " tuned=none"
            yield Row(f"{env}, {steps:,} steps", name, f"{part} env={env}{tuned}{spans} total_steps={steps}")
    for env, steps in ON_TUNED.items():
        for name, part in PARTS.items():
            if "n_step" in part:  # the tuned settings have 12
                name, part = "one-step returns", "algo=dqn algo.n_step=1"
            spans = f" {SUPPORT[env]}" if "rainbow" in part else ""
            yield Row(f"{env}, {steps:,} steps", name, f"{part} env={env}{spans} total_steps={steps}")
    for env, algos in TUNED.items():
        for algo in algos:
            yield Row("Tuned settings", f"{algo} on {env}", f"algo={algo} env={env}")
    for robot in ROBOTS:
        yield Row(MUJOCO, f"ppo on {robot}-v5", f"algo=ppo env={robot}-v5", 10)
    for algo in ("pqn", "ppo"):
        for game in GAMES:
            yield Row(MINATAR, f"{algo} on {game}", f"algo={algo} env=MinAtar/{game}-v1", 10)


def run(row: Row) -> Outcome:
    folder = RUNS / "".join(c if c.isalnum() else "_" for c in row.key)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    seeds_and_place = (f"seed=range(0,{row.seeds})", f"hydra.sweep.dir={folder}")
    start(["-m", *row.command.split(), *seeds_and_place], folder.with_suffix(".log"))
    results = [json.loads((folder / str(job) / "result.json").read_text()) for job in range(row.seeds)]
    finals = [result["episode_return"]["mean"] for result in results]
    areas = [mean_training_return(folder / str(job) / "metrics.jsonl") for job in range(row.seeds)]
    return Outcome(finals, [result["solve_step"] for result in results], areas)


def mean_training_return(metrics: Path) -> float:
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    return float(np.mean([row["rollout/episode_return"] for row in rows if "rollout/episode_return" in row]))


def interval(values: list[float]) -> str:
    low, high = iqm_interval([np.array(values)]) or (np.nan, np.nan)
    return f"{float(iqm(np.array(values))):.1f} [{low:.1f}, {high:.1f}]"


def solved(row: Row, outcome: Outcome) -> str:
    if any(f"env={name}" in row.command for name in ("Pendulum", "MinAtar", "Walker2d")):
        return "no threshold"
    found = sum(step is not None for step in outcome.solve_steps)
    median = np.median([np.inf if step is None else step for step in outcome.solve_steps])
    return f"{found} of {row.seeds}" + (f", median {median:,.0f}" if np.isfinite(median) else "")


def table(wanted: list[Row], outcomes: Mapping[str, Outcome]) -> list[str]:
    lines = [
        "| | command | final return: IQM [95 %] | median (min to max) | reached, solve step | area: IQM |",
        "|---|---|---|---|---|---|",
    ]
    for row in wanted:
        found = outcomes[row.key]
        spread = f"{np.median(found.finals):.0f} ({min(found.finals):.0f} to {max(found.finals):.0f})"
        lines.append(
            f"| {row.name} | `{row.command}` | {interval(found.finals)} | {spread} | {solved(row, found)} | "
            f"{float(iqm(np.array(found.areas))):.1f} |"
        )
    return lines


def draw(wanted: list[Row], outcomes: Mapping[str, Outcome], title: str, path: Path) -> None:
    """Every seed a dot, the interquartile mean with its interval a line, one row below the other."""
    figure = Figure(figsize=(7, 0.7 + 0.32 * len(wanted)), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(wanted):
        finals = np.array(outcomes[row.key].finals)
        axes.plot(finals, np.full(len(finals), place), ".", color="tab:blue", alpha=0.35)
        if ends := iqm_interval([finals]):
            axes.plot(ends, (place, place), color="tab:orange", linewidth=3, solid_capstyle="round")
        axes.plot(float(iqm(finals)), place, "|", color="black", markersize=11, markeredgewidth=2)
    axes.set(yticks=range(len(wanted)), xlabel="final greedy return", title=title)
    axes.set_yticklabels([row.name.replace("`", "") for row in wanted])
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(path)


INTRODUCTION = (
    "Made by `make family`: seeds 0 to 19, each row one sweep `rltrain -m <command> 'seed=range(0,20)'`. *Final* is the"
    " last network's mean over 100 greedy episodes, *IQM* the interquartile mean over seeds with its 95 % interval,"
    " *area* the mean of the logged training returns. *Reached* counts the seeds of which an evaluation was at the"
    " environment's threshold, also where the last network is not; *solve step* is that of the first."
    " Runs end early, once they are solved, only under tuned settings.",
    "The first tables compare parts on **default settings**, tuned for none of them: they say what a switch does when"
    " it is thrown and nothing else is touched, not what it can reach. The learning rate in Rainbow's file was chosen"
    " of two on seeds 1000 to 1002 of CartPole and Acrobot. Networks with noisy layers are evaluated by their means"
    " alone, which on Acrobot [get stuck](../diagnostics.md#how-to-read-them) where the noise of training goes on."
    " *Tuned settings* is of tuned settings (`conf/tuned`, chosen on seeds from 1000 up). Parts that are not in a"
    " table have not been run yet.",
    "MountainCar, which DQN's defaults do not solve, has its parts, and C51, QR-DQN and IQN, on DQN's tuned settings,"
    " among them returns of twelve steps and random actions that are held for a while, which noisy layers replace:"
    " without them the goal is never reached. Rainbow is on those of its file, PPO on its own, for 500,000 steps; PQN,"
    " REINFORCE and A2C are on defaults.",
    "MinAtar: `-v1` games (the actions that do something), sticky actions and rising difficulty as the package has"
    " them, episodes cut at 5,000 steps, seeds 0 to 9, 400,000 steps, one file of settings for all games with each"
    " algorithm. Young and Tian (2019) report of DQN after 5,000,000 frames about 17 on Asterix, 10 on Breakout, 50 on"
    " Freeway and 45 on Space Invaders, with epsilon-greedy actions.",
    "MuJoCo: 1,000,000 steps, seeds 0 to 9, one file of settings for all robots. RL Zoo's PPO, tuned for each, has 5819"
    " on HalfCheetah-v3, 2410 on Hopper-v3 and 3479 on Walker2d-v3, one run each.",
)


def write_page(outcomes: Mapping[str, Outcome]) -> None:
    done = [row for row in rows() if row.key in outcomes]
    parts = ["# The family", *INTRODUCTION]
    for name in dict.fromkeys(row.table for row in done):
        wanted = [row for row in done if row.table == name]
        parts += [f"## {name}", "\n".join(table(wanted, outcomes))]
        if name != "Tuned settings":
            picture = DOCS / "family" / f"{name.split(',')[0]}.png"
            draw(wanted, outcomes, name, picture)
            parts.append(f"![final returns](family/{picture.name})")
    (DOCS / "family.md").write_text("\n\n".join(parts) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=None, help="runs the rows whose name contains this, also those that are kept")
    parser.add_argument("--render", action="store_true", help="runs nothing, makes the page")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="sweeps side by side")
    options = parser.parse_args()
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    outcomes = {key: Outcome(**found) for key, found in kept.items()}
    asked = [row for row in rows() if (row.key not in outcomes if options.only is None else options.only in row.key)]

    def run_and_keep(row: Row) -> None:
        outcomes[row.key] = run(row)
        write_by_line(KEPT, {key: found._asdict() for key, found in outcomes.items()})
        print(row.key, interval(outcomes[row.key].finals), flush=True)

    if not options.render:
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(run_and_keep, asked))
    write_page(outcomes)


if __name__ == "__main__":
    main()
