"""Every configuration key: its type and its range. Defaults, units and comments live beside the key in conf/*.yaml.

Torch-free and Hydra-free: the command line reads it to refuse a request in a fraction of a second.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_type_hints


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
        return " and ".join(f"{sign} {limit:.15g}" for sign, limit in signs.items() if limit is not None)


class PerMember:
    """Marks a number in which the members of a population may differ: learning and acting take it as data."""


PER_MEMBER = PerMember()


@functools.cache
def hints_of(cls: type) -> dict[str, Any]:
    """The types of a dataclass's fields with their marks, evaluated once though a sweep asks for each job."""
    return get_type_hints(cls, include_extras=True)


LARGEST = 2**63 - 1  # of the integers that arrays hold
LARGEST_FLOAT = 3.4e38  # of the numbers that networks are computed with
MOST_EPISODES = 1_000_000  # of an evaluation, which holds the return of each
AUTO_SAVE_STEPS = 10_000  # of `checkpoint.period=auto`
MOST_ENTRIES = 100
"""Of a list, such as the layers of a network: a config may be untrusted, and each layer takes time to build."""

Activation = Literal["relu", "tanh", "elu", "gelu", "silu"]


@dataclass(frozen=True)
class OptimizerConfig:
    """`algo.optimizer`: how a gradient becomes a step."""

    name: Literal["adam", "adamw", "radam", "rmsprop", "rmsprop_tf"]
    lr: Annotated[float, Range(above=0), PER_MEMBER]
    eps: Annotated[float, Range(above=0)]
    weight_decay: Annotated[float, Range(0)]
    amsgrad: bool


@dataclass(frozen=True)
class NetworkConfig:
    """`network`: a multilayer perceptron; `hidden` holds the widths of its layers, none for a linear map."""

    name: str
    hidden: Annotated[tuple[int, ...], Range(1)]
    activation: Activation
    output_scale: Annotated[float, Range(above=0)]
    init: Literal["orthogonal"] | None = None
    layer_norm: bool | None = None
    noisy: bool | None = None


@dataclass(frozen=True)
class CNNConfig:
    """`network=cnn`: convolutions over an image; `auto` is chosen by the image's size, `channels` with its two."""

    name: Literal["cnn"]
    channels: Annotated[tuple[int, ...] | Literal["auto"], Range(1)]
    kernels: Annotated[tuple[int, ...] | Literal["auto"], Range(1)]
    strides: Annotated[tuple[int, ...] | Literal["auto"], Range(1)]
    hidden: Annotated[tuple[int, ...] | Literal["auto"], Range(1)]
    dueling: bool
    channel_axis: Literal["auto", "first", "last"]
    activation: Activation
    output_scale: Annotated[float, Range(above=0)]
    init: Literal["orthogonal"] | None = None
    layer_norm: bool | None = None
    noisy: bool | None = None
    memory_format: Literal["channels_last"] | None = None


@dataclass(frozen=True)
class DuelingConfig:
    """`network=dueling`: `hidden` layers that the streams share, and `stream` layers of each."""

    name: Literal["dueling"]
    hidden: Annotated[tuple[int, ...], Range(1)]
    stream: Annotated[tuple[int, ...], Range(1)]
    activation: Activation
    output_scale: Annotated[float, Range(above=0)]
    noisy: bool | None = None


@dataclass(frozen=True)
class StateActionConfig:
    """`network=state_action`: Q(s, a) of one action per pass, with layers of `hidden` units."""

    name: Literal["state_action"]
    hidden: Annotated[tuple[int, ...], Range(1)]
    activation: Activation
    output_scale: Annotated[float, Range(above=0)]


@dataclass(frozen=True)
class HardUpdateConfig:
    """`target_update=hard`: the target network becomes a copy of the online network every `period` `unit`."""

    name: Literal["hard"]
    period: Annotated[int, Range(1), PER_MEMBER]
    unit: Literal["env_steps", "gradient_steps", "episodes"]


@dataclass(frozen=True)
class SoftUpdateConfig:
    """`target_update=soft`: the target network moves by `tau` towards the online one every `period` `unit`."""

    name: Literal["soft"]
    tau: Annotated[float, Range(above=0, high=1), PER_MEMBER]
    period: Annotated[int, Range(1), PER_MEMBER]
    unit: Literal["env_steps", "gradient_steps", "episodes"]


@dataclass(frozen=True)
class LinearConfig:
    """`exploration=linear`: epsilon falls from `start` to `end` over `steps` environment steps."""

    name: Literal["linear"]
    start: Annotated[float, Range(0, 1), PER_MEMBER]
    end: Annotated[float, Range(0, 1), PER_MEMBER]
    steps: Annotated[int, Range(1), PER_MEMBER]
    duration: Annotated[float | None, Range(above=1), PER_MEMBER] = None


@dataclass(frozen=True)
class ExponentialConfig:
    """`exploration=exponential`: epsilon decays to `end` with the time constant `decay`, in environment steps."""

    name: Literal["exponential"]
    start: Annotated[float, Range(0, 1), PER_MEMBER]
    end: Annotated[float, Range(0, 1), PER_MEMBER]
    decay: Annotated[float, Range(above=0), PER_MEMBER]
    duration: Annotated[float | None, Range(above=1), PER_MEMBER] = None


@dataclass(frozen=True)
class PerEpisodeConfig:
    """`exploration=per_episode`: epsilon is multiplied by `decay` after every episode, down to `end`."""

    name: Literal["per_episode"]
    start: Annotated[float, Range(0, 1), PER_MEMBER]
    end: Annotated[float, Range(0, 1), PER_MEMBER]
    decay: Annotated[float, Range(above=0, high=1), PER_MEMBER]
    duration: Annotated[float | None, Range(above=1), PER_MEMBER] = None


@dataclass(frozen=True)
class ConstantConfig:
    """`exploration=constant`: epsilon is `end` throughout."""

    name: Literal["constant"]
    end: Annotated[float, Range(0, 1), PER_MEMBER]
    duration: Annotated[float | None, Range(above=1), PER_MEMBER] = None


@dataclass(frozen=True)
class PrioritizedConfig:
    """`algo.prioritized`: replay in proportion to priority^alpha; `beta` rises to 1 over `beta_steps` updates."""

    alpha: Annotated[float, Range(0)]
    beta: Annotated[float, Range(0, 1)]
    beta_steps: Annotated[int, Range(1)]
    eps: Annotated[float, Range(above=0)]


@dataclass(frozen=True)
class QNetworkConfig:
    """The keys of all that learn action values from a replay; periods and `learning_starts` are in environment steps,
    sizes in transitions."""

    name: str
    gamma: Annotated[float, Range(0, 1), PER_MEMBER]
    n_step: Annotated[int, Range(1)]
    double: bool
    batch_size: Annotated[int, Range(1)]
    buffer_size: Annotated[int, Range(1)]
    learning_starts: Annotated[int, Range(0)]
    train_period: Annotated[int, Range(1)]
    gradient_steps: Annotated[int, Range(1)]
    max_grad_norm: Annotated[float | None, Range(above=0), PER_MEMBER]
    max_grad_value: Annotated[float | None, Range(above=0), PER_MEMBER]
    anneal_lr: bool
    optimizer: OptimizerConfig
    prioritized: PrioritizedConfig | None


@dataclass(frozen=True)
class DQNConfig(QNetworkConfig):
    """`algo=dqn`; targets stay between `v_min` and `v_max`. `munchausen` is the alpha of Munchausen DQN, and the two
    after it its tau and l_0."""

    name: Literal["dqn"]
    loss: Literal["mse", "huber"]
    v_min: float | None
    v_max: float | None
    munchausen: Annotated[float | None, Range(0, 1)]
    munchausen_temperature: Annotated[float, Range(above=0)]
    munchausen_clip: Annotated[float, Range(high=0)]


@dataclass(frozen=True)
class C51Config(QNetworkConfig):
    """`algo=c51`: each action's return is a distribution over `atoms` values from `v_min` to `v_max`."""

    name: Literal["c51"]
    atoms: Annotated[int, Range(2)]
    v_min: float
    v_max: float


@dataclass(frozen=True)
class QRDQNConfig(QNetworkConfig):
    """`algo=qr_dqn`: each action's return is `quantiles` values of equal probability."""

    name: Literal["qr_dqn"]
    quantiles: Annotated[int, Range(1)]


@dataclass(frozen=True)
class IQNConfig(QNetworkConfig):
    """`algo=iqn`: `quantiles` (N) of each return and `target_quantiles` (N') of its target are drawn for an update,
    `acting_quantiles` (K) are averaged to act; a probability is embedded by `cosines`."""

    name: Literal["iqn"]
    quantiles: Annotated[int, Range(1)]
    target_quantiles: Annotated[int, Range(1)]
    acting_quantiles: Annotated[int, Range(1)]
    cosines: Annotated[int, Range(1)]


@dataclass(frozen=True)
class ValueConfig:
    """`algo.value`: the learned baseline of REINFORCE, with `steps` gradient steps per update of the policy."""

    lr: Annotated[float, Range(above=0), PER_MEMBER]
    steps: Annotated[int, Range(1)]
    hidden: Annotated[tuple[int, ...], Range(1)]


@dataclass(frozen=True)
class ReinforceConfig:
    """`algo=reinforce`; one update follows every `episodes_per_update` finished episodes."""

    name: Literal["reinforce"]
    gamma: Annotated[float, Range(0, 1), PER_MEMBER]
    episodes_per_update: Annotated[int, Range(1)]
    baseline: Literal["none", "mean", "value"]
    normalize_returns: Literal["none", "episode", "batch"]
    loss_reduction: Literal["mean", "sum"]
    anneal_lr: bool
    entropy_coef: Annotated[float, Range(0), PER_MEMBER]
    max_grad_norm: Annotated[float | None, Range(above=0), PER_MEMBER]
    value: ValueConfig
    optimizer: OptimizerConfig


@dataclass(frozen=True)
class CriticConfig:
    """`algo.value`: the value network of PPO and A2C, and its loss."""

    hidden: Annotated[tuple[int, ...], Range(1)]
    coef: Annotated[float, Range(above=0), PER_MEMBER]
    clip: Annotated[float | None, Range(above=0)]


@dataclass(frozen=True)
class RolloutConfig:
    """The keys of all that learn from rollouts of fixed length; `rollout_steps` are vector steps, and what all of them
    hold is learned from together."""

    name: str
    gamma: Annotated[float, Range(0, 1), PER_MEMBER]
    rollout_steps: Annotated[int, Range(1)]
    epochs: Annotated[int, Range(1)]
    minibatches: Annotated[int, Range(1)]
    anneal_lr: bool
    max_grad_norm: Annotated[float | None, Range(above=0), PER_MEMBER]
    optimizer: OptimizerConfig


@dataclass(frozen=True)
class PPOConfig(RolloutConfig):
    """`algo=ppo` and `algo=a2c`."""

    name: Literal["ppo", "a2c"]
    gae_lambda: Annotated[float, Range(0, 1), PER_MEMBER]
    clip: Annotated[float, Range(above=0), PER_MEMBER]
    normalize_advantage: bool
    entropy_coef: Annotated[float, Range(0), PER_MEMBER]
    target_kl: Annotated[float | None, Range(above=0)]
    value: CriticConfig


@dataclass(frozen=True)
class PQNConfig(RolloutConfig):
    """`algo=pqn`."""

    name: Literal["pqn"]
    q_lambda: Annotated[float, Range(0, 1), PER_MEMBER]


@dataclass(frozen=True)
class QLearningConfig:
    """`algo=q_learning`; the n-th update of a table's entry has the step size alpha / n^alpha_decay."""

    name: Literal["q_learning"]
    gamma: Annotated[float, Range(0, 1), PER_MEMBER]
    alpha: Annotated[float, Range(above=0, high=1), PER_MEMBER]
    alpha_decay: Annotated[float, Range(0, 1), PER_MEMBER]
    initial_value: Annotated[float, PER_MEMBER]


@dataclass(frozen=True)
class EnvConfig:
    """`env`: which environment, and how it is stepped; `step_timeout` is in seconds."""

    id: str
    kwargs: dict[str, Any]
    max_episode_steps: Annotated[int | None, Range(1)]
    reward_clip: Annotated[float | None, Range(above=0)]
    vectorization: Literal["auto", "sync", "async", "batched", "native", "compiled"]
    step_timeout: Annotated[float | None, Range(above=0)]
    wrappers: tuple[Any, ...] = ()  # of the dataclasses in config/wrappers.py


@dataclass(frozen=True)
class EvalConfig:
    """`eval`: greedy evaluations of `episodes` episodes every `period` environment steps, null for none; `num_envs` of
    them side by side."""

    period: Annotated[int | None, Range(1)]
    episodes: Annotated[int, Range(1, MOST_EPISODES)]
    num_envs: Annotated[int | Literal["auto"], Range(1)] = "auto"


@dataclass(frozen=True)
class CheckpointConfig:
    """`checkpoint`: saved every `period` environment steps; the newest `keep` stay, `replay`: with their experience."""

    period: Annotated[int | Literal["auto"] | None, Range(1)]
    keep: Annotated[int, Range(1)]
    replay: bool


@dataclass(frozen=True)
class VideoConfig:
    """`video`: a greedy episode is filmed every `period` environment steps."""

    period: Annotated[int | None, Range(1)]


@dataclass(frozen=True)
class DeviceConfig:
    """`device`: where the networks are, and how their updates run."""

    name: Literal["auto", "cpu", "cuda"]
    index: Annotated[int, Range(0)]
    threads: Annotated[int | Literal["auto"], Range(1, 1024)]
    compile: bool | Literal["auto"]
    cuda_graphs: bool | Literal["auto"]
    deterministic: bool


@dataclass(frozen=True)
class TuneConfig:
    """`tune`, of `rltrain tune`: a search for settings; it is no part of a run's config."""

    trials: Annotated[int, Range(1, 100_000)]
    seeds: Annotated[int, Range(1, 1000)]
    first_seed: Annotated[int, Range(0)]
    batch: Annotated[int, Range(1, 1000)]
    startup: Annotated[int, Range(1)]
    pruner: Literal["median", "none"]
    warmup: Annotated[float, Range(0, 1)]
    confirm: Annotated[int, Range(0, 1000)]
    seed: Annotated[int, Range(0)]


AnyNetworkConfig = NetworkConfig | CNNConfig | DuelingConfig | StateActionConfig
AlgoConfig = DQNConfig | C51Config | QRDQNConfig | IQNConfig | ReinforceConfig | PPOConfig | PQNConfig | QLearningConfig
TargetUpdateConfig = HardUpdateConfig | SoftUpdateConfig
ExplorationConfig = LinearConfig | ExponentialConfig | PerEpisodeConfig | ConstantConfig


@dataclass(frozen=True)
class RunConfig:
    """Every key of a run. Where an algorithm has no network, target network or exploration, the section is None."""

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
    network: AnyNetworkConfig | None
    target_update: TargetUpdateConfig | None
    exploration: ExplorationConfig | None
    env: EnvConfig
    device: DeviceConfig
    loggers: tuple[str, ...] = ()
    video: VideoConfig = VideoConfig(None)

    @property
    def imports(self) -> tuple[str, ...]:
        """Each `module:name` of the user's that it imports: the environment's and loggers'."""
        return tuple(name for name in (self.env.id, *self.loggers) if ":" in name)

    @property
    def resumable(self) -> bool:
        """Whether its checkpoints hold all that a continued run needs: a table learns from no experience of before."""
        return self.checkpoint.replay or isinstance(self.algo, QLearningConfig)

    @property
    def may_end_early(self) -> bool:
        """Whether something can end it before `total_steps`."""
        return self.stop_at_return is not None or self.total_episodes is not None


# The choices of each group that decide which keys it has. A plug-in adds its own dataclass here.
ALGO_CONFIGS: dict[str, type] = {
    "dqn": DQNConfig,
    "c51": C51Config,
    "qr_dqn": QRDQNConfig,
    "iqn": IQNConfig,
    "q_learning": QLearningConfig,
    "reinforce": ReinforceConfig,
    "ppo": PPOConfig,
    "a2c": PPOConfig,
    "pqn": PQNConfig,
}
NETWORK_CONFIGS: dict[str, type] = {
    "mlp": NetworkConfig,
    "cnn": CNNConfig,
    "dueling": DuelingConfig,
    "state_action": StateActionConfig,
}
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
