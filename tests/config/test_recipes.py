"""The recipes of the lectures, the notes and the guide, key by key: the numbers are those of their sources."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from rltrain.config.application import compose
from rltrain.config.folders import conf_folder
from rltrain.config.plain import to_plain

RUN: dict[str, Any] = {
    "name": None,
    "seed": 0,
    "num_envs": 1,
    "log_period": 1000,
    "stop_at_return": None,
    "init_from": None,
    "dry_run": False,
    "loggers": [],
    "eval": {"period": 5000, "episodes": 10, "num_envs": "auto"},
    "checkpoint": {"period": "auto", "keep": 3, "replay": True},
    "video": {"period": None},
    "device": {
        "name": "auto",
        "index": 0,
        "threads": "auto",
        "compile": "auto",
        "cuda_graphs": "auto",
        "deterministic": False,
    },
    "target_update": None,
    "exploration": None,
}
ENV: dict[str, Any] = {
    "kwargs": {},
    "max_episode_steps": None,
    "reward_clip": None,
    "wrappers": [],
    "vectorization": "auto",
    "step_timeout": None,
}
CARTPOLE = {**ENV, "id": "CartPole-v1"}
NO_BOUNDS = {"v_min": None, "v_max": None}
NO_MUNCHAUSEN = {"munchausen": None, "munchausen_temperature": 0.03, "munchausen_clip": -1.0}
ONE_LAYER = {
    "name": "mlp",
    "hidden": [128],
    "activation": "relu",
    "output_scale": 1.0,
    "init": None,
    "layer_norm": None,
    "noisy": False,
}
LECTURE_DQN = {
    **RUN,
    "total_steps": 100_000,
    "total_episodes": 200,
    "env": CARTPOLE,
    "network": ONE_LAYER,
    "algo": {
        "name": "dqn",
        "gamma": 0.99,
        "n_step": 1,
        "double": False,
        "batch_size": 64,
        "buffer_size": 10_000,
        "learning_starts": 63,
        "train_period": 1,
        "gradient_steps": 1,
        "loss": "mse",
        **NO_BOUNDS,
        **NO_MUNCHAUSEN,
        "max_grad_norm": None,
        "max_grad_value": None,
        "prioritized": None,
        "anneal_lr": False,
        "optimizer": {"name": "adam", "lr": 0.001, "eps": 1e-08, "weight_decay": 0.0, "amsgrad": False},
    },
    "target_update": {"name": "hard", "period": 10, "unit": "episodes"},
    "exploration": {"name": "per_episode", "start": 1.0, "end": 0.1, "decay": 0.995, "duration": None},
}
NOTES_DQN = {
    **RUN,
    "total_steps": 100_000,
    "total_episodes": 500,
    "env": {**CARTPOLE, "max_episode_steps": 200},
    "network": ONE_LAYER,
    "algo": {
        "name": "dqn",
        "gamma": 0.98,
        "n_step": 1,
        "double": False,
        "batch_size": 64,
        "buffer_size": 10_000,
        "learning_starts": 500,
        "train_period": 1,
        "gradient_steps": 1,
        "loss": "mse",
        **NO_BOUNDS,
        **NO_MUNCHAUSEN,
        "max_grad_norm": None,
        "max_grad_value": None,
        "prioritized": None,
        "anneal_lr": False,
        "optimizer": {"name": "adam", "lr": 0.002, "eps": 1e-08, "weight_decay": 0.0, "amsgrad": False},
    },
    "target_update": {"name": "hard", "period": 10, "unit": "gradient_steps"},
    "exploration": {"name": "constant", "end": 0.01, "duration": None},
}
GUIDE_DQN = {
    **RUN,
    "total_steps": 300_000,
    "total_episodes": 600,
    "env": CARTPOLE,
    "network": {**ONE_LAYER, "hidden": [128, 128]},
    "algo": {
        "name": "dqn",
        "gamma": 0.99,
        "n_step": 1,
        "double": False,
        "batch_size": 128,
        "buffer_size": 10_000,
        "learning_starts": 127,
        "train_period": 1,
        "gradient_steps": 1,
        "loss": "huber",
        **NO_BOUNDS,
        **NO_MUNCHAUSEN,
        "max_grad_norm": None,
        "max_grad_value": 100.0,
        "prioritized": None,
        "anneal_lr": False,
        "optimizer": {"name": "adamw", "lr": 0.0001, "eps": 1e-08, "weight_decay": 0.01, "amsgrad": True},
    },
    "target_update": {"name": "soft", "tau": 0.005, "period": 1, "unit": "env_steps"},
    "exploration": {"name": "exponential", "start": 0.9, "end": 0.05, "decay": 1000.0, "duration": None},
}
LECTURE_REINFORCE = {
    **RUN,
    "total_steps": 250_000,
    "total_episodes": 500,
    "env": CARTPOLE,
    "network": ONE_LAYER,
    "algo": {
        "name": "reinforce",
        "gamma": 0.99,
        "episodes_per_update": 1,
        "baseline": "none",
        "normalize_returns": "episode",
        "loss_reduction": "sum",
        "anneal_lr": False,
        "entropy_coef": 0.0,
        "max_grad_norm": None,
        "value": {"lr": 0.01, "steps": 1, "hidden": [128]},
        "optimizer": {"name": "adam", "lr": 0.01, "eps": 1e-08, "weight_decay": 0.0, "amsgrad": False},
    },
}
GUIDE_Q_LEARNING = {
    **RUN,
    "total_steps": 1_000_000,
    "total_episodes": 5_000,
    "env": {**ENV, "id": "FrozenLake-v1"},
    "network": None,
    "algo": {"name": "q_learning", "gamma": 0.99, "alpha": 0.1, "alpha_decay": 0.0, "initial_value": 0.0},
    "exploration": {"name": "per_episode", "start": 1.0, "end": 0.1, "decay": 0.999, "duration": None},
}
ATARI_2015 = {
    **RUN,
    "total_steps": 50_000_000,
    "total_episodes": None,
    "log_period": 10_000,
    "eval": {"period": 250_000, "episodes": 10, "num_envs": "auto"},
    "checkpoint": {"period": "auto", "keep": 1, "replay": True},
    "env": {
        **ENV,
        "id": "ALE/Breakout-v5",
        "kwargs": {"repeat_action_probability": 0.0},
        "reward_clip": 1.0,
        "wrappers": [
            {
                "name": "atari",
                "noop_max": 30,
                "frame_skip": 4,
                "screen_size": 84,
                "grayscale": True,
                "terminal_on_life_loss": True,
            },
            {"name": "frame_stack", "size": 4, "padding": "reset"},
        ],
    },
    "network": {
        "name": "cnn",
        **dict.fromkeys(("channels", "kernels", "strides", "hidden", "channel_axis"), "auto"),
        "dueling": False,
        "activation": "relu",
        "output_scale": 1.0,
        "init": None,
        "layer_norm": None,
        "memory_format": "channels_last",
        "noisy": False,
    },
    "algo": {
        **NOTES_DQN["algo"],
        "gamma": 0.99,
        "batch_size": 32,
        "buffer_size": 1_000_000,
        "learning_starts": 50_000,
        "train_period": 4,
        "loss": "huber",
        "optimizer": {"name": "rmsprop", "lr": 0.00025, "eps": 0.01, "weight_decay": 0.0, "amsgrad": False},
    },
    "target_update": {"name": "hard", "period": 10_000, "unit": "gradient_steps"},
    "exploration": {"name": "linear", "start": 1.0, "end": 0.1, "steps": 1_000_000, "duration": None},
}
RAINBOW = {
    **RUN,
    "total_steps": 50_000,
    "total_episodes": None,
    "env": CARTPOLE,
    "network": {
        "name": "dueling",
        "hidden": [128],
        "stream": [128],
        "activation": "relu",
        "output_scale": 1.0,
        "noisy": True,
    },
    "algo": {
        "name": "c51",
        "gamma": 0.99,
        "n_step": 3,
        "double": True,
        "batch_size": 32,
        "buffer_size": 50_000,
        "learning_starts": 1_000,
        "train_period": 1,
        "gradient_steps": 1,
        "atoms": 51,
        "v_min": 0.0,
        "v_max": 100.0,
        "anneal_lr": False,
        "max_grad_norm": 10.0,
        "max_grad_value": None,
        "optimizer": {"name": "adam", "lr": 0.001, "eps": 0.00015, "weight_decay": 0.0, "amsgrad": False},
        "prioritized": {"alpha": 0.5, "beta": 0.4, "beta_steps": 49_000, "eps": 1e-06},
    },
    "target_update": {"name": "hard", "period": 500, "unit": "env_steps"},
    "exploration": {"name": "constant", "end": 0.0, "duration": None},
}
RECIPES: dict[str, dict[str, Any]] = {
    "rainbow": RAINBOW,
    "atari_2015": ATARI_2015,
    "lecture_dqn": LECTURE_DQN,
    "notes_dqn": NOTES_DQN,
    "guide_dqn": GUIDE_DQN,
    "guide_q_learning": GUIDE_Q_LEARNING,
    "lecture_reinforce": LECTURE_REINFORCE,
    "lecture_reinforce_baseline": {**LECTURE_REINFORCE, "algo": {**LECTURE_REINFORCE["algo"], "baseline": "value"}},
    "lecture_reinforce_continuous": {
        **LECTURE_REINFORCE,
        "total_steps": 100_000,
        "env": {**ENV, "id": "Pendulum-v1"},
    },
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_whole_resolved_config(name: str) -> None:
    config, info = compose([f"experiment={name}"])
    assert to_plain(config) == RECIPES[name]
    assert info.tuned is None


@pytest.mark.parametrize("name", RECIPES)
def test_every_key_is_stated_in_the_recipe_itself(name: str) -> None:
    content = yaml.safe_load((conf_folder() / "experiment" / f"{name}.yaml").read_text())
    assert {"override /tuned": "none"} in content.pop("defaults")
    expected = copy.deepcopy(RECIPES[name])
    free = {"seed", "loggers", "video", "device"}  # the seed and the records are the user's, the device the machine's
    stated = {
        key: value for key, value in expected.items() if key not in free and not (value is None and key in GROUPS)
    }
    assert _shape(content) == _shape(stated)


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - {"atari_2015", "rainbow"}))
def test_no_step_limit_cuts_the_episodes(name: str) -> None:
    recipe = RECIPES[name]
    longest = {"CartPole-v1": 500, "Pendulum-v1": 200, "FrozenLake-v1": 100}[recipe["env"]["id"]]
    assert recipe["total_steps"] >= recipe["total_episodes"] * min(
        longest, recipe["env"]["max_episode_steps"] or longest
    )


@pytest.mark.parametrize(("env", "longest"), [("Taxi-v4", 200), ("CliffWalking-v1", None)])
def test_the_table_s_recipe_is_the_same_elsewhere(env: str, longest: int | None) -> None:
    config, _ = compose(["experiment=guide_q_learning", f"env={env}"])
    assert to_plain(config) == {**GUIDE_Q_LEARNING, "env": {**ENV, "id": env}}
    assert longest is None or GUIDE_Q_LEARNING["total_steps"] >= GUIDE_Q_LEARNING["total_episodes"] * longest


@pytest.mark.parametrize("env", ["Acrobot-v1", "MinAtar/Breakout-v1"])
def test_rainbow_is_the_same_elsewhere(env: str) -> None:
    config, _ = compose(["experiment=rainbow", f"env={env}", "algo.v_min=-100"])
    found = to_plain(config)
    assert {**found, "env": None} == {**RAINBOW, "env": None, "algo": {**RAINBOW["algo"], "v_min": -100.0}}


def test_every_recipe_is_compared() -> None:
    assert set(RECIPES) == {path.stem for path in (conf_folder() / "experiment").glob("*.yaml")}


GROUPS = ("network", "target_update", "exploration")


def _shape(tree: Any) -> Any:
    return {key: _shape(value) for key, value in tree.items()} if isinstance(tree, dict) else None
