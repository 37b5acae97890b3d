"""A dry run of what cannot be built: one line, with the place in the plug-in that raised."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import pytest
from small_runs import dqn_config, env_config, run_config
from torch import nn

from rltrain.agents import AGENTS, POLICIES
from rltrain.config.info import ComposeInfo
from rltrain.config.wrappers import FrameStackConfig
from rltrain.errors import RequestError, RunFailed
from rltrain.jobs.job import dry_run
from rltrain.networks import NETWORKS


@dataclass(frozen=True)
class PluginConfig:
    name: str = "plugin"


class NoForward(nn.Module):
    def __init__(self, *_: object) -> None:
        super().__init__()
        self.last = nn.Linear(4, 2)


class NoMethods:
    def __init__(self, context: object) -> None:
        self.context = context


def look(network: Any) -> None:
    dry_run(run_config(dqn_config(), network=network))


def test_a_network_without_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "plugin", NoForward)
    told = r'^network=plugin: NotImplementedError: Module \[NoForward\] is missing the required "forward"'
    with pytest.raises(RequestError, match=told):
        look(PluginConfig())


def test_what_the_plugin_raises_is_shown_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*_: object) -> nn.Module:
        raise KeyError("width")

    monkeypatch.setitem(NETWORKS, "plugin", make)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"^network=plugin: KeyError: 'width', at .*test_dry_run\.py:\d+$"):
        look(PluginConfig())


@pytest.mark.parametrize(
    ("wrappers", "said"),
    [((), ""), ((FrameStackConfig("frame_stack", 3),), " (the agent sees float32 of shape (3, 4))")],
)
def test_it_says_what_the_agent_sees(wrappers: Any, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    dry_run(run_config(dqn_config(), env=replace(env_config("CartPole-v1"), wrappers=wrappers)))
    lines = " ".join(capsys.readouterr().out.split())
    spaces = re.search(r"spaces observations (Box\(.*?float32\))(.*), actions Discrete", lines)
    assert spaces is not None and spaces[2] == said


def test_a_refusal_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(NETWORKS, "mlp")
    with pytest.raises(RequestError, match=r"^network=mlp: it is not in"):
        dry_run(run_config(dqn_config()))


def test_an_agent_without_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AGENTS, "dqn", NoMethods)  # type: ignore[arg-type]
    monkeypatch.setitem(POLICIES, "dqn", NoMethods)  # type: ignore[arg-type]
    with pytest.raises(RunFailed, match=r"^AttributeError: 'NoMethods' object has no attribute '\w+'$"):
        dry_run(run_config(dqn_config()))


def test_a_typed_key_without_effect_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    dry_run(run_config(dqn_config()), ComposeInfo(overrides=["algo.munchausen_clip=-2", "algo.gamma=0.9"]))
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("idle")]
    assert said == ["idle      algo.munchausen_clip has no effect with algo.munchausen=null"]
