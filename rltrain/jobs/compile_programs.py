"""`python -m rltrain.jobs.compile_programs`: the process that compiles beside a run (compile_beside.py).

It reads from standard input what the run's agent is built from, compiles the agent's programs into the cache of the
compiler, where the run finds them, and ends; niced where there is a core to spare. It ends with the run, however that
ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rltrain.agents import make_agent
from rltrain.engine.protocol import AgentContext
from rltrain.jobs.build import build_envs

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Compiles what standard input, written by the run, asks for."""
    context, threads, parent, gives_way = pickle.load(sys.stdin.buffer)
    _end_with(parent)
    if gives_way:
        _give_way()
    torch.set_num_threads(threads)  # part of a program's identity
    make_all(context)


def make_all(context: AgentContext) -> None:
    """Compiles all programs of an agent."""
    agent: Any = make_agent(replace(context, compile_from=0))
    if context.config.env.vectorization == "compiled":
        envs = build_envs(context.config, context.population)
        try:
            envs.reset()
            agent.make_programs(envs)
        finally:
            envs.close()
    else:
        agent.make_programs(None)


def _give_way() -> None:
    """Lets the run have the cores that it wants."""
    os.nice(19)
    # Where the kernel groups processes by session, and this one has its own, niceness counts within the group alone.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("19")


def _end_with(parent: int) -> None:
    """Has the system kill this process when its parent ends, however that ends."""
    with contextlib.suppress(OSError, AttributeError):  # another system than Linux: the run kills it when it closes
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit()


if __name__ == "__main__":
    main()
