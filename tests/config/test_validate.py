"""Types, ranges and contradictions: what is refused, and in which words."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from rltrain.config.contradictions import check_typed
from rltrain.config.plain import to_plain
from rltrain.config.validate import validate
from rltrain.errors import RequestError

OPTIMIZER = {"name": "adam", "lr": 1e-3, "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False}
DQN: dict[str, Any] = {
    "name": None,
    "seed": 0,
    "total_steps": 1000,
    "total_episodes": None,
    "num_envs": 1,
    "log_period": 100,
    "stop_at_return": None,
    "init_from": None,
    "dry_run": False,
    "loggers": [],
    "eval": {"period": 500, "episodes": 5, "num_envs": "auto"},
    "checkpoint": {"period": None, "keep": 1, "replay": True},
    "video": {"period": None},
    "algo": {
        "name": "dqn",
        "gamma": 0.99,
        "n_step": 1,
        "double": True,
        "batch_size": 32,
        "buffer_size": 500,
        "learning_starts": 100,
        "train_period": 1,
        "gradient_steps": 1,
        "loss": "huber",
        "v_min": None,
        "v_max": None,
        "munchausen": None,
        "munchausen_temperature": 0.03,
        "munchausen_clip": -1.0,
        "max_grad_norm": None,
        "max_grad_value": None,
        "prioritized": None,
        "anneal_lr": False,
        "optimizer": OPTIMIZER,
    },
    "network": {"name": "mlp", "hidden": [64], "activation": "relu", "output_scale": 1.0, "layer_norm": None},
    "target_update": {"name": "hard", "period": 100, "unit": "env_steps"},
    "exploration": {"name": "linear", "start": 1.0, "end": 0.1, "steps": 100},
    "env": {
        "id": "CartPole-v1",
        "kwargs": {"a": [1, {"b": None}]},
        "max_episode_steps": None,
        "reward_clip": None,
        "wrappers": [],
        "vectorization": "sync",
        "step_timeout": None,
    },
    "device": {
        "name": "cpu",
        "index": 0,
        "threads": "auto",
        "compile": "auto",
        "cuda_graphs": "auto",
        "deterministic": False,
    },
}
_LOSS = ("loss", "v_min", "v_max", "munchausen", "munchausen_temperature", "munchausen_clip")
IQN = {
    **{key: value for key, value in DQN["algo"].items() if key not in _LOSS},
    "name": "iqn",
    "quantiles": 8,
    "target_quantiles": 8,
    "acting_quantiles": 32,
    "cosines": 64,
}
C51 = {
    **{key: value for key, value in DQN["algo"].items() if key not in _LOSS},
    "name": "c51",
    "atoms": 51,
    "v_min": 5.0,
    "v_max": 0.0,
}
REINFORCE: dict[str, Any] = {
    **{key: value for key, value in DQN.items() if key not in ("target_update", "exploration")},
    "algo": {
        "name": "reinforce",
        "gamma": 0.99,
        "episodes_per_update": 4,
        "baseline": "value",
        "normalize_returns": "batch",
        "loss_reduction": "mean",
        "anneal_lr": False,
        "entropy_coef": 0.0,
        "max_grad_norm": 0.5,
        "value": {"lr": 1e-3, "steps": 1, "hidden": []},
        "optimizer": OPTIMIZER,
    },
}


PPO: dict[str, Any] = {
    **REINFORCE,
    "algo": {
        "name": "ppo",
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "rollout_steps": 128,
        "epochs": 4,
        "minibatches": 4,
        "clip": 0.2,
        "normalize_advantage": True,
        "entropy_coef": 0.0,
        "target_kl": None,
        "anneal_lr": True,
        "max_grad_norm": 0.5,
        "value": {"hidden": [], "coef": 0.5, "clip": None},
        "optimizer": OPTIMIZER,
    },
}


PQN: dict[str, Any] = {
    **{key: value for key, value in DQN.items() if key != "target_update"},
    "algo": {
        "name": "pqn",
        "gamma": 0.99,
        "q_lambda": 0.65,
        "rollout_steps": 128,
        "epochs": 4,
        "minibatches": 4,
        "anneal_lr": True,
        "max_grad_norm": 10.0,
        "optimizer": OPTIMIZER,
    },
}


Q_LEARNING = {
    **{key: value for key, value in DQN.items() if key not in ("network", "target_update")},
    "algo": {"name": "q_learning", "gamma": 0.99, "alpha": 0.1, "alpha_decay": 0.6, "initial_value": -1.0},
}


def with_keys(plain: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy of `plain` with dotted keys (dots written as two underscores) set."""
    changed = copy.deepcopy(plain)
    for key, value in changes.items():
        *parents, last = key.split("__")
        node = changed
        for parent in parents:
            node = node[parent]
        node[last] = value
    return changed


ONE_PROGRAM = "env.vectorization=compiled: acting, stepping and learning are one program,"


@pytest.mark.parametrize("plain", [DQN, REINFORCE, PPO, PQN, Q_LEARNING], ids=lambda plain: plain["algo"]["name"])
def test_plain_data_survives_the_round_trip(plain: dict[str, Any]) -> None:
    config = validate(plain)
    assert validate(to_plain(config)) == config
    assert to_plain(config) == {
        **plain,
        **{key: to_plain(config)[key] for key in ("network", "target_update", "exploration")},
    }


def test_whole_floats_are_integers_and_integers_are_numbers() -> None:
    config = validate(with_keys(DQN, total_steps=1e5, algo__gamma=1, algo__learning_starts=1e3))
    assert (config.total_steps, type(config.total_steps)) == (100_000, int)
    assert type(config.algo.gamma) is float
    with pytest.raises(RequestError, match=r"total_steps=1000\.5: must be an integer >= 1"):
        validate(with_keys(DQN, total_steps=1000.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed=-1: must be >= 0"),
        ({"seed": 2**63}, "seed=9223372036854775808: must be below 2^63"),
        ({"algo__optimizer__lr": 1e300}, "algo.optimizer.lr=1e+300: must lie within +-3.4e+38, as float32 does"),
        ({"network__hidden": [8] * 101}, "network.hidden: lists 101 entries; at most 100 are taken"),
        ({"env__wrappers": ["time_aware"] * 101}, "env.wrappers: lists 101 entries; at most 100 are taken"),
        ({"seed": True}, "seed=true: must be an integer >= 0"),
        ({"seed": None}, "seed=null: must be an integer >= 0"),
        ({"total_steps": 0}, "total_steps=0: must be >= 1"),
        ({"total_steps": float("inf")}, "total_steps=inf: must be an integer >= 1"),
        ({"eval__episodes": 10**7}, "eval.episodes=10000000: must be >= 1 and <= 1000000"),
        ({"algo__gamma": 1.01}, "algo.gamma=1.01: must be >= 0 and <= 1"),
        ({"algo__gamma": float("nan")}, "algo.gamma=nan: must be finite and >= 0 and <= 1"),
        ({"algo__optimizer__lr": 0}, "algo.optimizer.lr=0: must be > 0"),
        ({"algo__optimizer__lr": float("inf")}, "algo.optimizer.lr=inf: must be finite and > 0"),
        (
            {"algo__optimizer__name": "adm"},
            "algo.optimizer.name=adm: must be adam, adamw, radam, rmsprop or rmsprop_tf; did you mean adam?",
        ),
        (
            {"algo": IQN, "network__hidden": []},
            "network.hidden=[]: algo=iqn multiplies the features of a hidden layer with those of a probability",
        ),
        ({"network__noisy": True}, "network.noisy=true: explores by itself, without epsilon; add exploration=none"),
        ({"algo__munchausen": 0.9}, "algo.munchausen=0.9: its target is the mean over a soft policy, which picks no"),
        ({"algo__munchausen": 1.5}, "algo.munchausen=1.5: must be >= 0 and <= 1"),
        ({"algo__munchausen_clip": 0.5}, "algo.munchausen_clip=0.5: must be <= 0"),
        ({"algo": C51}, "algo.v_min=5 is not below algo.v_max=0"),
        ({"algo__v_min": 1, "algo__v_max": 1}, "algo.v_min=1 is not below algo.v_max=1"),
        ({"algo__v_max": float("inf")}, "algo.v_max=inf: must be finite"),
        ({"algo__double": "yes"}, "algo.double=yes: must be true or false"),
        ({"algo__max_grad_norm": 0}, "algo.max_grad_norm=0: must be > 0"),
        ({"algo__max_grad_norm": "x"}, "algo.max_grad_norm=x: must be a number > 0 or null"),
        (
            {"algo__name": "dqqn"},
            "algo.name=dqqn: is not registered; if a plug-in adds it, RLTRAIN_PLUGINS must name its module\n"
            "registered: dqn, c51, qr_dqn, iqn, q_learning, reinforce, ppo, a2c, pqn; did you mean dqn?",
        ),
        ({"algo__typo": 1}, "algo.typo: unknown key of algo=dqn"),
        ({"algo__batch_sise": 1}, "algo.batch_sise: unknown key of algo=dqn; did you mean batch_size?"),
        ({"network__hidden": 64}, "network.hidden=64: must be a list of integers, such as [128,128]"),
        ({"network__hidden": [64, 0]}, "network.hidden[1]=0: must be >= 1"),
        ({"device__threads": "many"}, "device.threads=many: must be an integer >= 1 and <= 1024 or auto"),
        ({"env__kwargs": 3}, "env.kwargs=3: must be a mapping, such as {x: 1}"),
        ({"env__kwargs": {"g": math.inf}}, "env.kwargs.g=inf: must be finite"),
        ({"env__kwargs": {"a": [1, {"b": math.nan}]}}, "env.kwargs.a[1].b=nan: must be finite"),
        ({"eval": 5}, "eval=5: must be a mapping of keys (period, episodes, num_envs)"),
        ({"name": "../x"}, "name=../x: must be letters, digits"),
        ({"exploration__start": 0.05}, "exploration.start=0.05 is below exploration.end=0.1"),
        ({"algo__batch_size": 501}, "algo.batch_size=501 is larger than algo.buffer_size=500"),
        (
            {"num_envs": 501},
            "algo.buffer_size=500 is smaller than num_envs=501: a step of some environments would never be",
        ),
        (
            {"num_envs": 1001, "env__vectorization": "async", "algo__buffer_size": 2000},
            "num_envs=1001: env.vectorization=async starts a process for each, at most 1000; sync",
        ),
        ({"algo__learning_starts": 1000}, "learning would never start: the first update is due at step 1001"),
        ({"algo__n_step": 102}, "algo.n_step=102: the first update at step 101"),
        ({"stop_at_return": 1.0, "eval__period": None}, "stop_at_return=1 needs evaluations"),
        (
            {"env__vectorization": "compiled", "algo__n_step": 3, "num_envs": 170, "algo__learning_starts": 400},
            f"{ONE_PROGRAM} and algo.buffer_size=500 is less than a step of num_envs=170 may complete with algo.n_step",
        ),
        ({"device__cuda_graphs": True}, "device.cuda_graphs=true: needs a CUDA device, and device=cpu"),
        ({"env__step_timeout": 1.0}, "env.step_timeout=1 needs env.vectorization=async"),
        ({"target_update": None}, "target_update: is missing, and algo=dqn needs it"),
        ({"network": None}, "network: is missing, and algo=dqn needs it"),
        (
            {"algo__optimizer": {**OPTIMIZER, "name": "rmsprop", "amsgrad": True}},
            "algo.optimizer.amsgrad=true: only adam and adamw",
        ),
    ],
)
def test_refusals_of_dqn(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as error:
        validate(with_keys(DQN, **change))
    assert str(error.value).startswith(message)
    assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_update": DQN["target_update"]}, "target_update: reinforce has no target network"),
        ({"exploration": DQN["exploration"]}, "exploration: reinforce has no exploration schedule"),
        ({"num_envs": 3}, "num_envs=3 must divide algo.episodes_per_update=4"),
        ({"num_envs": 8}, "num_envs=8 must divide algo.episodes_per_update=4"),
        ({"total_episodes": 3}, "learning would never start: total_episodes=3"),
        ({"algo__value__steps": 0}, "algo.value.steps=0: must be >= 1"),
    ],
)
def test_refusals_of_reinforce(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as error:
        validate(with_keys(REINFORCE, **change))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_update": DQN["target_update"]}, "target_update: ppo has no target network"),
        ({"algo__name": "a2c", "exploration": DQN["exploration"]}, "exploration: a2c has no exploration schedule"),
        ({"algo__minibatches": 5}, "algo.minibatches=5 must divide algo.rollout_steps=128 * num_envs=1, which is 128"),
        ({"num_envs": 8}, "learning would never start: the first update is due after algo.rollout_steps=128 * num"),
        ({"algo__gae_lambda": 1.5}, "algo.gae_lambda=1.5: must be >= 0 and <= 1"),
        ({"network__noisy": True}, "network.noisy=true: is for action values that are learned from a replay, not a"),
        ({"algo__clip": 0.0}, "algo.clip=0.0: must be > 0"),
        ({"algo__value__clip": 0.0}, "algo.value.clip=0.0: must be > 0"),
        (
            {"network": {"name": "dueling", "hidden": [], "stream": [], "activation": "relu", "output_scale": 1.0}},
            "network=dueling: its streams are of action values, and ppo learns a policy",
        ),
    ],
)
def test_refusals_of_ppo(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as error:
        validate(with_keys(PPO, **change))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_update": DQN["target_update"]}, "target_update: pqn has no target network"),
        ({"exploration": None}, "exploration: is missing, and algo=pqn needs it"),
        ({"algo__minibatches": 5}, "algo.minibatches=5 must divide algo.rollout_steps=128 * num_envs=1, which is 128"),
        ({"num_envs": 8}, "learning would never start: the first update is due after algo.rollout_steps=128 * num"),
        ({"algo__q_lambda": 1.5}, "algo.q_lambda=1.5: must be >= 0 and <= 1"),
        ({"algo__optimizer__name": "radam", "algo__optimizer__amsgrad": True}, "algo.optimizer.amsgrad=true: only"),
        ({"network__layer_norm": 1}, "network.layer_norm=1: must be true or false"),
    ],
)
def test_refusals_of_pqn(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as error:
        validate(with_keys(PQN, **change))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_update": DQN["target_update"]}, "target_update: q_learning has no target network"),
        ({"network": DQN["network"]}, "network: q_learning has no network"),
        ({"exploration": None}, "exploration: is missing, and algo=q_learning needs it"),
        ({"algo__alpha": 0.0}, "algo.alpha=0.0: must be > 0 and <= 1"),
        ({"algo__alpha": 1.5}, "algo.alpha=1.5: must be > 0 and <= 1"),
        ({"algo__alpha_decay": -0.1}, "algo.alpha_decay=-0.1: must be >= 0 and <= 1"),
        ({"algo__initial_value": float("inf")}, "algo.initial_value=inf: must be finite"),
        ({"algo__gamma": 2}, "algo.gamma=2: must be >= 0 and <= 1"),
        ({"device__name": "cuda"}, "device=cuda: the table of q_learning is in the CPU's memory"),
        ({"device__compile": True}, "device.compile=true: q_learning has nothing to compile"),
        ({"exploration__duration": 2.0}, "exploration.duration=2: q_learning holds no action; those with a network do"),
    ],
)
def test_refusals_of_q_learning(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as error:
        validate(with_keys(Q_LEARNING, **change))
    assert str(error.value).startswith(message)


def test_limits_are_exact() -> None:
    validate(with_keys(DQN, algo__batch_size=500))
    validate(with_keys(DQN, num_envs=500))
    validate(with_keys(DQN, num_envs=1000, algo__buffer_size=1000, env__vectorization="async"))
    validate(with_keys(DQN, num_envs=1001, algo__buffer_size=1001))
    validate(with_keys(DQN, algo__learning_starts=999))
    validate(with_keys(DQN, algo__learning_starts=2000, total_episodes=5))
    validate(with_keys(DQN, algo__n_step=101))
    with pytest.raises(RequestError, match="n_step"):
        validate(with_keys(DQN, algo__n_step=51, num_envs=3, algo__learning_starts=149))
    validate(with_keys(DQN, algo__n_step=51, num_envs=3, algo__learning_starts=150))


def test_a_stop_that_is_typed_must_be_able_to_come() -> None:
    """One that comes with tuned settings must not stand in the way of a short trial."""
    short = with_keys(DQN, stop_at_return=90.0, eval__period=2000)
    check_typed(validate(short), ["total_steps=1000"])
    check_typed(validate(short), ["stop_at_return=null", "total_steps=1000"][1:])
    check_typed(validate(with_keys(short, eval__period=1000)), ["stop_at_return=90"])
    check_typed(validate(with_keys(short, stop_at_return=None)), ["stop_at_return=null"])
    with pytest.raises(RequestError, match=r"^stop_at_return=90: no evaluation comes before the end: eval.period=2000"):
        check_typed(validate(short), ["seed=1", "stop_at_return=90"])


def test_a_missing_key_is_named() -> None:
    plain = copy.deepcopy(DQN)
    del plain["algo"]["optimizer"]["eps"]
    with pytest.raises(RequestError, match=r"^algo\.optimizer\.eps: missing$"):
        validate(plain)


CNN = {
    "name": "cnn", "channels": [4, 8], "kernels": [3, 3], "strides": [1, 2], "hidden": "auto", "dueling": False,
    "channel_axis": "auto", "activation": "relu", "output_scale": 1.0,
}  # fmt: skip
STATE_ACTION = {"name": "state_action", "hidden": [8], "activation": "relu", "output_scale": 1.0}
DUELING = {"name": "dueling", "hidden": [8], "stream": [8], "activation": "relu", "output_scale": 1.0}


def test_lists_of_layers_or_auto() -> None:
    network = validate({**DQN, "network": CNN}).network
    assert (network.channels, network.hidden) == ((4, 8), "auto")  # type: ignore[union-attr]
    for changes, message in [
        ({"hidden": "big"}, "network.hidden=big: must be a list of integers, such as [128,128] or auto"),
        ({"kernels": [3, 0]}, "network.kernels[1]=0: must be >= 1"),
        ({"strides": "auto"}, "network.strides=auto: must be auto, all three, or lists of one length"),
        (
            {"kernels": [3]},
            "network.kernels=[3] network.strides=[1, 2]: must be auto, all three, or lists",
        ),
        ({"channel_axis": "middle"}, "network.channel_axis=middle: must be auto, first or last"),
    ]:
        with pytest.raises(RequestError) as caught:
            validate({**DQN, "network": {**CNN, **changes}})
        assert message in str(caught.value)


def test_reinforce_refuses_networks_of_action_values() -> None:
    for network, start in [
        (DUELING, "network=dueling: "),
        (STATE_ACTION, "network=state_action: "),
        ({**CNN, "dueling": True}, "network.dueling=true: "),
    ]:
        validate({**DQN, "network": network})
        with pytest.raises(RequestError) as caught:
            validate({**REINFORCE, "network": network})
        assert str(caught.value).startswith(start) and "reinforce learns a policy" in str(caught.value)
