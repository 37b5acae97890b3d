"""What was measured, as docs/results/performance.md with its picture and as the text that `make bench` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.gpu_page import gpu_blocks
from benchmarks.speed.machine import BUSY
from benchmarks.speed.picture import draw
from benchmarks.speed.programs import WORKS
from benchmarks.speed.tables import spread, table

REFERENCES = ("SB3", "rejax")
STEP_PARTS = (
    *("act", "env step", "observe", "act, step, store", "update", "around an update", "around a block"),
    *("record and log", "rest", "whole"),
)
Part = Mapping[str, Any]


def rates(row: Part) -> list[float]:
    return [run["steps_per_second"] for run in row.get("runs", ())]


def ratio(rows: Part, label: str, reference: str) -> str:
    ours, theirs = rates(rows[label]), rates(rows.get(reference, {}))
    return f"{np.median(ours) / np.median(theirs):.2f}" if ours and theirs else "-"


def throughput_table(part: Part) -> str:
    rows = part["rows"]
    lines = []
    for label, row in rows.items():
        if row["skipped"]:
            lines.append([label, f"not measured: {first_line(row['skipped'])}", "-", "-", "-", "-"])
            continue
        warm, wall = ([run[key] for run in row["runs"]] for key in ("warmup_seconds", "wall_seconds"))
        against = [ratio(rows, label, reference) for reference in REFERENCES]
        lines.append([label, spread(rates(row)), *against, spread(warm, 1), spread(wall, 1)])
    head = ["", "steps/s: median (range)", *(f"over {r}" for r in REFERENCES), "warm-up, s", "whole process, s"]
    return table(head, lines)


def first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "no reason given"


def solved_table(part: Part) -> str:
    lines = []
    for label, row in part["rows"].items():
        if row["skipped"]:
            lines.append([label, f"not measured: {first_line(row['skipped'])}", "-", "-", "-"])
            continue
        warm = row["warm"]
        count = sum(run["solved"] for run in warm)
        cold = spread([run["wall_seconds"] for run in row["cold"]], 1) if "cold" in row else "-"
        steps = [run["env_steps"] for run in warm]
        lines.append(
            [label, f"{count} of {len(warm)}", spread([run["wall_seconds"] for run in warm], 1), cold, spread(steps)]
        )
    return table(["", "solved", "compiler's cache warm, s", "cache empty, s", "environment steps"], lines)


def floor_table(part: Part) -> str:
    lines = []
    for row in part["rows"]:
        products, peak, update = (row[f"{name}_us"] for name in ("products", "peak", "update"))
        lines.append(
            [
                row["hidden"],
                str(row["members"]),
                str(row["threads"]),
                *(f"{value:.0f}" for value in (update, products, peak)),
                f"{update / products:.2f}",
                f"{update / peak:.2f}",
            ]
        )
    return table(
        ["network", "members", "threads", "update", "products", "at peak", "update / products", "update / peak"], lines
    )


def profile_table(part: Part) -> str:
    rows = {label: row["runs"] for label, row in part["rows"].items() if not row["skipped"]}
    if not rows:
        return "Not measured."
    lines = []
    for name in STEP_PARTS:
        cells = [
            "" if name not in runs[0] else f"{np.median([run[name] for run in runs]):.2f}" for runs in rows.values()
        ]
        lines.append([name, *cells])
    return table(["us per environment step", *rows], lines)


def setting(parts: Mapping[str, Part]) -> str:
    """The machines and the dates of the parts, and whether anything else ran."""
    groups: dict[str, list[str]] = {}
    for name, part in parts.items():
        machine = part["machine"]
        text = (
            f"{machine['cpu']} ({machine['vectors']}), {machine['cores']} cores, Python {machine['python']}, torch"
            f" {machine['torch']}, Gymnasium {machine['gymnasium']}; {machine['date']}, commit {machine['commit']}"
        )
        groups.setdefault(text, []).append(name)
    lines = [f"- {text}" + (f": {', '.join(names)}" if len(groups) > 1 else "") for text, names in groups.items()]
    busy = [share for part in parts.values() for share in part["busy"]]
    if max(busy, default=0.0) >= BUSY:
        median = float(np.median(busy))
        lines.append(
            f"- **The machine was not idle**: before a measurement others used {median:.0%} of it (median; at most"
            f" {max(busy):.0%}). Absolute figures are too low, ratios are rough."
        )
    return "\n".join(lines)


TEXTS = {
    "throughput": "Environment steps per second. DQN on CartPole-v1, batch 128, one update per ten environment steps,"
    " a hard copy of the target every 500, replay of 10,000, one-step targets, no double Q-learning, epsilon from 1 to"
    " 0.05 over 10,000 steps. Start-up, compiling and the first updates are left out and stand beside it; rltrain's"
    " logging is in. SB3 runs with one torch thread per process, which is its fastest on small networks, and 32 seeds"
    " in one process per core. rejax runs its training as one compiled program on environments written in JAX, 32"
    " seeds under `vmap`. rltrain runs through its command line, 32 seeds as `-m 'seed=range(0,32)'`; *sync*,"
    " *batched* and *compiled* are `env.vectorization`, and *as it comes* leaves it out. SB3's loss is always Huber"
    " and rejax's always squared; rejax draws without replacement. REINFORCE, on CartPole-v1 with networks of 64-64,"
    " stands beside SB3's A2C, the nearest that SB3 has: 16 environments, one update per 1,024 steps, no bootstrapping"
    " within them (lambda 1). rejax's PPO has a constant learning rate and clips gradients by value. Atari is"
    " ALE/Breakout-v5 with sticky actions, a replay of 20,000 and an update from 32 transitions every 4 steps,"
    " compiled from the start, as it is in a long run from its first minutes on; both programs take all cores.",
    "solved": "Wall time of a whole process that trains until 100 greedy episodes reach a mean of 475, seeds 0 to 4:"
    " `rltrain algo=dqn env=CartPole-v1 stop_at_return=475`; SB3 with RL Zoo's settings, evaluated every 1,000 steps"
    " like rltrain; rejax with its own settings, evaluated every 2,500 steps on 128 episodes. Unsolved runs count with"
    " the time of all their steps (50,000; rejax 100,000).",
    "floor": "One DQN update at batch 128, in microseconds per member; the fastest of its rounds. *update* is the"
    " agent's own learner, compiled: it draws its batch from a full replay, makes the step and writes its metrics, all"
    " members in one program. *products* are its matrix products alone, each one BLAS call; *at peak* is what they"
    " would take at the rate of a large product.",
    "profile": "W1 in a real run whose methods are wrapped, in microseconds per environment step (a vector step of"
    " ten environments takes ten times that); what a method calls is taken off its own time. *update* is the program of"
    " a gradient step. *around an update* is what draws its batch, counts and moves the target; *around a block* is"
    " that for up to 64 vector steps at once, with the episodes that ended in them.",
    "scale": "Does a run's cost per step depend on how far it has come, how many episodes have ended or how large the"
    " replay is, and is its peak memory the replay's bytes plus a constant? Made by `make scale`: epsilon is 1, so"
    " that episodes stay short and every run does the same work.",
}


def render(results: Mapping[str, Part], scale: Part | None, gpu: Part | None, docs: Path) -> str:
    """Writes the page and its picture; returns the page."""
    intro = "Made by `make bench`. Each round measures every program once, in turn.\n\n" + TEXTS["throughput"]
    blocks = ["# Performance", intro, setting(results)]
    if draw(results, docs / "performance" / "speed.png"):
        blocks.append("![Environment steps per second and seconds to solved, by program](performance/speed.png)")
    for name in WORKS:
        if name in results:
            part = results[name]
            blocks += [f"## {part['title']}", f"{part['steps']:,} environment steps per seed.", throughput_table(part)]
    titles = {
        "solved": ("From the shell to solved", solved_table),
        "floor": ("An update over the floor of its matrix products", floor_table),
        "profile": ("Where one environment step's time goes", profile_table),
    }
    for name, (title, make_table) in titles.items():
        if name in results:
            blocks += [f"## {title}", TEXTS[name], make_table(results[name])]
    file = docs / "performance.md"
    before = file.read_text() if file.exists() else ""
    if scale is not None:
        blocks += ["## Scale", TEXTS["scale"], scale["text"], "![Cost per step and memory](performance/scale.png)"]
    else:
        blocks.append(section(before, "Scale"))
    blocks += ["## On a GPU", *gpu_blocks(gpu)] if gpu else [section(before, "On a GPU")]
    page = "\n\n".join(block if block.startswith(("|", "-", "!", "#")) else wrapped(block) for block in blocks if block)
    file.write_text(page + "\n")
    return page


def section(page: str, title: str) -> str:
    """A section of the page as it is; empty where it has none. What takes another machine is not measured each time."""
    _, found, text = page.partition(f"\n## {title}\n")
    return f"## {title}\n" + text.partition("\n## ")[0].rstrip() if found else ""


def wrapped(block: str) -> str:
    return "\n\n".join(textwrap.fill(paragraph, 120, break_on_hyphens=False) for paragraph in block.split("\n\n"))
