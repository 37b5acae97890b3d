"""Facts about how a config was composed, for the run's header."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from rltrain.config.folders import USER_ORIGINS
from rltrain.config.override_text import key_of
from rltrain.config.plain import leaves
from rltrain.terminal.shell import shown_path


@dataclass(frozen=True)
class ComposeInfo:
    """How a config was composed.

    Attributes:
        tuned: name of the tuned file that applied, e.g. `dqn_CartPole-v1`.
        tuned_path: where it lies.
        tuned_keys: what it set and nothing stronger did, not even to the same: dotted key -> value, group -> choice.
        overrides: what the user typed, after the folder of configs that was named, if one was.
        tuned_file: all that the tuned file says, in the form of `tuned_keys`.
    """

    tuned: str | None = None
    tuned_path: Path | None = None
    tuned_keys: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    tuned_file: dict[str, Any] = field(default_factory=dict)


def compose_info(hydra_cfg: Any, plain: Mapping[Any, Any]) -> ComposeInfo:
    """Reads it from Hydra's own record of a job, so it also works in another launcher's process.

    Args:
        hydra_cfg: the job's `hydra` node, or the same as plain data.
        plain: the job's resolved config.
    """
    sources = hydra_cfg["runtime"]["config_sources"]
    folders = [Path(source["path"]) for source in sources if source["provider"] == USER_ORIGINS[0]]
    named = [f"--config-dir={shown_path(folder)}" for folder in folders]
    overrides = [*named, *hydra_cfg["overrides"]["task"]]
    choices: dict[str, Any] = dict(hydra_cfg["runtime"]["choices"])
    name = choices.get("tuned")
    if name in (None, "auto", "none"):
        return ComposeInfo(overrides=overrides)
    path = _tuned_path(hydra_cfg, str(name))
    content = {} if path is None else copy.deepcopy(_read(path, path.stat().st_mtime_ns))
    picks = {
        str(key).removeprefix("override ").lstrip("/"): value
        for entry in content.pop("defaults", [])
        if isinstance(entry, Mapping)
        for key, value in entry.items()
    }
    typed = {key_of(override) for override in overrides}
    keys = {group: value for group, value in picks.items() if choices.get(group) == value and group not in typed}
    final = leaves(plain)
    settings = leaves(content)
    for key, value in settings.items():
        section = key.partition(".")[0]
        chosen = picks.get(section, choices.get(section)) == choices.get(section)
        if chosen and final.get(key) == value and key not in typed:
            keys[key] = value
    return ComposeInfo(str(name), path, keys, overrides, {**picks, **settings})


def _tuned_path(hydra_cfg: Any, name: str) -> Path | None:
    for source in hydra_cfg["runtime"]["config_sources"]:
        path = Path(source["path"]) / "tuned" / f"{name}.yaml"
        if source["schema"] == "file" and path.is_file():
            return path
    return None


@functools.cache
def _read(path: Path, mtime: int) -> dict[Any, Any]:
    """Once, though each job of a sweep asks for it; again when it has changed."""
    content = OmegaConf.to_container(OmegaConf.load(path))
    return content if isinstance(content, dict) else {}
