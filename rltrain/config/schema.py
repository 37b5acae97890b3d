"""Every configuration key: its type and its range. Defaults, units and comments live beside the key in conf/*.yaml.

Torch-free and Hydra-free: the command line reads it to refuse a request in a fraction of a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal


@dataclass(frozen=True)
class Range:
    """A number x must satisfy low <= x <= high, x > above, x < below (those that are given)."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, x: float) -> bool:
        return (
            math.isfinite(x)
            and (self.low is None or x >= self.low)
            and (self.high is None or x <= self.high)
            and (self.above is None or x > self.above)
            and (self.below is None or x < self.below)
        )

    def __str__(self) -> str:
        signs = {">=": self.low, ">": self.above, "<=": self.high, "<": self.below}
        return " and ".join(f"{sign} {limit:g}" for sign, limit in signs.items() if limit is not None)


@dataclass(frozen=True)
class OptimizerConfig:
    name: Literal["adam", "adamw", "rmsprop"]
    lr: Annotated[float, Range(above=0)]
    eps: Annotated[float, Range(above=0)]
    weight_decay: Annotated[float, Range(0)]
    amsgrad: bool


@dataclass(frozen=True)
class NetworkConfig:
    name: str
    hidden: Annotated[tuple[int, ...], Range(1)]
    activation: Literal["relu", "tanh", "elu", "gelu", "silu"]
    output_scale: Annotated[float, Range(above=0)]


@dataclass(frozen=True)
class HardUpdateConfig:
    name: Literal["hard"]
    period: Annotated[int, Range(1)]
    unit: Literal["env_steps", "gradient_steps", "episodes"]


@dataclass(frozen=True)
class SoftUpdateConfig:
    name: Literal["soft"]
    tau: Annotated[float, Range(above=0, high=1)]
    period: Annotated[int, Range(1)]
    unit: Literal["env_steps", "gradient_steps", "episodes"]


@dataclass(frozen=True)
class LinearConfig:
    name: Literal["linear"]
    start: Annotated[float, Range(0, 1)]
    end: Annotated[float, Range(0, 1)]
    steps: Annotated[int, Range(1)]


@dataclass(frozen=True)
class ExponentialConfig:
    name: Literal["exponential"]
    start: Annotated[float, Range(0, 1)]
    end: Annotated[float, Range(0, 1)]
    decay: Annotated[float, Range(above=0)]


@dataclass(frozen=True)
class PerEpisodeConfig:
    name: Literal["per_episode"]
    start: Annotated[float, Range(0, 1)]
    end: Annotated[float, Range(0, 1)]
    decay: Annotated[float, Range(above=0, high=1)]


@dataclass(frozen=True)
class ConstantConfig:
    name: Literal["constant"]
    end: Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class DQNConfig:
    name: Literal["dqn"]
    gamma: Annotated[float, Range(0, 1)]
    n_step: Annotated[int, Range(1)]
    double: bool
    batch_size: Annotated[int, Range(1)]
    buffer_size: Annotated[int, Range(1)]
    learning_starts: Annotated[int, Range(0)]
    train_period: Annotated[int, Range(1)]
    gradient_steps: Annotated[int, Range(1)]
    loss: Literal["mse", "huber"]
    max_grad_norm: Annotated[float | None, Range(above=0)]
    max_grad_value: Annotated[float | None, Range(above=0)]
    optimizer: OptimizerConfig


@dataclass(frozen=True)
class ValueConfig:
    lr: Annotated[float, Range(above=0)]
    steps: Annotated[int, Range(1)]
    hidden: Annotated[tuple[int, ...], Range(1)]


@dataclass(frozen=True)
class ReinforceConfig:
    name: Literal["reinforce"]
    gamma: Annotated[float, Range(0, 1)]
    episodes_per_update: Annotated[int, Range(1)]
    baseline: Literal["none", "mean", "value"]
    normalize_returns: Literal["none", "episode", "batch"]
    loss_reduction: Literal["mean", "sum"]
    entropy_coef: Annotated[float, Range(0)]
    max_grad_norm: Annotated[float | None, Range(above=0)]
    value: ValueConfig
    optimizer: OptimizerConfig


@dataclass(frozen=True)
class EnvConfig:
    id: str
    kwargs: dict[str, Any]
    max_episode_steps: Annotated[int | None, Range(1)]
    reward_clip: Annotated[float | None, Range(above=0)]
    vectorization: Literal["sync", "async", "batched"]
    step_timeout: Annotated[float | None, Range(above=0)]


@dataclass(frozen=True)
class EvalConfig:
    period: Annotated[int | None, Range(1)]
    episodes: Annotated[int, Range(1)]


@dataclass(frozen=True)
class CheckpointConfig:
    period: Annotated[int | None, Range(1)]
    keep: Annotated[int, Range(1)]
    replay: bool


@dataclass(frozen=True)
class DeviceConfig:
    name: Literal["auto", "cpu", "cuda"]
    index: Annotated[int, Range(0)]
    threads: Annotated[int | Literal["auto"], Range(1)]
    compile: bool | Literal["auto"]
    deterministic: bool


AlgoConfig = DQNConfig | ReinforceConfig
TargetUpdateConfig = HardUpdateConfig | SoftUpdateConfig
ExplorationConfig = LinearConfig | ExponentialConfig | PerEpisodeConfig | ConstantConfig


@dataclass(frozen=True)
class RunConfig:
    name: str | None
    seed: Annotated[int, Range(0)]
    total_steps: Annotated[int, Range(1)]
    total_episodes: Annotated[int | None, Range(1)]
    num_envs: Annotated[int, Range(1)]
    log_period: Annotated[int, Range(1)]
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
