"""Every program is one graph for `torch.compile`, the way of a GPU and of a torch that cannot compile ahead.

Dynamo traces less of Python than `torch.export` does in the mode that compiling ahead takes, so that a line may break
this way alone: the run goes on uncompiled, with a warning. Here the graphs run as they are, without a C++ compiler.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from halves import often
from resume_cases import CASES
from small_runs import make_steps

from rltrain.jobs.build import build

NAMES = [name for name in CASES if not name.startswith("q_learning")]


@pytest.mark.parametrize("members", often([1, 2], [1]))
@pytest.mark.parametrize("name", often(NAMES, ["dqn"]))
def test_programs_are_whole_graphs(
    name: str, members: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled: list[bool] = []
    compile_as_it_is = partial(torch.compile, backend="eager")

    def compile_counted(*args: Any, options: Any, **kwargs: Any) -> Any:
        compiled.append(True)
        return compile_as_it_is(*args, **kwargs)

    monkeypatch.setattr("rltrain.jobs.build.has_compiler", lambda: True)
    monkeypatch.setattr("rltrain.compute.ahead.available", lambda: False)
    monkeypatch.setattr("rltrain.compute.compiling.torch.compile", compile_counted)
    config = replace(CASES[name], device=replace(CASES[name].device, compile=True), stop_at_return=None)
    population = tuple(replace(config, seed=seed) for seed in range(members)) if members > 1 else ()
    with build(config, population=population) as parts:
        agent: Any = parts.agent
        obs = parts.envs.reset()
        learned = False
        while not learned:
            obs = make_steps(agent, parts.envs, obs)
            learned = bool((agent._gradient_steps > 0).all())
    assert compiled, "nothing was compiled"
    assert "uncompiled" not in capsys.readouterr().err
