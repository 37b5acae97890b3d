"""What `make bench-gpu` has kept, as a section of docs/results/performance.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.speed.tables import table

TEXTS = {
    "updates": "One gradient step of DQN at batch 128, in microseconds for all members together, the median of ten"
    " rounds of the agent's own learner with a replay that is full. *captured* is a CUDA graph of the eager kernels,"
    " *compiled* is `torch.compile` without one, *both* a graph of the compiled kernels.",
    "iterations": "Vector steps of ten CartPoles per member with a gradient step each, in environment steps per second,"
    " by the agents and environments of real runs, without logging: the environments batched in NumPy, and all on the"
    " GPU (`env.vectorization=compiled`).",
    "training": "Training from the command line as above, logging included, with CUDA graphs and nothing compiled. SB3"
    " trains on the same GPU.",
}


def gpu_blocks(gpu: Mapping[str, Any]) -> list[str]:
    machine = gpu["machine"]
    blocks = [
        f"- {gpu['gpu']}, {machine['cores']} cores, Python {machine['python']}, torch"
        f" {machine['torch']}; {machine['date']}, commit {machine['commit']}"
    ]
    blocks += [gpu["note"]] if "note" in gpu else []
    for name, make in (("updates", _updates), ("iterations", _iterations), ("training", _training)):
        if name in gpu:
            blocks += [TEXTS[name], make(gpu[name])]
    return blocks


def _updates(rows: list[dict[str, Any]]) -> str:
    ways = ("eager", "captured", "compiled", "both")
    alone = {row["hidden"]: row for row in rows if row["members"] == 1}
    lines = []
    for row in rows:
        times = [f"{row[way]:,.0f}" if way in row else "" for way in ways]
        best = min((way for way in ways if way in row), key=lambda way: float(row[way]))
        of_one = [
            f"{row[way] / alone[row['hidden']][way]:.2f}" if way in row and way in alone[row["hidden"]] else ""
            for way in ("captured", "both")
        ]
        gained = f"{row['eager'] / row['captured']:.1f}", f"{row['eager'] / row[best]:.1f}"
        lines.append([row["hidden"], str(row["members"]), *times, *gained, *of_one])
    head = ["network", "members", *ways, "eager / captured", "eager / best", "captured, over one", "both, over one"]
    return table(head, lines)


def _iterations(rows: list[dict[str, Any]]) -> str:
    head = ["members", "batched", "all on the GPU", "and compiled", "ratio"]
    lines = [
        [
            str(row["members"]),
            *(f"{row[name]:,.0f}" if name in row else "" for name in ("batched", "compiled", "both")),
            f"{max(row['compiled'], row.get('both', 0.0)) / row['batched']:.2f}",
        ]
        for row in rows
    ]
    return table(head, lines)


def _training(rows: list[dict[str, Any]]) -> str:
    lines = [
        [
            row["work"].upper(),
            row["program"],
            f"{row['steps_per_second']:,.0f}",
            row["over_sb3"],
            f"{row['wall_seconds']:.1f}",
        ]
        for row in rows
    ]
    return table(["work", "program", "steps/s", "over SB3", "whole process, s"], lines)
