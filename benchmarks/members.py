"""Whether members of a population do as well as single runs: `python -m benchmarks.members`, or `make members`.

The same 32 seeds train one by one and as one program. Two numbers of each run are compared: the final network's greedy
return, and the mean return of all training episodes. A member and the single run of its seed drift apart by rounding
after some updates, so the numbers differ by seed; their distributions must not. Writes docs/populations.md and its
picture.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np

ROOT = Path(__file__).parents[1]
OUTPUTS = ROOT / "outputs" / "members"
PAGE = ROOT / "docs" / "populations.md"
PICTURE = ROOT / "docs" / "populations" / "members.png"
SEEDS = 32
COMMON = (
    *("algo=dqn", "env=CartPole-v1", "env.vectorization=batched", "total_steps=12_000", "stop_at_return=null"),
    "device.compile=true",
)
LAUNCHERS = {"single runs": "basic", "members": "population"}
QUANTITIES = {"final greedy return": "final", "mean return while training": "training"}
PERMUTATIONS = 20_000


def train(launcher: str) -> Path:
    """The sweep's folder; a finished one is kept."""
    folder = OUTPUTS / launcher
    if len(list(folder.glob("*/result.json"))) < SEEDS:
        command = [sys.executable, "-m", "rltrain", "-m", *COMMON, f"seed=range(0,{SEEDS})"]
        subprocess.run([*command, f"hydra/launcher={launcher}", f"hydra.sweep.dir={folder}"], check=True, cwd=ROOT)
    return folder


def outcome(run: Path) -> dict[str, float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    returns = [row["rollout/episode_return"] for row in rows if "rollout/episode_return" in row]
    return {
        "final": json.loads((run / "result.json").read_text())["episode_return"]["mean"],
        "training": float(np.mean(returns)),
    }


def kolmogorov_smirnov(a: np.ndarray, b: np.ndarray) -> float:
    """The largest distance between the two empirical distribution functions."""
    at = np.concatenate([a, b])
    distance = np.abs((a[:, None] <= at).mean(0) - (b[:, None] <= at).mean(0))
    return float(distance.max())


def p_value(a: np.ndarray, b: np.ndarray) -> float:
    """How often runs dealt out to the two groups by chance are at least as far apart."""
    rng, both, found = np.random.default_rng(0), np.concatenate([a, b]), kolmogorov_smirnov(a, b)
    shuffled = (rng.permutation(both) for _ in range(PERMUTATIONS))
    return float(np.mean([kolmogorov_smirnov(s[: len(a)], s[len(a) :]) >= found - 1e-12 for s in shuffled]))


def draw(outcomes: dict[str, list[dict[str, float]]]) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(QUANTITIES), figsize=(9, 3.4), layout="constrained")
    for axis, (label, key) in zip(axes, QUANTITIES.items(), strict=True):
        for name, runs in outcomes.items():
            axis.ecdf([run[key] for run in runs], label=name)
        axis.set(xlabel=label, ylabel=f"share of {SEEDS} seeds", ylim=(0, 1))
    axes[0].legend()
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


def page(outcomes: dict[str, list[dict[str, float]]]) -> str:
    rows = []
    for label, key in QUANTITIES.items():
        single, member = (np.array([run[key] for run in outcomes[name]]) for name in LAUNCHERS)
        quartiles = [" / ".join(f"{q:,.0f}" for q in np.percentile(x, [25, 50, 75])) for x in (single, member)]
        apart = f"{kolmogorov_smirnov(single, member):.2f} | {p_value(single, member):.2f}"
        rows.append(f"| {label} | {quartiles[0]} | {quartiles[1]} | {apart} |")
    return "\n".join(
        [
            "# Members of a population and single runs",
            "",
            f"Made by `make members`: `rltrain -m {' '.join(COMMON)} 'seed=range(0,{SEEDS})'`, once with",
            "`hydra/launcher=basic`, which trains one run after the other, and once with `hydra/launcher=population`.",
            "A member draws the same random numbers as the single run of its seed and computes the same up to rounding",
            "([why](adr/0007-populations.md)). Where rounding differs, learning amplifies it, and the two part, as two",
            "computers would. What must not differ is how well they do: over seeds, the distributions.",
            f"Here both numbers are the same for {_equal(outcomes)} of {SEEDS} seeds.",
            "",
            "| | single runs: quartiles | members: quartiles | largest distance of the distributions | p |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "The *distance* is Kolmogorov's and Smirnov's; *p* is how often runs that are dealt out to two groups by",
            "chance are at least as far apart.",
            "",
            "![distributions](populations/members.png)",
            "",
        ]
    )


def _equal(outcomes: dict[str, list[dict[str, float]]]) -> int:
    single, member = outcomes.values()
    return sum(a == b for a, b in zip(single, member, strict=True))


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    outcomes = {}
    for name, launcher in LAUNCHERS.items():
        runs = sorted(path.parent for path in train(launcher).glob("*/result.json"))
        outcomes[name] = [outcome(run) for run in runs]
    draw(outcomes)
    PAGE.write_text(page(outcomes))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
