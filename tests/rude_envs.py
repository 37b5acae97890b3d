"""Environments that leave traces in the process that they run in: `env=rude_envs:Prints-v0` and so on.

Prints-v0        prints when it is imported, made, reset, stepped, closed, and as the interpreter ends
Wanders-v0       goes to another folder: where="init", "reset", or "gone", which removes that folder as well
Steals-v0        takes the signals when="init", "reset" or "step"; its 4th step in all sends `signal` to the run
Closes-v0        how="close": its standard streams; "replace": puts None in their place
Doubles-v0       makes float64 torch's default
Leaves-v0        a thread, named "ticker", that runs for ever
Needs-v0         its reward is the environment variable SIM_REWARD, without which it cannot be made
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import tempfile
import threading
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

LENGTH = 10
"""Steps of an episode, each with a reward of 1."""


class Rude(gymnasium.Env[Any, Any]):
    def __init__(self) -> None:
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return np.full(2, self.t / LENGTH, np.float32), 1.0, self.t == LENGTH, False, {}


class Prints(Rude):
    def __init__(self) -> None:
        super().__init__()
        _print("made")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        _print("reset")
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        _print("step")
        return super().step(action)

    def close(self) -> None:
        _print("closed")


class Wanders(Rude):
    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        if where == "init":
            os.chdir(tempfile.mkdtemp())

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if self.where in ("reset", "gone"):
            os.chdir(tempfile.mkdtemp())
        if self.where == "gone":
            os.rmdir(os.getcwd())
        return super().reset(seed=seed, options=options)


class Needs(Rude):
    def __init__(self) -> None:
        super().__init__()
        self.reward = float(os.environ["SIM_REWARD"])

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, _, terminated, truncated, info = super().step(action)
        return obs, self.reward, terminated, truncated, info


class Steals(Rude):
    def __init__(self, when: str, signal: int) -> None:
        super().__init__()
        self.when, self.signal, self.steps = when, signal, 0
        self._steal("init")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._steal("reset")
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        if self.steps == 4:
            in_worker = "rltrain.envs.worker_process" in sys.modules
            for pid in [os.getpid(), os.getppid()] if in_worker else [os.getpid()]:
                os.kill(pid, self.signal)
        self._steal("step")
        return super().step(action)

    def _steal(self, when: str) -> None:
        if when == self.when:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, _taken)


def _taken(number: int, frame: object) -> None:
    """Does nothing in the run's own process; ends a worker, as the handler that was there before any would."""
    if "rltrain.envs.worker_process" in sys.modules:
        os._exit(1)


class Closes(Rude):
    def __init__(self, how: str) -> None:
        super().__init__()
        if how == "close" and sys.stdout is not None:
            sys.stdout.close()
            sys.stderr.close()
        elif how == "replace":
            sys.stdout = sys.stderr = None  # type: ignore[assignment]


class Doubles(Rude):
    def __init__(self) -> None:
        super().__init__()
        import torch

        torch.set_default_dtype(torch.float64)


class Leaves(Rude):
    def __init__(self) -> None:
        super().__init__()
        threading.Thread(target=threading.Event().wait, name="ticker").start()


def _print(text: str) -> None:
    print(f"{os.environ.get('RUDE', '')}{text}")
    if "RUDE" in os.environ:
        os.write(1, f"C {text}\n".encode())


if "RUDE" in os.environ:
    _print("imported")
    atexit.register(_print, "ended")

for _class in (Prints, Wanders, Steals, Closes, Doubles, Leaves, Needs):
    gymnasium.register(f"{_class.__name__}-v0", entry_point=_class)
