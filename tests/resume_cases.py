"""A short run of every algorithm and option, for the tests that stop and continue it."""

from __future__ import annotations

from dataclasses import fields, replace
from importlib.util import find_spec
from typing import Any

from small_runs import (
    dqn_config,
    env_config,
    optimizer,
    ppo_config,
    pqn_config,
    q_learning_config,
    reinforce_config,
    run_config,
)

from rltrain.config.schema import (
    C51Config,
    CheckpointConfig,
    CNNConfig,
    ConstantConfig,
    CriticConfig,
    DuelingConfig,
    EnvConfig,
    EvalConfig,
    ExponentialConfig,
    HardUpdateConfig,
    IQNConfig,
    LinearConfig,
    PerEpisodeConfig,
    PrioritizedConfig,
    QNetworkConfig,
    QRDQNConfig,
    RunConfig,
    SoftUpdateConfig,
    StateActionConfig,
)
from rltrain.config.wrappers import (
    ClipObservationConfig,
    FrameStackConfig,
    NormalizeObservationConfig,
    NormalizeRewardConfig,
    RescaleObservationConfig,
    ScaleRewardConfig,
    TimeAwareConfig,
)

SHORT = {"eval": EvalConfig(50, 3), "checkpoint": CheckpointConfig(40, 3, True), "total_steps": 110}


def dqn(changes: dict[str, Any] | None = None, **run: Any) -> RunConfig:
    return run_config(dqn_config(**(changes or {})), **{**SHORT, **run})


def reinforce(changes: dict[str, Any] | None = None, **run: Any) -> RunConfig:
    return run_config(reinforce_config(**(changes or {})), **{**SHORT, **run})


def ppo(changes: dict[str, Any] | None = None, **run: Any) -> RunConfig:
    return run_config(ppo_config(**(changes or {})), **{**SHORT, **run})


def pqn(changes: dict[str, Any] | None = None, **run: Any) -> RunConfig:
    return run_config(pqn_config(**(changes or {})), **{**SHORT, **run})


def q_learning(changes: dict[str, Any] | None = None, **run: Any) -> RunConfig:
    return run_config(q_learning_config(**(changes or {})), **{**SHORT, "env": env_config("FrozenLake-v1"), **run})


def with_algo(algo: type[QNetworkConfig], env: EnvConfig | None = None, **changes: Any) -> RunConfig:
    """A short run of an algorithm that shares its keys with DQN."""
    config = dqn(num_envs=3) if env is None else dqn(env=env, num_envs=3)
    name = {C51Config: "c51", QRDQNConfig: "qr_dqn", IQNConfig: "iqn"}[algo]
    shared = {field.name: getattr(config.algo, field.name) for field in fields(QNetworkConfig)}
    return replace(config, algo=algo(**{**shared, "name": name, **changes}))


PRIORITIZED = PrioritizedConfig(0.6, 0.4, 100, 1e-6)
WALK = env_config("probe_envs:Walk-v0")
PICTURES = env_config("probe_envs:Noise-v0")
FRAMES = replace(env_config("probe_envs:Noise-v0", side=19), wrappers=(FrameStackConfig("frame_stack", 2),))
CONVOLUTIONS = CNNConfig("cnn", (3, 4), (2, 2), (1, 1), (8,), False, "auto", "relu", 1.0)
FRACTIONS = {"quantiles": 4, "target_quantiles": 3, "acting_quantiles": 5, "cosines": 6}
NOISY = DuelingConfig("dueling", (8,), (4,), "relu", 1.0, noisy=True)
GREEDY = ConstantConfig("constant", 0.0)
PENDULUM = replace(env_config("Pendulum-v1"), max_episode_steps=15)
WRAPPERS = (
    TimeAwareConfig("time_aware"), NormalizeObservationConfig("normalize_observation"),
    ClipObservationConfig("clip_observation", -2.0, 2.0), FrameStackConfig("frame_stack", 2),
    NormalizeRewardConfig("normalize_reward"), ScaleRewardConfig("scale_reward", 0.5),
)  # fmt: skip
WRAPPED = replace(env_config("CartPole-v1"), wrappers=WRAPPERS)
RESCALED = replace(
    env_config("MountainCar-v0"), max_episode_steps=30, wrappers=(RescaleObservationConfig("rescale_observation"),)
)
IN_THE_PROGRAM = replace(env_config("CartPole-v1"), vectorization="compiled")
MINATAR = replace(env_config("MinAtar/Breakout-v1"), vectorization="compiled")
CASES: dict[str, RunConfig] = {
    "dqn stepped in the program, 3 envs": dqn(env=IN_THE_PROGRAM, num_envs=3),
    "dqn stepped in the program, n-step": dqn({"n_step": 3, "buffer_size": 60}, env=IN_THE_PROGRAM, num_envs=3),
    "dqn stepped in the program, acrobot": dqn(
        {"train_period": 3, "gradient_steps": 2},
        num_envs=2,
        env=replace(env_config("Acrobot-v1"), vectorization="compiled", max_episode_steps=35),
        target_update=HardUpdateConfig("hard", 2, "episodes"),
    ),
    "dqn stepped in the program, wrapped": dqn(
        {"n_step": 3, "buffer_size": 60},
        num_envs=3,
        env=replace(IN_THE_PROGRAM, wrappers=tuple(w for w in WRAPPERS if w.name != "frame_stack"), reward_clip=0.4),
    ),
    "dqn wrappers": dqn(env=WRAPPED),
    "dqn wrappers, 3 envs, n-step": dqn({"n_step": 3, "buffer_size": 500}, env=WRAPPED, num_envs=3),
    "dqn rescaled, n-step": dqn({"n_step": 3}, env=RESCALED, num_envs=2),
    "dqn wrappers, batched": dqn(env=replace(WRAPPED, vectorization="batched"), num_envs=3),
    "reinforce wrappers, 2 envs": reinforce(env=replace(PENDULUM, wrappers=WRAPPERS), num_envs=2),
    "dqn": dqn(),
    "dqn 3 envs": dqn(num_envs=3),
    "dqn n-step, 3 envs": dqn({"n_step": 3, "buffer_size": 500}, num_envs=3),
    "dqn not double, mse, clipped by value": dqn({"double": False, "loss": "mse", "max_grad_value": 0.1}),
    "dqn falling learning rate": dqn({"anneal_lr": True, "train_period": 2, "gradient_steps": 2}, num_envs=3),
    "dqn munchausen": dqn({"munchausen": 0.9, "double": False}),
    "dqn several gradient steps": dqn({"train_period": 3, "gradient_steps": 2}, num_envs=2),
    "dqn hard by gradient steps, adamw": dqn(
        {"optimizer": optimizer("adamw", amsgrad=True, weight_decay=0.01)},
        target_update=HardUpdateConfig("hard", 13, "gradient_steps"),
    ),
    "dqn hard by episodes": dqn(target_update=HardUpdateConfig("hard", 2, "episodes"), num_envs=3),
    "dqn soft by steps, rmsprop": dqn(
        {"optimizer": optimizer("rmsprop")}, target_update=SoftUpdateConfig("soft", 0.1, 3, "env_steps")
    ),
    "dqn soft by gradient steps": dqn(target_update=SoftUpdateConfig("soft", 0.05, 1, "gradient_steps")),
    "dqn soft by episodes": dqn(target_update=SoftUpdateConfig("soft", 0.5, 3, "episodes")),
    "dqn exponential": dqn(exploration=ExponentialConfig("exponential", 1.0, 0.1, 50)),
    "dqn per episode": dqn(exploration=PerEpisodeConfig("per_episode", 1.0, 0.1, 0.8), num_envs=3),
    "dqn constant": dqn(exploration=ConstantConfig("constant", 0.3)),
    "dqn held actions, 3 envs": dqn(exploration=LinearConfig("linear", 1.0, 0.2, 60, 1.5), num_envs=3),
    "dqn held actions, stepped in the program": dqn(
        exploration=LinearConfig("linear", 1.0, 0.2, 60, 1.5), env=IN_THE_PROGRAM, num_envs=3
    ),
    "dqn discrete observations": dqn(env=env_config("probe_envs:Chain-v0")),
    "dqn observations of parts": dqn(env=env_config("probe_envs:Votes-v0"), num_envs=2),
    "dqn images": dqn(env=env_config("probe_envs:Images-v0"), num_envs=2),
    "dqn convolutions, 2 envs": dqn({"n_step": 2}, env=PICTURES, network=CONVOLUTIONS, num_envs=2),
    "dqn frames kept once, 2 envs": dqn(
        {"n_step": 2, "buffer_size": 60, "prioritized": PRIORITIZED}, env=FRAMES, network=CONVOLUTIONS, num_envs=2
    ),
    "dqn dueling": dqn(network=DuelingConfig("dueling", (8,), (4,), "relu", 1.0)),
    "dqn noisy, 2 envs": dqn({"n_step": 2}, network=NOISY, exploration=GREEDY, num_envs=2),
    "dqn noisy, stepped in the program": dqn(
        {"gradient_steps": 2},
        network=replace(NOISY, activation="elu"),
        exploration=GREEDY,
        env=IN_THE_PROGRAM,
        num_envs=3,
    ),
    "dqn state and action": dqn(network=StateActionConfig("state_action", (8,), "relu", 1.0)),
    "dqn clipped rewards": dqn(env=replace(env_config("probe_envs:FixedLength-v0"), reward_clip=1.0)),
    "dqn until solved": dqn(env=env_config("probe_envs:Bandit-v0"), stop_at_return=1.0, eval=EvalConfig(30, 3)),
    "dqn prioritized, 2 envs": dqn({"prioritized": PRIORITIZED, "gradient_steps": 2}, num_envs=2),
    "dqn prioritized, stepped in the program": dqn(
        {"prioritized": PRIORITIZED, "buffer_size": 60, "n_step": 2}, env=IN_THE_PROGRAM, num_envs=3
    ),
    "c51 prioritized": with_algo(C51Config, atoms=7, v_min=0.0, v_max=9.0, prioritized=PRIORITIZED),
    "rainbow": replace(
        with_algo(C51Config, atoms=7, v_min=0.0, v_max=9.0, prioritized=PRIORITIZED, n_step=3, learning_starts=20),
        network=NOISY,
        exploration=GREEDY,
    ),
    "iqn noisy, stepped in the program": replace(
        with_algo(IQNConfig, env=IN_THE_PROGRAM, **FRACTIONS), network=NOISY, exploration=GREEDY
    ),
    "qr_dqn stepped in the program": with_algo(QRDQNConfig, env=IN_THE_PROGRAM, quantiles=5),
    "reinforce": reinforce(),
    "reinforce no baseline, episode": reinforce({"baseline": "none", "normalize_returns": "episode"}),
    "reinforce mean baseline, 2 envs": reinforce({"baseline": "mean", "loss_reduction": "sum"}, num_envs=2),
    "reinforce convolutions": reinforce(env=PICTURES, network=CONVOLUTIONS, num_envs=2),
    "reinforce falling learning rates, 2 envs": reinforce({"anneal_lr": True}, num_envs=2),
    "reinforce 4 envs": reinforce({"episodes_per_update": 8}, num_envs=4),
    "reinforce box actions": reinforce(env=WALK),
    "reinforce box actions, 4 envs": reinforce(env=WALK, num_envs=4),
    "reinforce actions without axes": reinforce(env=env_config("probe_envs:Aim-v0"), num_envs=2),
    "reinforce several numbers at once, 2 envs": reinforce(env=env_config("probe_envs:Lock-v0"), num_envs=2),
    "reinforce cut episodes": reinforce(env=PENDULUM, num_envs=2),
    "reinforce stepped in the program, 2 envs": reinforce(env=IN_THE_PROGRAM, num_envs=2),
    "reinforce stepped in the program, box actions": reinforce(
        env=replace(PENDULUM, vectorization="compiled"), num_envs=4
    ),
    "reinforce by episodes": reinforce(total_steps=100_000, total_episodes=11, num_envs=2),
    "ppo, 3 envs": ppo(num_envs=3),
    "ppo limited, values clipped, rmsprop": ppo(
        {
            "target_kl": 1e-4,
            "epochs": 3,
            "value": CriticConfig((8,), 0.5, 0.1),
            "optimizer": optimizer("rmsprop"),
            "normalize_advantage": False,
            "anneal_lr": False,
        },
        num_envs=2,
    ),
    "ppo box actions, cut episodes": ppo(env=PENDULUM, num_envs=2),
    "ppo several numbers at once, 3 envs": ppo(env=env_config("probe_envs:Lock-v0", kind="binary"), num_envs=3),
    "ppo convolutions": ppo(env=PICTURES, network=CONVOLUTIONS, num_envs=2),
    "ppo wrappers, 2 envs": ppo(env=replace(PENDULUM, wrappers=WRAPPERS), num_envs=2),
    "ppo stepped in the program, 3 envs": ppo(env=IN_THE_PROGRAM, num_envs=3),
    "ppo stepped in the program, box actions": ppo(
        {"minibatches": 3, "rollout_steps": 9}, env=replace(PENDULUM, vectorization="compiled"), num_envs=2
    ),
    "a2c, 3 envs": ppo(
        {
            "name": "a2c",
            "rollout_steps": 5,
            "epochs": 1,
            "minibatches": 1,
            "gae_lambda": 1.0,
            "normalize_advantage": False,
            "optimizer": optimizer("rmsprop"),
        },
        num_envs=3,
    ),
    "pqn, 3 envs": pqn(num_envs=3),
    "pqn per episode, held actions, convolutions": pqn(
        {"anneal_lr": False, "q_lambda": 0.0, "max_grad_norm": None},
        exploration=PerEpisodeConfig("per_episode", 1.0, 0.1, 0.8, 1.5),
        env=PICTURES,
        network=CONVOLUTIONS,
        num_envs=2,
    ),
    "pqn wrappers, 2 envs": pqn(env=WRAPPED, num_envs=2),
    "pqn stepped in the program, held actions": pqn(
        {"rollout_steps": 9, "minibatches": 3},
        exploration=LinearConfig("linear", 1.0, 0.2, 60, 1.5),
        env=IN_THE_PROGRAM,
        num_envs=2,
    ),
    "q_learning": q_learning(),
    "q_learning falling step size, 3 envs": q_learning({"alpha_decay": 0.6, "initial_value": 1.0}, num_envs=3),
    "q_learning per episode": q_learning(
        exploration=PerEpisodeConfig("per_episode", 1.0, 0.1, 0.8), env=env_config("Taxi-v4"), num_envs=2
    ),
    "q_learning shifted, clipped": q_learning(
        env=replace(env_config("probe_envs:Shifted-v0"), reward_clip=6.5), exploration=ConstantConfig("constant", 0.3)
    ),
    "q_learning by episodes": q_learning(total_steps=100_000, total_episodes=11, num_envs=2),
}
if find_spec("minatar") is not None:
    CASES["pqn stepped in the program, MinAtar"] = pqn(env=MINATAR, network=CONVOLUTIONS, num_envs=4)
    CASES["dqn stepped in the program, MinAtar"] = dqn(
        {"n_step": 2, "prioritized": PRIORITIZED}, env=MINATAR, network=CONVOLUTIONS, num_envs=3
    )
    CASES["ppo stepped in the program, MinAtar"] = ppo(
        env=replace(env_config("MinAtar/Freeway-v1"), vectorization="compiled", max_episode_steps=30),
        network=CONVOLUTIONS,
        num_envs=2,
    )
