"""The programs that are measured, each run as a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from benchmarks.speed.machine import ROOT

BENCH = ROOT / "outputs" / "bench"
VENVS = ROOT / "benchmarks" / ".venvs"
RIVALS = ROOT / "benchmarks" / "rivals"
Outcome = dict[str, Any]


class Skipped(Exception):
    """A program that cannot do this work, or failed; says why."""


@dataclass(frozen=True)
class Work:
    """Environment steps of one seed, and those before the clock starts (compiling, the first updates)."""

    name: str
    title: str
    steps: int
    skip: int
    programs: tuple[str, ...] = ()  # the labels of those that do it; all where none are named


def _run(command: Sequence[str], env: Mapping[str, str] | None = None) -> tuple[str, float]:
    """What it printed, and its wall time in seconds."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **(env or {})})
    seconds = time.perf_counter() - start
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise Skipped(tail if done.returncode == 2 else f"ended with {done.returncode}: {tail}")
    return done.stdout, seconds


def json_of(module: str, *arguments: str) -> Outcome:
    """The line of JSON that a module of this project prints last."""
    text, _ = _run([sys.executable, "-m", module, *arguments])
    result: Outcome = json.loads(text.strip().splitlines()[-1])
    return result


@dataclass(frozen=True)
class Rival:
    """A trainer in an environment of its own, driven by `benchmarks/rivals/<name>_bench.py`."""

    name: str
    label: str
    skips: bool  # whether its program takes the steps before the clock starts
    cannot: Mapping[str, str] = field(compare=False)  # works that its settings do not allow

    def install(self) -> None:
        """Makes `benchmarks/.venvs/<name>`, unless its pins are installed already."""
        folder, pins = VENVS / self.name, RIVALS / f"{self.name}.txt"
        stamp = folder / "installed.txt"
        if stamp.exists() and stamp.read_text() == pins.read_text():
            return
        print(f"installing {self.label} into {folder.relative_to(ROOT)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        constraints = ["-c", str(ROOT / "constraints.txt")] if self.name == "sb3" else []
        subprocess.run([*pip, *constraints, "-r", str(pins)], check=True)
        stamp.write_text(pins.read_text())

    def measure(self, work: Work, *more: str) -> Outcome:
        if work.name in self.cannot:
            raise Skipped(self.cannot[work.name])
        skip = ["--skip", str(work.skip)] if self.skips else []
        text, wall = self._call([work.name, "--steps", str(work.steps), *skip, *more], {})
        return {**json.loads(text.strip().splitlines()[-1]), "wall_seconds": wall}

    def solve(self, seed: int, cache: Path) -> Outcome:
        env = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        text, wall = self._call(["solved", "--seed", str(seed)], env)
        return {**json.loads(text.strip().splitlines()[-1]), "wall_seconds": wall}

    def _call(self, arguments: list[str], env: Mapping[str, str]) -> tuple[str, float]:
        script = RIVALS / f"{self.name}_bench.py"
        return _run([str(VENVS / self.name / "bin" / "python"), "-W", "ignore", str(script), *arguments], env)


ALONE = ("env=CartPole-v1", "tuned=none", "device=cpu", "eval.period=null", "checkpoint.period=null")
DQN = (
    *(
        "algo=dqn",
        *ALONE,
        "device.compile=true",
        "algo.n_step=1",
        "algo.double=false",
        "algo.batch_size=128",
        "algo.train_period=10",
    ),
    *("algo.gradient_steps=1", "algo.buffer_size=10_000", "algo.learning_starts=1_000", "target_update=hard"),
    *("target_update.period=500", "exploration=linear", "exploration.end=0.05", "exploration.steps=10_000"),
)
W1 = (*DQN, "num_envs=10", "network.hidden=[64,64]", "algo.loss=huber", "algo.optimizer.lr=5e-4")
REINFORCE = ("algo=reinforce", *ALONE, "num_envs=16", "algo.episodes_per_update=16")
# The defaults: four environments, 128 steps, four minibatches, four epochs.
PPO = ("algo=ppo", *ALONE, "device.compile=true")
WORKS = {
    "w1": W1,
    "w32": ("-m", *W1, "seed=range(0,32)"),
    "cleanrl": (*DQN, "num_envs=1", "network.hidden=[120,84]", "algo.loss=mse", "algo.optimizer.lr=2.5e-4"),
    "reinforce": REINFORCE,
    "reinforce32": ("-m", *REINFORCE, "seed=range(0,32)"),
    "ppo": PPO,
    "ppo32": ("-m", *PPO, "seed=range(0,32)"),
    "atari": (
        *("algo=dqn", "env=ALE/Breakout-v5", "device=cpu", "eval.period=null", "checkpoint.period=null"),
        *("algo.buffer_size=20_000", "algo.learning_starts=500", "log_period=500", "device.compile=true"),
    ),
}


@dataclass(frozen=True)
class Ours:
    """rltrain through its command line.

    The rate is that of the run's own rows: environment steps between the first row at or after `skip` and the last,
    over the time in which they were written. So start-up, compiling and the 100 greedy episodes at the end are left
    out, as with the others, and logging is not. Of many seeds the steps are added, and the time is that in which at
    least one of them was between its rows: one after the other and all at once are counted alike.
    """

    label: str
    overrides: tuple[str, ...]

    def measure(self, work: Work) -> Outcome:
        with tempfile.TemporaryDirectory(dir=BENCH) as folder:
            kind = "sweep" if WORKS[work.name][0] == "-m" else "run"
            arguments = [*WORKS[work.name], *self.overrides, f"total_steps={work.steps}"]
            _, wall = self._call([*arguments, f"hydra.{kind}.dir={folder}/runs"], {})
            spans = [_span(path, work.skip) for path in sorted(Path(folder).glob("runs/**/events.out.tfevents.*"))]
        steps, seconds = sum(span.steps for span in spans), covered([(span.start, span.end) for span in spans])
        return {
            "steps_per_second": steps / seconds,
            "warmup_seconds": min(span.start for span in spans) - min(span.begun for span in spans),
            "steps": steps,
            "seconds": seconds,
            "wall_seconds": wall,
        }

    def solve(self, seed: int, cache: Path) -> Outcome:
        with tempfile.TemporaryDirectory(dir=BENCH) as folder:
            run = Path(folder) / "run"
            arguments = ["algo=dqn", "env=CartPole-v1", "stop_at_return=475", f"seed={seed}", *self.overrides]
            _, wall = self._call([*arguments, f"hydra.run.dir={run}"], {"TORCHINDUCTOR_CACHE_DIR": str(cache)})
            result = json.loads((run / "result.json").read_text())
        limit = 50_000  # of the tuned settings: the run ends before only when it is solved
        solved = result["solve_step"] is not None and result["env_step"] < limit
        final = result["episode_return"]["mean"]
        return {"solved": solved, "env_steps": result["env_step"], "final": final, "wall_seconds": wall}

    def _call(self, arguments: list[str], env: Mapping[str, str]) -> tuple[str, float]:
        return _run([str(Path(sys.executable).with_name("rltrain")), *arguments], env)


class Span(NamedTuple):
    """The rows of one run between which it is timed."""

    begun: float  # when the run began to write
    start: float
    end: float
    steps: int


def _span(events: Path, skip: int) -> Span:
    begun, rows = None, []
    for event in EventFileLoader(str(events)).Load():
        begun = event.wall_time if begun is None else begun
        if event.step >= skip and any(value.tag == "time/steps_per_second" for value in event.summary.value):
            rows.append((event.wall_time, event.step))
    if len(rows) < 2 or begun is None:
        raise RuntimeError(f"{events.name}: fewer than two rows after step {skip}")
    return Span(begun, rows[0][0], rows[-1][0], rows[-1][1] - rows[0][1])


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Seconds during which at least one interval is open."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
