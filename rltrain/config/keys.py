"""Dotted keys of the config: which there are, and which one was meant."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin, get_type_hints

from rltrain.config import schema
from rltrain.config.spelling import closest
from rltrain.errors import RequestError
from rltrain.terminal.shell import rltrain_command

# A key, whole or its last part -> its names in other libraries.
OTHER_NAMES = {
    "total_steps": "timesteps total_timesteps n_timesteps num_timesteps max_steps train_steps steps",
    "total_episodes": "n_episodes num_episodes max_episodes",
    "num_envs": "n_envs envs",
    "log_period": "log_interval log_freq",
    "eval.period": "eval_freq eval_interval eval_every",
    "eval.episodes": "eval_episodes n_eval_episodes num_eval_episodes",
    "checkpoint.period": "save_freq save_interval save_every checkpoint_freq",
    "video.period": "capture_video record_video",
    "hidden": "hidden_sizes hidden_size hidden_dim hidden_units net_arch layers",
    "env.max_episode_steps": "time_limit max_episode_length",
    "device.threads": "num_threads n_threads",
    "lr": "learning_rate",
    "algo.alpha": "lr learning_rate step_size",
    "algo.optimizer.name": "optimizer",
    "gamma": "discount discount_factor",
    "max_grad_norm": "grad_clip clip_grad grad_clip_norm clip_grad_norm",
    "batch_size": "batch",
    "buffer_size": "buffer capacity memory_size replay_size replay_capacity replay_buffer_size",
    "learning_starts": "warmup warmup_steps start_steps min_replay_size",
    "train_period": "train_freq train_frequency update_freq update_every train_every",
    "n_step": "n_steps nstep multi_step",
    "atoms": "n_atoms num_atoms",
    "quantiles": "n_quantiles num_quantiles",
    "target_update.period": "target_network_frequency target_update_interval target_update_freq",
    "tau": "polyak",
    "exploration.start": "start_e eps_start epsilon_start exploration_initial_eps",
    "exploration.end": "epsilon end_e eps_end epsilon_end eps_min epsilon_min exploration_final_eps",
    "exploration.decay": "eps_decay epsilon_decay",
    "exploration.steps": "exploration_fraction fraction decay_steps eps_decay_steps",
    "env.wrappers": "frame_stack normalize norm_obs norm_reward normalize_obs normalize_reward",
    "env.reward_clip": "clip_reward clip_rewards reward_clipping",
    "rollout_steps": "n_steps num_steps rollout_length unroll_length",
    "epochs": "n_epochs num_epochs update_epochs",
    "minibatches": "n_minibatches num_minibatches",
    "gae_lambda": "lambda lam",
    "q_lambda": "lambda lam",
    "algo.clip": "clip_coef clip_range clip_param eps_clip",
    "entropy_coef": "ent_coef",
    "algo.value.coef": "vf_coef value_coef value_loss_coef",
    "normalize_advantage": "norm_adv",
}
# What is a choice here -> its names as a key elsewhere.
NAMES_OF_CHOICES = {
    "env": "env_id env_name gym_id gym_env",
    "network": "policy",
    "--config-dir": "conf config config_file config_path",
    "hydra.run.dir": "tensorboard_log log_dir output_dir save_dir run_dir",
    "tune.trials": "n_trials num_trials trials",
    "device=cuda": "cuda gpu use_gpu use_cuda",
    "network=dueling": "dueling",
    "replay=prioritized": "per prioritized prioritized_replay",
    "loggers=[wandb]": "track wandb use_wandb",
}
_SIZES_OF_MINIBATCHES = ("batch_size", "minibatch_size", "mini_batch_size")
"""Names elsewhere of how large the minibatches of a rollout are: here their number is a key, and their size is not."""


def unknown_key(key: str, choices: Mapping[str, str], names: Mapping[str, str] | None = None) -> str | None:
    """Says what is wrong with a dotted key; None where the schema knows it.

    Args:
        choices: of the groups, as far as they are known; of any other group every choice's keys are known.
        names: `network.name` and its like, of the groups where it is another than the choice: that of exploration=none
            is constant.
    """
    named = {**choices, **(names or {})}
    leaves = sorted(leaf for leaf, _ in _leaves(schema.RunConfig, "", named))
    if key in leaves or key.startswith("env.kwargs") or any(leaf.startswith(f"{key}.") for leaf in leaves):
        return None
    section = key.partition(".")[0]
    owner = f" of {section}={choices[section]}" if section in choices and "." in key else ""
    if key.rpartition(".")[2] in _SIZES_OF_MINIBATCHES and "algo.minibatches" in leaves:
        return f"unknown key{owner}; algo.minibatches says into how many a rollout is divided"
    if elsewhere := _owners(key):
        return f"unknown key{owner}; it belongs to {' and '.join(elsewhere)}"
    matches = same_name(key, named) or [choice for choice, others in NAMES_OF_CHOICES.items() if key in others.split()]
    if not matches and section == "env" and "." in key and not closest(key, leaves, cutoff=0.8):
        matches = [f"env.kwargs.{key.partition('.')[2]}"]
    if not matches and (others := same_name(key, {})):
        return f"unknown key; {others[0]} belongs to {' and '.join(_owners(others[0]))}"
    if not matches:
        sections = {leaf.partition(".")[0] for leaf in leaves} | {"experiment", "tuned"}
        by_name = {leaf.rpartition(".")[2]: leaf for leaf in leaves} | {section: section for section in sections}
        alike = closest(key, leaves) if "." in key else []
        matches = alike or [by_name[name] for name in closest(key.rpartition(".")[2], by_name)]
    guess = f"; did you mean {' or '.join(matches[:3])}?" if matches else "; `rltrain --cfg job` shows all keys"
    return f"unknown key{owner}{guess}"


def same_name(key: str, choices: Mapping[str, str]) -> list[str]:
    """The keys whose last part is that of `key`, or means the same: lr is algo.optimizer.lr. Whole keys come first."""
    name = key.rpartition(".")[2]
    wanted = [name, *(own for own, others in OTHER_NAMES.items() if name in others.split())]
    leaves = sorted({leaf for leaf, _ in _leaves(schema.RunConfig, "", choices)})
    found = [leaf for leaf in leaves if leaf in wanted or leaf.rpartition(".")[2] in wanted]
    return sorted(found, key=lambda leaf: leaf not in wanted)


def _owners(key: str) -> list[str]:
    """The choices of its group that have a key, or keys below it: algo=ppo and algo=a2c of algo.gae_lambda."""
    section = key.partition(".")[0]
    return [
        f"{section}={name}"
        for name, cls in schema.GROUP_CONFIGS.get(section, {}).items()
        if any(f"{leaf}.".startswith(f"{key}.") for leaf, _ in _leaves(cls, f"{section}.", {}))
    ]


def as_written(overrides: Sequence[str]) -> list[str]:
    """The overrides with the proper name of a choice that has two: device=gpu becomes device=cuda."""
    return [
        re.sub(r"(?<=[=,])gpu(?=,|$)", "cuda", override) if override.startswith("device=") else override
        for override in overrides
    ]


def in_one_word(line: Sequence[str]) -> RequestError:
    """The refusal of settings in another tool's form, with the arguments of `rltrain` that were meant."""
    return RequestError(f"settings are written key=value, in one word\ndid you mean: {rltrain_command(*line)}")


def takes_list(key: str) -> bool:
    """Whether a key's values are lists."""
    return any(tuple in (get_origin(part) for part in (hint, *get_args(hint))) for hint in _hints(key))


def is_flag(key: str) -> bool:
    """Whether a key is true or false."""
    return bool in _hints(key)


def _hints(key: str) -> list[Any]:
    return [hint for leaf, hint in _leaves(schema.RunConfig, "", {}) if leaf == key]


@functools.cache
def _types_of(cls: type) -> dict[str, Any]:
    """The types of a dataclass's fields, evaluated once: each override asks for all of them."""
    return get_type_hints(cls)


def _leaves(cls: type, prefix: str, choices: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """(key, type) of each leaf."""
    hints = _types_of(cls)
    for field in dataclasses.fields(cls):
        key, hint = f"{prefix}{field.name}", hints[field.name]
        if key in schema.GROUP_CONFIGS:
            classes = schema.GROUP_CONFIGS[key]
            chosen = [classes[choices[key]]] if choices.get(key) in classes else list(classes.values())
        else:
            chosen = [
                part for part in (hint, *get_args(hint)) if isinstance(part, type) and dataclasses.is_dataclass(part)
            ]
        if not chosen:
            yield key, hint
        for part in chosen:
            yield from _leaves(part, f"{key}.", choices)
