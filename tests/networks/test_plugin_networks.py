"""A plug-in's network is looked at when it is built: what it may not do is one line, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_runs import BOX, CPU, DISCRETE, IMAGES, STATES, VECTOR, dqn_config, ppo_config, reinforce_config, run_config
from torch import Tensor, nn

from rltrain.agents import AgentContext, make_agent, make_policy
from rltrain.errors import RequestError
from rltrain.networks import NETWORKS, make_network
from rltrain.networks.encoder import ObservationEncoder
from rltrain.policy.source import check_network
from rltrain.types import ObservationSpec


@dataclass(frozen=True)
class PluginConfig:
    name: str = "plugin"


class Plugin(nn.Module):
    """Linear, with something wrong in `extra` outputs or in `after`, which is done to what comes out."""

    extra = 0
    after: Callable[[Tensor], Any] = staticmethod(lambda output: output)

    def __init__(self, config: PluginConfig, observation: ObservationSpec, outputs: int) -> None:
        super().__init__()
        self.encoder = ObservationEncoder(observation)
        self.last = nn.Linear(self.encoder.out_features, outputs + self.extra)

    def forward(self, obs: Tensor) -> Any:
        return self.after(self.last(self.encoder(obs)))


def build(monkeypatch: pytest.MonkeyPatch, observation: ObservationSpec = VECTOR, **wrong: Any) -> None:
    monkeypatch.setitem(NETWORKS, "plugin", type("Net", (Plugin,), wrong))
    make_network(PluginConfig(), observation, 2, 0, CPU)  # type: ignore[arg-type]


def after(change: Callable[[Tensor], Any]) -> Any:
    return staticmethod(change)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"extra": 1}, r"here \[1, 2\], Net gives float32 \[1, 3\]"),
        ({"after": after(lambda output: (output, output))}, "Net gives tuple"),
        ({"after": after(torch.squeeze)}, r"here \[1, 2\], Net gives float32 \[2\]"),
        ({"after": after(lambda output: output[:1])}, r"here \[3, 2\], Net gives float32 \[1, 2\]"),
        ({"after": after(Tensor.double)}, r"must give float32 \[B, outputs\].*, Net gives float64 \[1, 2\]"),
    ],
)
def test_an_output_of_another_form_is_refused(wrong: Any, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Compiled, with steps on the device, it trained and exported actions that there are none of.
    with pytest.raises(RequestError, match=rf"^network=plugin: .*{told}$"):
        build(monkeypatch, **wrong)


class Unbuilt(Plugin):
    """Fails as it is built, and, as most code does, where there is no memory."""

    broken = False

    def __init__(self, config: PluginConfig, observation: ObservationSpec, outputs: int) -> None:
        super().__init__(config, observation, outputs)
        if self.last.weight.sum().item() > 0 or self.broken:
            raise ValueError("boom")


def fail(output: Tensor) -> Any:
    raise TypeError("boom")


def test_an_error_of_its_code_is_told_with_its_type_and_place(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match=r"^network=plugin: TypeError: boom, at \S*test_plugin_networks\.py:\d+$"):
        build(monkeypatch, after=after(fail))
    monkeypatch.setattr(Unbuilt, "broken", True)
    monkeypatch.setitem(NETWORKS, "plugin", Unbuilt)
    with pytest.raises(RequestError, match=r"^network=plugin: ValueError: boom, at \S*test_plugin_networks\.py:\d+$"):
        make_network(PluginConfig(), VECTOR, 2, 0, CPU)  # type: ignore[arg-type]


def test_one_that_needs_memory_as_it_is_built_can_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "plugin", Unbuilt)
    context = AgentContext(run_config(dqn_config(), network=PluginConfig()), VECTOR, DISCRETE, CPU)
    source: Any = SimpleNamespace(folder="run", tensors={"network": {}})
    check_network(context, source)  # which builds it without memory


@pytest.mark.parametrize("algo", [dqn_config(), ppo_config()], ids=lambda algo: str(algo.name))
@pytest.mark.parametrize(
    "change", [lambda x: x + 0 * x.sum().item(), lambda x: x if x.sum() < 1e9 else -x], ids=["item", "if"]
)
def test_what_reads_numbers_of_tensors_is_refused_in_a_population(
    algo: Any, change: Callable[[Tensor], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NETWORKS, "plugin", Plugin)
    config = run_config(algo, network=PluginConfig())
    alone = AgentContext(config, VECTOR, DISCRETE, CPU)
    together = replace(alone, population=(config, replace(config, seed=1)))
    make_agent(together)
    monkeypatch.setattr(Plugin, "after", after(change))
    make_agent(alone)
    told = (
        r"^network=plugin: a population cannot compute it: RuntimeError: vmap: .*, at \S*test_plugin_networks\.py:\d+\n"
    )
    with pytest.raises(RequestError, match=told + "hydra/launcher=basic trains one job after the other$"):
        make_agent(together)


class Zeros(Plugin):
    """Its last layer starts as zeros, which hide what is dropped before it."""

    def __init__(self, config: PluginConfig, observation: ObservationSpec, outputs: int) -> None:
        super().__init__(config, observation, outputs)
        self.drop = nn.Dropout(0.1)
        nn.init.zeros_(self.last.weight)

    def forward(self, obs: Tensor) -> Any:
        return self.last(self.drop(self.encoder(obs)))


def test_a_random_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # Greedy evaluation was random, resuming not exact, and a sweep ended in an error of vmap.
    calls = count(1.0)
    for random in (nn.functional.dropout, lambda x: x + torch.randn_like(x), lambda x: x + next(calls)):
        with pytest.raises(RequestError, match=r"^network=plugin: .* the same observation, Net is random$"):
            build(monkeypatch, after=after(random))
    monkeypatch.setitem(NETWORKS, "plugin", Zeros)
    with pytest.raises(RequestError, match=r"Zeros is random: drop is Dropout\(p=0.1, inplace=False\)$"):
        make_network(PluginConfig(), VECTOR, 2, 0, CPU)  # type: ignore[arg-type]


def test_layers_that_could_be_random_and_are_not_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    build(monkeypatch, after=after(nn.Dropout(0.0)))
    build(monkeypatch, after=after(nn.Dropout(0.5).eval()))
    build(monkeypatch, after=after(lambda output: output * float("nan")))  # which updates name


@pytest.mark.parametrize("observation", [VECTOR, STATES, IMAGES, ObservationSpec("box", (4, 4, 2), "bool")])
def test_a_right_one_is_taken_for_all_observations(
    observation: ObservationSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(monkeypatch, observation)


@pytest.mark.parametrize("algo", [dqn_config(), ppo_config(), reinforce_config()], ids=lambda algo: str(algo.name))
def test_every_algorithm_and_what_acts_alone_refuse_it(algo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_config(algo, network=PluginConfig())
    context = AgentContext(config, VECTOR, DISCRETE if algo.name == "dqn" else BOX, CPU)
    monkeypatch.setitem(NETWORKS, "plugin", Plugin)
    make_agent(context)
    monkeypatch.setattr(Plugin, "extra", 1)
    for make in (make_agent, make_policy):
        with pytest.raises(RequestError, match="network=plugin: a network must give"):
            make(context)
