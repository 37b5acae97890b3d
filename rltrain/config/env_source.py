"""`env=<any id registered with Gymnasium>`: a Hydra config source that answers for the group `env`.

Files come first in the search path, so conf/env/<id>.yaml replaces what this source says.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf

from rltrain.config.env_families import is_family_id, register_families
from rltrain.errors import EXTRAS

_GROUP = "env"
_PACKAGES = {
    "gymnasium.envs.box2d": "Box2D",
    "gymnasium.envs.mujoco": "mujoco",
    "gymnasium.envs.phys2d": "jax",
    "gymnasium.envs.tabular": "jax",
}
"""Part of Gymnasium -> the package that its environments need."""


@functools.cache
def _ids_in_gymnasium_source() -> frozenset[str]:
    """The ids that Gymnasium itself registers, read as text: importing it costs half of a refusal's time."""
    spec = importlib.util.find_spec("gymnasium")
    if spec is None or spec.origin is None:
        return frozenset()
    text = (Path(spec.origin).parent / "envs" / "__init__.py").read_text()
    return frozenset(re.findall(r'^\s+id="([\w/.-]+)"', text, re.MULTILINE))


def env_ids() -> list[str]:
    """Every registered environment id, sorted, without those of which Gymnasium has only an error left."""
    import gymnasium

    register_families()
    return sorted(env_id for env_id, spec in gymnasium.registry.items() if not _only_raises(spec))


def _only_raises(spec: Any) -> bool:
    return getattr(spec.entry_point, "__name__", "").startswith("_raise")


def env_specs() -> list[Any]:
    """Gymnasium's own record (`EnvSpec`) of each of `env_ids`."""
    import gymnasium

    return [gymnasium.registry[env_id] for env_id in env_ids()]


def lacking(spec: Any) -> str:
    """The package that a part of Gymnasium needs for this environment and that is not installed; empty if none is."""
    package = _PACKAGES.get(".".join(str(spec.entry_point).split(".")[:3]), "")
    return package if package and importlib.util.find_spec(package) is None else ""


def package_lacking(env_id: str) -> str:
    """`lacking` of an environment by its id; empty for one that is not registered."""
    import gymnasium

    name = env_id.rpartition(":")[2]
    return lacking(gymnasium.spec(name)) if name in gymnasium.registry else ""


def brought_by(env_id: str) -> str:
    """`; ID needs pip install ...`, the end of a message about a registered environment whose package of an extra of
    ours is not installed; empty for any other."""
    import gymnasium

    extra = EXTRAS.get(lacking(gymnasium.registry[env_id]).lower()) if env_id in gymnasium.registry else None
    return f"; {env_id} needs pip install 'rltrain[{extra}]'" if extra else ""


def left_out() -> str:
    """Why ids of an installed package are missing in `env_ids`; nothing where none are."""
    return register_families()


def env_creator(env_id: str) -> Any:
    """The class or function that makes a registered environment; `module:id` must have been imported."""
    import gymnasium
    from gymnasium.envs.registration import load_env_creator

    entry_point = gymnasium.spec(env_id.rpartition(":")[2]).entry_point
    return load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point


def is_env_id(env_id: str) -> bool:
    """Whether an environment of this id can be asked of Gymnasium; `module:id` is left to its module."""
    module, colon, name = env_id.partition(":")
    if colon:
        return bool(module and name)
    if "gymnasium" not in sys.modules and env_id in _ids_in_gymnasium_source():
        return True
    if is_family_id(env_id):
        return True
    import gymnasium

    register_families()
    return env_id in gymnasium.registry and not _only_raises(gymnasium.registry[env_id])


class GymnasiumConfigSource(ConfigSource):
    """`env/<id>` is the config {id: <id>} for every id that Gymnasium knows."""

    @staticmethod
    def scheme() -> str:
        return "gymnasium"

    def load_config(self, config_path: str) -> ConfigResult:
        env_id = self._env_id(config_path)
        if env_id is None:
            raise ConfigLoadError(f"no environment: {config_path}")
        return ConfigResult(
            provider=self.provider,
            path=f"{self.scheme()}://{env_id}",
            config=OmegaConf.create({"id": env_id}),
            header={"package": None},
        )

    def is_group(self, config_path: str) -> bool:
        return config_path in ("", _GROUP)

    def is_config(self, config_path: str) -> bool:
        return self._env_id(config_path) is not None

    def available(self) -> bool:
        return True

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        if config_path == "" and results_filter != ObjectType.CONFIG:
            return [_GROUP]
        if config_path == _GROUP and results_filter != ObjectType.GROUP:
            return env_ids()
        return []

    @staticmethod
    def _env_id(config_path: str) -> str | None:
        group, _, name = config_path.partition("/")
        name = name.removesuffix(".yaml")
        return name if group == _GROUP and name and is_env_id(name) else None
