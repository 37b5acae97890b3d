"""Whether a run's cost per step stays what it is: docs/results/performance/scale.png and the figures of its section.
Run as `python -m benchmarks.scale`.

Two questions, each asked of runs through the command line. A long run of random actions, which ends an episode every
two dozen steps: does a step cost more the further the run is and the more episodes have ended? Runs with replays of
10,000 to 1,000,000 transitions, filled before the first update and saved at the end: what does a step cost with the
replay full, and how much memory does the process need at most? Those runs take turns, so that a slow minute of the
machine does not fall on one size. `--short` makes everything smaller.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from benchmarks.speed.machine import BUSY, ROOT, busy_share

OUT, DOCS = ROOT / "outputs" / "bench", ROOT / "docs" / "results" / "performance"
TURNS = 2
TRANSITION_BYTES = 4 * 4 * 2 + 8 + 4 + 4  # obs, next_obs, action, reward, discount of CartPole-v1
SETTINGS = (
    *("algo=dqn", "env=CartPole-v1", "tuned=none", "device=cpu", "device.compile=true", "num_envs=10"),
    *("network.hidden=[64,64]", "algo.train_period=10", "exploration=constant", "exploration.end=1.0"),
    *("eval.period=null", "checkpoint.period=null", "log_period=2_000"),
)


@dataclass(frozen=True)
class Run:
    """Rows of one run: environment steps, wall time in seconds, mean length of the episodes that ended since."""

    steps: np.ndarray  # [R]
    times: np.ndarray  # [R]
    lengths: np.ndarray  # [R]
    peak_bytes: int

    def us_per_step(self, after: int) -> tuple[np.ndarray, np.ndarray]:
        """Environment steps [R - 1] and microseconds per step [R - 1] between rows, from the row `after` on."""
        keep = self.steps >= after
        steps, times = self.steps[keep], self.times[keep]
        return steps[1:], np.diff(times) / np.diff(steps) * 1e6


def train(total_steps: int, *overrides: str) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        rltrain = str(Path(sys.executable).with_name("rltrain"))
        command = [rltrain, *SETTINGS, f"total_steps={total_steps}", *overrides, f"hydra.run.dir={run}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        times = written_at(next(run.glob("events.out.tfevents.*")))
    rows = [row for row in rows if "time/steps_per_second" in row]
    return Run(
        np.array([row["step"] for row in rows]),
        np.array([times[row["step"]] for row in rows]),
        np.array([row.get("rollout/episode_length", np.nan) for row in rows]),
        usage.ru_maxrss * 1024,
    )


def written_at(events: Path) -> dict[int, float]:
    """Wall time by environment step."""
    return {event.step: event.wall_time for event in EventFileLoader(str(events)).Load() if event.step}


def smooth(values: np.ndarray, width: int = 9) -> np.ndarray:
    """Running median; the ends see what there is of their window."""
    half = width // 2
    return np.array([np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))])


def growth(values: np.ndarray) -> float:
    """Median of the last quarter over that of the first."""
    quarter = max(1, len(values) // 4)
    return float(np.median(values[-quarter:]) / np.median(values[:quarter]))


def draw_length(axes: Axes, run: Run, after: int) -> str:
    steps, us = run.us_per_step(after)
    episodes = float(np.nansum(np.diff(run.steps, prepend=0) / run.lengths))
    axes.plot(steps, us, ".", color="tab:blue", alpha=0.25, markersize=4)
    axes.plot(steps, smooth(us), color="tab:blue", linewidth=1.8)
    axes.set(xlabel="environment steps", ylabel="µs per environment step", ylim=(0, 2.2 * np.median(us)))
    axes.set_title(f"Run length: {episodes:,.0f} episodes ended", fontsize=10, loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return (
        f"- Run length: over {run.steps[-1]:,} steps and {episodes:,.0f} episodes, the last quarter's cost per step is"
        f" {growth(us):.2f} times the first quarter's ({np.median(us):.0f} us)."
    )


def draw_replay(axes: Axes, turns: dict[int, list[Run]]) -> str:
    sizes = list(turns)
    costs = [np.concatenate([run.us_per_step(size + 4_000)[1] for run in runs]) for size, runs in turns.items()]
    medians = [float(np.median(cost)) for cost in costs]
    low, high = ([float(np.percentile(cost, q)) for cost in costs] for q in (25, 75))
    axes.fill_between(sizes, low, high, alpha=0.2, linewidth=0)
    axes.plot(sizes, medians, "o-", color="tab:blue")
    axes.set(xscale="log", xlabel="transitions in the replay", ylabel="µs per environment step")
    axes.set_ylim(0, 2.2 * max(medians))
    axes.set_title("Replay size", fontsize=10, loc="left")
    pairs = ", ".join(f"{size:,}: {cost:.0f} us" for size, cost in zip(sizes, medians, strict=True))
    return f"- Replay size: cost per step with the replay full, {pairs}."


def draw_memory(axes: Axes, turns: dict[int, list[Run]]) -> str:
    replay = np.array(list(turns)) * TRANSITION_BYTES / 1e6
    peak = np.array([max(run.peak_bytes for run in runs) for runs in turns.values()]) / 1e6
    rest = peak - replay
    axes.plot(replay, peak, "o-", color="tab:blue", label="peak of the process")
    axes.plot(replay, rest[0] + replay, "--", color="tab:gray", label="replay + constant")
    axes.set(xlabel="bytes of the replay, MB", ylabel="MB", ylim=(0, 1.4 * peak.max()))
    axes.set_title("Memory", fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    pairs = ", ".join(f"{size:.1f} MB: {value:,.0f} MB" for size, value in zip(replay, rest, strict=True))
    return f"- Memory: peak of the process less the replay's bytes, {pairs}."


def measure_replays(sizes: Sequence[int]) -> dict[int, list[Run]]:
    """Runs by the size of their replay, which they fill."""
    turns: dict[int, list[Run]] = {size: [] for size in sizes}
    for _ in range(TURNS):
        for size in sizes:
            filled = (f"algo.buffer_size={size}", f"algo.learning_starts={size}", "checkpoint.replay=true")
            turns[size].append(train(size + 40_000, *filled))
    return turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a fifth of the long run, replays to 300,000")
    options = parser.parse_args()
    busy = busy_share()
    turns = measure_replays((10_000, 100_000, 300_000) if options.short else (10_000, 100_000, 1_000_000))
    run = train(200_000 if options.short else 1_000_000, "algo.buffer_size=50_000")
    figure = Figure(figsize=(11, 3.2), dpi=120, layout="constrained")
    axes = figure.subplots(1, 3)
    lines = [draw_length(axes[0], run, 4_000), draw_replay(axes[1], turns), draw_memory(axes[2], turns)]
    if busy >= BUSY:
        lines.append(f"- **The machine was not idle**: others used {busy:.0%} of it. The costs per step are rough.")
    for panel in axes:
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    DOCS.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(DOCS / "scale.png")
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "scale.json").write_text(json.dumps({"text": "\n".join(lines)}) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
