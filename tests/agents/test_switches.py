"""Parts of Rainbow in every pair: each pair is refused by name, or is an agent that acts and learns."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
from halves import often
from small_runs import DISCRETE, ScriptedEnvs, drive

from rltrain.agents import AgentContext, make_agent
from rltrain.config.validate import validate
from rltrain.errors import RequestError
from rltrain.types import ObservationSpec

CPU = torch.device("cpu")
IMAGE = ObservationSpec("box", (5, 5, 1), "float32")
SHARED = {
    "gamma": 0.9, "n_step": 1, "double": False, "batch_size": 4, "buffer_size": 30, "learning_starts": 6,
    "train_period": 1, "gradient_steps": 1, "max_grad_norm": None, "max_grad_value": None, "prioritized": None,
    "anneal_lr": False,
    "optimizer": {"name": "adam", "lr": 1e-3, "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False},
}  # fmt: skip
OF_DQN = {
    "loss": "huber", "v_min": None, "v_max": None,
    "munchausen": None, "munchausen_temperature": 0.03, "munchausen_clip": -1.0,
}  # fmt: skip
ALGOS: dict[str, dict[str, Any]] = {
    "dqn": OF_DQN,
    "c51": {"atoms": 5, "v_min": -1.0, "v_max": 1.0},
    "qr_dqn": {"quantiles": 3},
    "iqn": {"quantiles": 3, "target_quantiles": 2, "acting_quantiles": 4, "cosines": 5},
}
LAYERS = {"activation": "relu", "output_scale": 1.0}
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": [4]},
    "dueling": {"hidden": [4], "stream": [4]},
    "state_action": {"hidden": [4]},
    "cnn": {"channels": [2], "kernels": [2], "strides": [1], "hidden": [4], "dueling": False, "channel_axis": "last"},
}
Plain = dict[str, Any]


def network(name: str, **changes: Any) -> Callable[[Plain], None]:
    return lambda plain: plain.update(network={"name": name, **LAYERS, **NETWORKS[name], **changes})


def algo(**changes: Any) -> Callable[[Plain], None]:
    return lambda plain: plain["algo"].update(changes)


SWITCHES: dict[str, Callable[[Plain], None]] = {
    "dueling": network("dueling"),
    "state_action": network("state_action"),
    "dueling cnn": network("cnn", dueling=True),
    "noisy": lambda plain: (plain["network"].update(noisy=True), plain.update(exploration=epsilon(0.0))),
    "noisy and epsilon": lambda plain: plain["network"].update(noisy=True),
    "held actions": lambda plain: plain.update(exploration={**plain["exploration"], "duration": 2.0}),
    "double": algo(double=True),
    "3 steps": algo(n_step=3),
    "prioritized": algo(prioritized={"alpha": 0.5, "beta": 0.4, "beta_steps": 10, "eps": 1e-6}),
    "munchausen": algo(munchausen=0.9),
}
NETWORK_SWITCHES = {"dueling", "state_action", "dueling cnn"}


def epsilon(end: float) -> Plain:
    return {"name": "constant", "end": end, "duration": None}


def with_switches(name: str, switches: tuple[str, ...]) -> Plain:
    plain: Plain = {
        "name": None, "seed": 0, "total_steps": 100, "total_episodes": None, "num_envs": 2, "log_period": 100,
        "stop_at_return": None, "init_from": None, "dry_run": False, "loggers": [],
        "eval": {"period": None, "episodes": 1, "num_envs": "auto"},
        "checkpoint": {"period": None, "keep": 1, "replay": True},
        "video": {"period": None},
        "algo": {"name": name, **SHARED, **ALGOS[name]},
        "target_update": {"name": "hard", "period": 4, "unit": "env_steps"},
        "exploration": epsilon(0.1),
        "env": {"id": "CartPole-v1", "kwargs": {}, "max_episode_steps": None, "reward_clip": None, "wrappers": [],
                "vectorization": "sync", "step_timeout": None},
        "device": {"name": "cpu", "index": 0, "threads": 1, "compile": False, "cuda_graphs": False,
                   "deterministic": False},
    }  # fmt: skip
    network("mlp")(plain)
    for switch in switches:
        SWITCHES[switch](plain)
    return plain


def refusal(name: str, switches: set[str]) -> str | None:
    """The words with which these together are refused; None where they are taken."""
    if "munchausen" in switches and name != "dqn":
        return f"algo.munchausen: unknown key of algo={name}"
    noisy = switches & {"noisy", "noisy and epsilon"}
    if noisy and "state_action" in switches:
        return "network.noisy: unknown key of network=state_action"
    if ("noisy and epsilon" in switches and "noisy" not in switches) or (noisy and "held actions" in switches):
        return "network.noisy=true: explores by itself, without epsilon; add exploration=none"
    if {"munchausen", "double"} <= switches:
        return "algo.munchausen=0.9: its target is the mean over a soft policy"
    if name != "dqn" and "state_action" in switches:
        return f"network=state_action: gives one value per action, and {name} learns a distribution"
    return None


PAIRS = [pair for pair in combinations(SWITCHES, 2) if not set(pair) <= NETWORK_SWITCHES]
RAINBOW = ("dueling", "noisy", "double", "3 steps", "prioritized")


@pytest.mark.parametrize("name", often(ALGOS, ["dqn"]))
def test_every_pair_is_refused_by_name_or_learns(name: str) -> None:
    refused = 0
    for switches in [*PAIRS, RAINBOW]:
        plain, expected = with_switches(name, switches), refusal(name, set(switches))
        if expected is not None:
            refused += 1
            with pytest.raises(RequestError) as error:
                validate(plain)
            assert str(error.value).startswith(expected), switches
            continue
        agent = make_agent(AgentContext(validate(plain), IMAGE, DISCRETE, CPU))
        metrics = [metrics for metrics in drive(agent, ScriptedEnvs(2, IMAGE), 10) if metrics]
        assert len(metrics) >= 5, switches
        assert all(torch.isfinite(value) for value in metrics[-1].values()), switches
    assert 10 < refused < 30
