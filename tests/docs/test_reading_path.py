"""CONTRIBUTING's reading list is the path of a traced run: from the loop to the line that changes a weight."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, cast

import pytest
import torch
from small_runs import dqn_config, env_config, run_config

import rltrain
from rltrain.agents import make_agent
from rltrain.engine.off_policy import OffPolicyAgent
from rltrain.engine.protocol import AgentContext
from rltrain.jobs.build import build_envs
from rltrain.training.loop import Loop
from rltrain.training.member import Output

PACKAGE = Path(rltrain.__file__).parent
CONTRIBUTING = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
PASSED_THROUGH = {
    "compute/compiling.py", "compute/recorded.py",  # which run any procedure
    "networks/flat.py", "networks/mlp.py", "networks/encoder.py",  # the function that is learned
    "engine/algorithm.py", "engine/protocol.py", "experience/batch.py",  # the types of what is handed on
}  # fmt: skip
MOST_FILES, MOST_LINES = 7, 750


class Trace:
    """What a vector step enters, up to and including the change of `weights`."""

    def __init__(self, weights: torch.Tensor) -> None:
        self._weights = weights
        self.entered: list[CodeType] = []
        self.stack: list[CodeType] = []  # when the weights are written, outermost first
        self.procedure: list[CodeType] = []  # that writes them, and what it enters

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            self.entered.append(frame.f_code)
        elif event == "return" and self.stack and frame.f_code is self.stack[-1] and not self.procedure:
            self.procedure = self.entered[self.entered.index(frame.f_code) :]
        elif event == "c_call" and arg.__name__ == "copy_" and arg.__self__ is self._weights:
            self.stack = [code for code in _codes_of(frame) if _file(code)][::-1]


def _codes_of(frame: FrameType | None) -> Iterator[CodeType]:
    while frame is not None:
        yield frame.f_code
        frame = frame.f_back


def _file(code: CodeType) -> str | None:
    """The file in the package, None for other code."""
    path = Path(code.co_filename)
    return str(path.relative_to(PACKAGE)) if path.is_relative_to(PACKAGE) else None


@pytest.fixture(scope="module")
def trace() -> Trace:
    """Of the first vector step of DQN on CartPole that makes an update."""
    config = run_config(dqn_config(), env=env_config("CartPole-v1"))
    envs = build_envs(config)
    agent = cast(
        OffPolicyAgent, make_agent(AgentContext(config, envs.observation_spec, envs.action_spec, torch.device("cpu")))
    )
    nothing: Any = None
    loop = Loop([config], envs, agent, nothing, [Output(nothing, nothing)], torch.device("cpu"), nothing)
    loop._obs = envs.reset()
    while True:
        found = Trace(agent._state.networks["q_network"])
        sys.setprofile(found)
        try:
            loop._steps_on_host(1)
        finally:
            sys.setprofile(None)
        if found.stack:
            envs.close()
            return found


def path_of(trace: Trace) -> list[str]:
    """The files on the stack when a weight changes, then those that its procedure enters, as they are first entered."""
    files = dict.fromkeys(filter(None, map(_file, [*trace.stack, *trace.procedure])))
    return [file for file in files if file not in PASSED_THROUGH]


def lines_of(trace: Trace, files: Collection[str]) -> int:
    """Lines of the functions of these files that the vector step entered."""
    lines: set[tuple[str, int]] = set()
    for code in set(trace.entered):
        file = _file(code)
        if file is not None and file in files:
            source, first = inspect.getsourcelines(code)
            lines |= {(file, number) for number in range(first, first + len(source))}
    return len(lines)


def listed() -> list[str]:
    sentence = re.search(r"To read how DQN works, in this order: (.*?)\.\s(?=[A-Z])", CONTRIBUTING, re.DOTALL)
    assert sentence is not None
    return re.findall(r"`(\w+/\w+\.py|\w+\.py)`", sentence[1])


def test_the_reading_list_is_the_path_that_a_traced_run_takes(trace: Trace) -> None:
    assert listed() == path_of(trace)


def test_the_path_is_short(trace: Trace) -> None:
    path = path_of(trace)
    assert len(path) <= MOST_FILES
    assert lines_of(trace, {*path, *PASSED_THROUGH}) <= MOST_LINES
