"""Every configuration key: its type and its range. Defaults, units and comments live beside the key in conf/*.yaml.

Torch-free and Hydra-free: the command line reads it to refuse a request in a fraction of a second.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


def ranged(
    low: float | None = None, high: float | None = None, *, above: float | None = None, below: float | None = None
) -> Any:
    """A field whose number x must satisfy low <= x <= high, x > above, x < below (those that are given)."""
    return field(metadata={"low": low, "high": high, "above": above, "below": below})


@dataclass(frozen=True)
class OptimizerConfig:
    name: Literal["adam", "adamw", "rmsprop"]
    lr: float = ranged(above=0)
    eps: float = ranged(above=0)
    weight_decay: float = ranged(0)
    amsgrad: bool


@dataclass(frozen=True)
class NetworkConfig:
    name: str
    hidden: tuple[int, ...] = ranged(1)
    activation: Literal["relu", "tanh", "elu", "gelu", "silu"]
    output_scale: float = ranged(above=0)


@dataclass(frozen=True)
class HardUpdateConfig:
    name: Literal["hard"]
    period: int = ranged(1)
    unit: Literal["env_steps", "gradient_steps", "episodes"]


@dataclass(frozen=True)
class SoftUpdateConfig:
    name: Literal["soft"]
    tau: float = ranged(above=0, high=1)
    period: int = ranged(1)
    unit: Literal["env_steps", "gradient_steps", "episodes"]


@dataclass(frozen=True)
class LinearConfig:
    name: Literal["linear"]
    start: float = ranged(0, 1)
    end: float = ranged(0, 1)
    steps: int = ranged(1)


@dataclass(frozen=True)
class ExponentialConfig:
    name: Literal["exponential"]
    start: float = ranged(0, 1)
    end: float = ranged(0, 1)
    decay: float = ranged(above=0)


@dataclass(frozen=True)
class PerEpisodeConfig:
    name: Literal["per_episode"]
    start: float = ranged(0, 1)
    end: float = ranged(0, 1)
    decay: float = ranged(above=0, high=1)


@dataclass(frozen=True)
class ConstantConfig:
    name: Literal["constant"]
    end: float = ranged(0, 1)


@dataclass(frozen=True)
class DQNConfig:
    name: Literal["dqn"]
    gamma: float = ranged(0, 1)
    n_step: int = ranged(1)
    double: bool
    batch_size: int = ranged(1)
    buffer_size: int = ranged(1)
    learning_starts: int = ranged(0)
    train_period: int = ranged(1)
    gradient_steps: int = ranged(1)
    loss: Literal["mse", "huber"]
    max_grad_norm: float | None = ranged(above=0)
    max_grad_value: float | None = ranged(above=0)
    optimizer: OptimizerConfig


@dataclass(frozen=True)
class ValueConfig:
    lr: float = ranged(above=0)
    steps: int = ranged(1)
    hidden: tuple[int, ...] = ranged(1)


@dataclass(frozen=True)
class ReinforceConfig:
    name: Literal["reinforce"]
    gamma: float = ranged(0, 1)
    episodes_per_update: int = ranged(1)
    baseline: Literal["none", "mean", "value"]
    normalize_returns: Literal["none", "episode", "batch"]
    loss_reduction: Literal["mean", "sum"]
    entropy_coef: float = ranged(0)
    max_grad_norm: float | None = ranged(above=0)
    value: ValueConfig
    optimizer: OptimizerConfig


@dataclass(frozen=True)
class EnvConfig:
    id: str
    kwargs: dict[str, Any]
    max_episode_steps: int | None = ranged(1)
    reward_clip: float | None = ranged(above=0)
    vectorization: Literal["sync", "async"]
    step_timeout: float | None = ranged(above=0)


@dataclass(frozen=True)
class EvalConfig:
    period: int | None = ranged(1)
    episodes: int = ranged(1)


@dataclass(frozen=True)
class CheckpointConfig:
    period: int | None = ranged(1)
    keep: int = ranged(1)
    replay: bool


@dataclass(frozen=True)
class DeviceConfig:
    name: Literal["auto", "cpu", "cuda"]
    index: int = ranged(0)
    threads: int | Literal["auto"] = ranged(1)
    compile: bool | Literal["auto"]
    deterministic: bool


AlgoConfig = DQNConfig | ReinforceConfig
TargetUpdateConfig = HardUpdateConfig | SoftUpdateConfig
ExplorationConfig = LinearConfig | ExponentialConfig | PerEpisodeConfig | ConstantConfig


@dataclass(frozen=True)
class RunConfig:
    name: str | None
    seed: int = ranged(0)
    total_steps: int = ranged(1)
    total_episodes: int | None = ranged(1)
    num_envs: int = ranged(1)
    log_period: int = ranged(1)
    stop_at_return: float | None
    init_from: str | None
    dry_run: bool
    eval: EvalConfig
    checkpoint: CheckpointConfig
    algo: AlgoConfig
    network: NetworkConfig
    target_update: TargetUpdateConfig | None
    exploration: ExplorationConfig | None
    env: EnvConfig
    device: DeviceConfig


# The choices of each group that decide which keys it has. A plug-in adds its own dataclass here.
ALGO_CONFIGS: dict[str, type] = {"dqn": DQNConfig, "reinforce": ReinforceConfig}
NETWORK_CONFIGS: dict[str, type] = {"mlp": NetworkConfig}
TARGET_UPDATE_CONFIGS: dict[str, type] = {"hard": HardUpdateConfig, "soft": SoftUpdateConfig}
EXPLORATION_CONFIGS: dict[str, type] = {
    "linear": LinearConfig,
    "exponential": ExponentialConfig,
    "per_episode": PerEpisodeConfig,
    "constant": ConstantConfig,
}
GROUP_CONFIGS: dict[str, dict[str, type]] = {
    "algo": ALGO_CONFIGS,
    "network": NETWORK_CONFIGS,
    "target_update": TARGET_UPDATE_CONFIGS,
    "exploration": EXPLORATION_CONFIGS,
}
