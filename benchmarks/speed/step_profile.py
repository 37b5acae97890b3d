"""Where one environment step's time goes: `python -m benchmarks.speed.step_profile [key=value ...]`, one JSON line.

The methods of a real run with a run's loggers are wrapped, and what a wrapped method calls is taken off its own
time; so is the wrappers' own cost, measured on a method that does nothing. `rest` is the loop itself. Microseconds per
environment step, after compiling and the first updates.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.speed.programs import WORKS
from rltrain.config.application import compose
from rltrain.engine.protocol import StateDict
from rltrain.jobs.build import build
from rltrain.loggers.jsonl import JsonlLogger
from rltrain.loggers.logger import MultiLogger
from rltrain.loggers.tensorboard import TensorBoardLogger
from rltrain.training.evaluator import Evaluator
from rltrain.training.loop import Loop
from rltrain.training.member import Output

WARM_STEPS, STEPS = 4_000, 40_000


class Clock:
    """Own time by name: of a wrapped method less that of the wrapped methods it calls."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self._inner = [0.0]

    def wrap(self, owner: Any, method: str, name: str) -> None:
        inner = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            start = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                spent = time.perf_counter() - start
                self.seconds[name] += spent - self._inner.pop()
                self._inner[-1] += spent
                self.calls[name] += 1

        setattr(owner, method, timed)


class NoCheckpoints:
    def save(self, step: int, state: StateDict) -> None:
        pass

    def save_best(self, step: int, state: StateDict) -> None:
        pass

    def prune(self) -> None:
        pass

    def film(self, step: int, state: StateDict) -> None:
        pass


class Idle:
    def nothing(self) -> object:
        return None


class StopAt:
    """Asks the loop to stop once `due` says so."""

    def __init__(self) -> None:
        self.due: Callable[[], bool] = lambda: False

    @property
    def requested(self) -> bool:
        return self.due()

    def take_save_request(self) -> bool:
        return False


def seconds_of(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def wrapper_cost() -> tuple[float, float]:
    """Seconds that a wrapper adds to a call, and the part of them that it counts as the method's own time."""
    clock, plain, wrapped, calls = Clock(), Idle(), Idle(), 20_000
    clock.wrap(wrapped, "nothing", "idle")
    bare = seconds_of(lambda: [plain.nothing() for _ in range(calls)])
    whole = seconds_of(lambda: [wrapped.nothing() for _ in range(calls)])
    return (whole - bare) / calls, max(0.0, clock.seconds["idle"] - bare) / calls


def wrap_all(clock: Clock, loop: Loop, agent: Any, envs: Any) -> None:
    if envs.stepped_by_agent:
        clock.wrap(agent._stepper, "step", "act, step, store")
        clock.wrap(agent, "iterate", "around a block")
        clock.wrap(loop._recorder, "add_block", "record and log")
    else:
        clock.wrap(agent, "act", "act")
        clock.wrap(envs, "step", "env step")
        clock.wrap(agent, "observe", "observe")
        clock.wrap(agent, "update", "around an update")
        clock.wrap(loop._recorder, "add", "record and log")
    clock.wrap(agent._learner, "learn", "update")
    clock.wrap(loop, "_do_duties", "record and log")


def profile(overrides: list[str]) -> dict[str, float]:
    config, _ = compose([*WORKS["w1"], f"total_steps={WARM_STEPS + STEPS}", *overrides])
    stop: Any = StopAt()
    with tempfile.TemporaryDirectory() as folder, build(config) as parts:
        logger = MultiLogger([JsonlLogger(Path(folder) / "metrics.jsonl", None), TensorBoardLogger(Path(folder))])
        evaluator = Evaluator(config.env, config.seed, 1)
        outputs = [Output(logger, NoCheckpoints())]
        loop = Loop([config], parts.envs, parts.agent, evaluator, outputs, parts.device, stop)
        stop.due = lambda: loop.step >= WARM_STEPS
        loop.run()
        stop.due = lambda: False
        clock, from_step = Clock(), loop.step
        wrap_all(clock, loop, parts.agent, parts.envs)
        seconds = seconds_of(loop.run)
        logger.close()
    added, counted = wrapper_cost()
    us = 1e6 / (loop.step - from_step)
    own = {name: max(0.0, clock.seconds[name] - counted * clock.calls[name]) * us for name in clock.seconds}
    whole = (seconds - added * clock.calls.total()) * us
    return {**own, "rest": whole - sum(own.values()), "whole": whole}


def main() -> None:
    print(json.dumps(profile(sys.argv[1:])))


if __name__ == "__main__":
    main()
