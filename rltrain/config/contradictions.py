"""Rules between keys: settings that are each in range and make no sense together."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rltrain.config.algorithms import card_of
from rltrain.config.horizon import check_horizon
from rltrain.config.schema import (
    C51Config,
    CNNConfig,
    ConstantConfig,
    DQNConfig,
    DuelingConfig,
    IQNConfig,
    NetworkConfig,
    OptimizerConfig,
    PPOConfig,
    PQNConfig,
    QLearningConfig,
    QNetworkConfig,
    QRDQNConfig,
    ReinforceConfig,
    RolloutConfig,
    RunConfig,
    StateActionConfig,
)
from rltrain.errors import RequestError

_MOST_PROCESSES = 1000
OPTIONAL_GROUPS = {"network": "network", "target_update": "target network", "exploration": "exploration schedule"}
"""Groups that not every algorithm has -> what the others lack."""


def check_contradictions(config: RunConfig) -> None:
    """Raises RequestError, naming both keys, where two settings contradict each other."""
    _check_run(config)
    _check_device(config)
    _check_network(config)
    if isinstance(config.algo, QNetworkConfig):
        _check_dqn(config, config.algo)
    if isinstance(config.algo, DQNConfig) and config.algo.munchausen is not None and config.algo.double:
        _refuse(
            f"algo.munchausen={config.algo.munchausen:g}: its target is the mean over a soft policy, which picks no"
            " action that algo.double=true could value; add algo.double=false"
        )
    if isinstance(config.algo, C51Config | DQNConfig):
        _check_bounds(config.algo)
    if isinstance(config.algo, C51Config | IQNConfig | QRDQNConfig):
        _check_distributional(config)
    if isinstance(config.algo, ReinforceConfig):
        _check_reinforce(config, config.algo)
    if isinstance(config.algo, RolloutConfig):
        _check_rollouts(config, config.algo)
    if isinstance(config.algo, QLearningConfig):
        _check_q_learning(config)
    optimizer = getattr(config.algo, "optimizer", None)
    if isinstance(optimizer, OptimizerConfig) and optimizer.amsgrad and optimizer.name not in ("adam", "adamw"):
        _refuse(f"algo.optimizer.amsgrad=true: only adam and adamw have it, not algo.optimizer.name={optimizer.name}")
    if config.env.vectorization == "compiled":
        _check_compiled(config)
    exploration = config.exploration
    if exploration is not None and not isinstance(exploration, ConstantConfig):
        start, end = getattr(exploration, "start", None), getattr(exploration, "end", None)
        if start is not None and end is not None and start < end:
            _refuse(f"exploration.start={start:g} is below exploration.end={end:g}: epsilon falls from start to end")


def check_typed(config: RunConfig, overrides: Sequence[str]) -> None:
    """Raises RequestError for what makes no sense where the user has asked for it by itself; tuned settings may bring
    the same along with a short trial."""
    typed = any(override.startswith("stop_at_return=") for override in overrides)
    period = config.eval.period
    if typed and config.stop_at_return is not None and period is not None and period > config.total_steps:
        _refuse(
            f"stop_at_return={config.stop_at_return:g}: no evaluation comes before the end: eval.period={period} is"
            f" larger than total_steps={config.total_steps}"
        )


def _refuse(message: str) -> None:
    raise RequestError(message)


def _check_run(config: RunConfig) -> None:
    for name in config.loggers:
        if name != "wandb" and re.fullmatch(r"[\w.]+:[^\W\d]\w*", name) is None:
            _refuse(f"loggers=[{name}]: is neither wandb nor module:Class")
    if config.name is not None and not re.fullmatch(r"\w[\w.-]{0,99}", config.name):
        _refuse(f"name={config.name}: must be letters, digits, '_', '-' and '.', at most 100 (it names a folder)")
    if not config.env.id:
        _refuse("env.id: is empty; see `rltrain list envs`")
    if len(config.env.id) > 200 or not config.env.id.isprintable():
        _refuse(f"env.id={config.env.id[:60]}...: must be printable and at most 200 characters long")
    if config.env.id.startswith(":"):
        _refuse(f"env.id={config.env.id}: names no module before the colon")
    if config.stop_at_return is not None and config.eval.period is None:
        _refuse(
            f"stop_at_return={config.stop_at_return:g} needs evaluations, but eval.period=null turns them off;"
            " stop_at_return=null goes with it"
        )
    for number, wrapper in enumerate(config.env.wrappers):
        if wrapper.name == "atari" and number:
            _refuse(f"env.wrappers[{number}]=atari: must be the first, next to the game")
        if wrapper.name in ("clip_observation", "rescale_observation") and wrapper.low >= wrapper.high:
            _refuse(
                f"env.wrappers[{number}]: {wrapper.name} is to low..high, and low={wrapper.low:g} is not below"
                f" high={wrapper.high:g}"
            )
    if config.env.vectorization == "async" and config.num_envs > _MOST_PROCESSES:
        _refuse(
            f"num_envs={config.num_envs}: env.vectorization=async starts a process for each, at most {_MOST_PROCESSES};"
            " sync and batched start none"
        )
    if config.env.step_timeout is not None and config.env.vectorization != "async":
        _refuse(
            f"env.step_timeout={config.env.step_timeout:g} needs env.vectorization=async:"
            " only a worker process can be given up"
        )


def _check_device(config: RunConfig) -> None:
    if config.device.cuda_graphs is True and config.device.name == "cpu":
        _refuse("device.cuda_graphs=true: needs a CUDA device, and device=cpu")


def _check_network(config: RunConfig) -> None:
    network = config.network
    if isinstance(network, CNNConfig):
        layers = {name: getattr(network, name) for name in ("channels", "kernels", "strides")}
        lengths = {"auto" if value == "auto" else len(value) for value in layers.values()}
        if len(lengths) > 1:
            shown = " ".join(f"network.{name}={list(v) if v != 'auto' else v}" for name, v in layers.items())
            _refuse(f"{shown}: must be auto, all three, or lists of one length, with a number per layer")
    if getattr(network, "noisy", False):
        _check_noisy(config)
    if isinstance(config.algo, ReinforceConfig | PPOConfig):
        learns = f"and {config.algo.name} learns a policy"
        why = f"its streams are of action values, {learns}"
        if isinstance(network, DuelingConfig):
            _refuse(f"network=dueling: {why}")
        if isinstance(network, StateActionConfig):
            _refuse(f"network=state_action: gives action values, {learns}")
        if isinstance(network, CNNConfig) and network.dueling:
            _refuse(f"network.dueling=true: {why}")


def _check_noisy(config: RunConfig) -> None:
    """A network that explores: nothing else does, beside it."""
    exploration = config.exploration
    if not isinstance(config.algo, QNetworkConfig):
        _refuse(f"network.noisy=true: is for action values that are learned from a replay, not algo={config.algo.name}")
    if not isinstance(exploration, ConstantConfig) or exploration.end > 0 or exploration.duration is not None:
        _refuse(
            "network.noisy=true: explores by itself, without epsilon; add exploration=none"
            " (which is exploration=constant exploration.end=0)"
        )


def _check_distributional(config: RunConfig) -> None:
    """An algorithm whose network gives each action several numbers."""
    algo, network = config.algo, config.network
    if isinstance(network, StateActionConfig):
        _refuse(f"network=state_action: gives one value per action, and {algo.name} learns a distribution")
    if isinstance(algo, IQNConfig) and isinstance(network, NetworkConfig | DuelingConfig) and not network.hidden:
        _refuse("network.hidden=[]: algo=iqn multiplies the features of a hidden layer with those of a probability")


def _check_bounds(algo: C51Config | DQNConfig) -> None:
    if algo.v_min is not None and algo.v_max is not None and algo.v_min >= algo.v_max:
        _refuse(f"algo.v_min={algo.v_min:g} is not below algo.v_max={algo.v_max:g}")


def _check_groups(config: RunConfig, *needed: str) -> None:
    """The algorithm has these groups and no other."""
    for group, words in OPTIONAL_GROUPS.items():
        if group in needed and getattr(config, group) is None:
            _refuse(f"{group}: is missing, and algo={config.algo.name} needs it")
        if group not in needed and getattr(config, group) is not None:
            _refuse(f"{group}: {config.algo.name} has no {words}")


def _check_q_learning(config: RunConfig) -> None:
    _check_groups(config, "exploration")
    if config.exploration is not None and config.exploration.duration is not None:
        _refuse(
            f"exploration.duration={config.exploration.duration:g}: q_learning holds no action; those with a network do"
        )
    if config.device.name == "cuda":
        _refuse("device=cuda: the table of q_learning is in the CPU's memory; use device=cpu")
    if config.device.compile is True:
        _refuse("device.compile=true: q_learning has nothing to compile")
    if config.device.cuda_graphs is True:
        _refuse("device.cuda_graphs=true: q_learning computes on the CPU")


def _check_compiled(config: RunConfig) -> None:
    why = "env.vectorization=compiled: acting, stepping and learning are one program,"
    algo = config.algo
    if not card_of(algo).in_engine:
        others = "sync" if isinstance(algo, QLearningConfig) else "sync or batched"
        _refuse(f"{why} and algo={algo.name} has none; use {others}")
    elif isinstance(algo, QNetworkConfig) and algo.n_step > 1 and algo.buffer_size < algo.n_step * config.num_envs:
        _refuse(
            f"{why} and algo.buffer_size={algo.buffer_size} is less than a step of num_envs={config.num_envs} may"
            f" complete with algo.n_step={algo.n_step}; use batched"
        )


def _check_dqn(config: RunConfig, algo: QNetworkConfig) -> None:
    _check_groups(config, "network", "target_update", "exploration")
    if algo.batch_size > algo.buffer_size:
        _refuse(
            f"algo.batch_size={algo.batch_size} is larger than algo.buffer_size={algo.buffer_size}:"
            " a batch must fit into the buffer"
        )
    if algo.buffer_size < config.num_envs:
        _refuse(
            f"algo.buffer_size={algo.buffer_size} is smaller than num_envs={config.num_envs}:"
            " a step of some environments would never be learned from"
        )
    check_horizon(config)
    first_update = algo.learning_starts + algo.train_period
    if first_update <= (algo.n_step - 1) * config.num_envs:
        _refuse(
            f"algo.n_step={algo.n_step}: the first update at step {first_update} (algo.learning_starts +"
            f" algo.train_period)\nwould find no {algo.n_step}-step transition from num_envs={config.num_envs};"
            f" it must come after step {(algo.n_step - 1) * config.num_envs}"
        )


def _check_reinforce(config: RunConfig, algo: ReinforceConfig) -> None:
    _check_groups(config, "network")
    if algo.episodes_per_update % config.num_envs:
        _refuse(
            f"num_envs={config.num_envs} must divide algo.episodes_per_update={algo.episodes_per_update}:"
            " each environment plays the same number of episodes per update"
        )
    check_horizon(config)


def _check_rollouts(config: RunConfig, algo: RolloutConfig) -> None:
    _check_groups(config, "network", *(["exploration"] if isinstance(algo, PQNConfig) else []))
    size = algo.rollout_steps * config.num_envs
    rollout = f"algo.rollout_steps={algo.rollout_steps} * num_envs={config.num_envs}"
    if size % algo.minibatches:
        _refuse(f"algo.minibatches={algo.minibatches} must divide {rollout}, which is {size}")
    check_horizon(config)
