"""Where configs are searched, and the Hydra application that composes them."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from rltrain.config.env_source import GymnasiumConfigSource
from rltrain.config.loader import RunConfigLoader
from rltrain.config.run_name import run_name
from rltrain.config.shipped import conf_folder
from rltrain.errors import RequestError

CONFIG_NAME = "config"


def create_application(config_dir: str | None = None) -> Hydra:
    """The Hydra application over the shipped configs, $RLTRAIN_CONF (folders, separated as in $PATH) and `config_dir`.

    A user's file replaces the shipped one of the same name; `config_dir` comes first.
    """
    import_plugins()
    version.setbase(None)
    OmegaConf.register_new_resolver("rltrain_run_name", run_name, replace=True)
    Plugins.instance().register(GymnasiumConfigSource)
    search_path = create_config_search_path(str(conf_folder()))
    for origin, folder in user_folders(config_dir):
        search_path.prepend(origin, f"file://{folder}", anchor=SearchPathQuery(provider="main"))
    search_path.prepend("gymnasium", "gymnasium://", anchor=SearchPathQuery(provider="schema"))
    GlobalHydra.instance().clear()
    hydra = Hydra(task_name="rltrain", config_loader=RunConfigLoader(search_path))
    GlobalHydra.instance().initialize(hydra)
    return hydra


def user_folders(config_dir: str | None) -> list[tuple[str, Path]]:
    """(where it was named, absolute folder) of each folder of the user's own configs, the weakest first."""
    named = [("RLTRAIN_CONF", folder) for folder in os.environ.get("RLTRAIN_CONF", "").split(os.pathsep) if folder]
    named.reverse()
    if config_dir is not None:
        named.append(("--config-dir", config_dir))
    for origin, folder in named:
        if not Path(folder).is_dir():
            raise RequestError(f"{origin}={folder}: is not a folder")
    return [(origin, Path(folder).absolute()) for origin, folder in named]


def import_plugins() -> None:
    """Imports the modules that $RLTRAIN_PLUGINS names, so that they can register what they add."""
    for module in filter(None, (name.strip() for name in os.environ.get("RLTRAIN_PLUGINS", "").split(","))):
        try:
            importlib.import_module(module)
        except Exception as error:
            raise RequestError(
                f"RLTRAIN_PLUGINS={module}: cannot be imported: {type(error).__name__}: {error}"
            ) from error
