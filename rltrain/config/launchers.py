"""`hydra/launcher=slurm` and `ray`: keys of the launchers that train a sweep on other machines. Hydra-free."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Annotated, Any

from rltrain.config.folders import conf_folder
from rltrain.config.plain import read_settings, show, to_plain
from rltrain.config.schema import Range
from rltrain.config.spelling import suggestion
from rltrain.config.validate import build_section
from rltrain.errors import RequestError


@dataclass(frozen=True)
class SlurmConfig:
    """`hydra/launcher=slurm`: a task is a job of Slurm. Keys are called as in submitit."""

    jobs_per_task: Annotated[int, Range(1)]
    retries: Annotated[int, Range(0)]
    partition: str | None
    account: str | None
    qos: str | None
    constraint: str | None
    timeout_min: Annotated[int, Range(1)]
    cpus_per_task: Annotated[int, Range(1)]
    gpus_per_node: Annotated[int, Range(0)]
    mem_gb: Annotated[float | None, Range(above=0)]
    array_parallelism: Annotated[int, Range(1)]
    signal_delay_s: Annotated[int, Range(1)]
    setup: tuple[str, ...]
    additional_parameters: dict[str, Any]


@dataclass(frozen=True)
class RayConfig:
    """`hydra/launcher=ray`: a task is a task of Ray. Keys are called as in Ray."""

    jobs_per_task: Annotated[int, Range(1)]
    retries: Annotated[int, Range(0)]
    address: str
    num_cpus: Annotated[int, Range(1)]
    num_gpus: Annotated[float, Range(0)]
    memory_gb: Annotated[float | None, Range(above=0)]
    resources: dict[str, Any]


Launcher = SlurmConfig | RayConfig
LAUNCHERS: dict[str, type[Launcher]] = {"slurm": SlurmConfig, "ray": RayConfig}
EXTRAS = {"slurm": "submitit", "ray": "ray"}
"""The package of each launcher; its extra is called as the launcher is."""
_NEEDS_TRUST = ("setup", "additional_parameters", "address")
"""Keys that run commands, write files, or send the jobs to other machines."""


def launcher_config(name: str, given: Mapping[str, Any], submits: bool = True) -> Launcher:
    """The keys of a launcher, those that are not given by their defaults in conf/hydra/launcher/. Where it `submits`,
    there must be what it does that with.

    Raises:
        RequestError: an unknown key, a wrong value, or the launcher's package is not installed.
    """
    values = {**_defaults(name), **given}
    config: Launcher = build_section(LAUNCHERS[name], values, "hydra.launcher")
    for key, text in _texts(to_plain(config)):
        if not text.isprintable():
            raise RequestError(f"hydra.launcher.{key}={text!r}: holds a character that cannot be printed")
    if isinstance(config, RayConfig):
        for resource, amount in config.resources.items():
            if type(amount) not in (int, float) or not 0 < amount < float("inf"):
                raise RequestError(f"hydra.launcher.resources.{resource}={show(amount)}: must be a number > 0")
    if isinstance(config, SlurmConfig):
        _check_parameters(config)
    if submits:
        _require(name)
    return config


def _require(name: str) -> None:
    """Refuses a launcher that has nothing here to launch with."""
    if find_spec(EXTRAS[name]) is None:
        raise RequestError(
            f"hydra/launcher={name}: {EXTRAS[name]} is not installed; pip install 'rltrain[{name}]' brings it"
        )
    commands = ("sbatch", "srun", "squeue") if name == "slurm" else ()
    if missing := [command for command in commands if shutil.which(command) is None]:
        raise RequestError(f"hydra/launcher={name}: there is no {missing[0]} here; start the sweep on a login node")


def wrong_launcher_key(key: str, name: str) -> str:
    """Message about a key that the launcher `name` does not have."""
    if name not in LAUNCHERS:
        others = " and ".join(f"hydra/launcher={other}" for other in LAUNCHERS)
        return f"hydra.launcher.{key}: unknown key of hydra/launcher={name}; {others} have keys"
    known = [field.name for field in fields(LAUNCHERS[name])]
    return f"hydra.launcher.{key}: unknown key{suggestion(key, known)}\nknown: {', '.join(known)}"


def launcher_to_plain(config: Launcher) -> dict[str, Any]:
    """The launcher's name and keys, as a sweep's folder keeps them."""
    return {"name": name_of(config), **to_plain(config)}


def stored_launcher(plain: Mapping[str, Any], given: Mapping[str, Any], trust: bool) -> Launcher:
    """The launcher that a sweep's folder names, which may be untrusted, with the keys that are given.

    Raises:
        RequestError: it is none; or it would run commands of the folder's, which the user has not said to trust.
    """
    name = plain.get("name")
    if not isinstance(name, str) or name not in LAUNCHERS:
        raise RequestError(f"the sweep's launcher {show(name)} is none of {', '.join(LAUNCHERS)}")
    kept = {key: value for key, value in plain.items() if key != "name" and key not in given}
    if not trust and (key := _deciding(name, kept)):
        raise RequestError(
            f"hydra.launcher.{key}={show(kept[key])}: stands in the sweep's folder, and decides what runs where\n"
            "if you know where it comes from, say trust=true, or give the key yourself"
        )
    return launcher_config(name, {**kept, **given})


def needs_trust(config: Launcher) -> bool:
    """Whether `stored_launcher` takes it only from a folder that the user trusts."""
    return bool(_deciding(name_of(config), to_plain(config)))


def _deciding(name: str, keys: Mapping[str, Any]) -> str:
    """The first key that is not at its default and decides what runs where; empty where there is none."""
    defaults = _defaults(name)
    return next((key for key in _NEEDS_TRUST if key in keys and keys[key] != defaults.get(key)), "")


def name_of(config: Launcher) -> str:
    """The launcher's name, as after `hydra/launcher=`."""
    return next(name for name, cls in LAUNCHERS.items() if isinstance(config, cls))


def _defaults(name: str) -> dict[str, Any]:
    plain = read_settings(conf_folder() / "hydra" / "launcher" / f"{name}.yaml")
    del plain["_target_"]
    return plain


def _texts(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    for key, value in values.items():
        inside = value if isinstance(value, list) else [*value, *value.values()] if isinstance(value, dict) else [value]
        found += [(key, text) for text in inside if isinstance(text, str)]
    return found


def _check_parameters(config: SlurmConfig) -> None:
    own = {"array", "output", "error", "signal", "open-mode", "requeue", "chdir", "wrap"}
    for name, value in config.additional_parameters.items():
        key = f"hydra.launcher.additional_parameters.{name}"
        if not re.fullmatch(r"[a-z][a-z-]*", name):
            raise RequestError(f"{key}: must be an option of sbatch, such as mail-user{suggestion(name, own)}")
        if name in own:
            raise RequestError(f"{key}: is decided by the launcher")
        if not isinstance(value, str | int | float | bool):
            raise RequestError(f"{key}={show(value)}: must be a word, a number, true or false")
