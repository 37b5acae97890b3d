"""Where configs are searched, and the Hydra application that composes them."""

from __future__ import annotations

import copy
from typing import Any

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from rltrain.config.env_source import GymnasiumConfigSource
from rltrain.config.folders import conf_folder, import_plugins, user_folders
from rltrain.config.info import ComposeInfo, compose_info
from rltrain.config.keys import as_written
from rltrain.config.messages import COMPOSE_ERRORS, check_overrides, explain, refuse_sweep
from rltrain.config.run_name import run_name
from rltrain.config.schema import RunConfig
from rltrain.config.sweep_loader import SweepConfigLoader
from rltrain.config.validate import validate

CONFIG_NAME = "config"
_POPULATION = "hydra_plugins.rltrain.PopulationLauncher"


def create_application(config_dir: str | None = None) -> Hydra:
    """The Hydra application over the shipped configs, $RLTRAIN_CONF (folders, separated as in $PATH) and `config_dir`.

    A user's file replaces the shipped one of the same name; `config_dir` comes first.
    """
    import_plugins()
    version.setbase(None)
    OmegaConf.register_new_resolver("rltrain_run_name", run_name, replace=True)
    Plugins.instance().register(GymnasiumConfigSource)
    # Composing a config needs the launcher's name only; the class is registered by who runs a sweep.
    launcher = {"_target_": _POPULATION}
    ConfigStore.instance().store(group="hydra/launcher", name="population", node=launcher, provider="rltrain")
    search_path = create_config_search_path(str(conf_folder()))
    for origin, folder in user_folders(config_dir):
        search_path.prepend(origin, f"file://{folder}", anchor=SearchPathQuery(provider="main"))
    search_path.prepend("gymnasium", "gymnasium://", anchor=SearchPathQuery(provider="schema"))
    GlobalHydra.instance().clear()
    hydra = Hydra(task_name="rltrain", config_loader=SweepConfigLoader(search_path))
    GlobalHydra.instance().initialize(hydra)
    return hydra


def compose(overrides: list[str], config_dir: str | None = None) -> tuple[RunConfig, ComposeInfo]:
    """The config that `rltrain <overrides>` would run with, and how it came about; creates nothing.

    Raises:
        RequestError: as the command line would.
    """
    hydra = create_application(config_dir)
    try:
        overrides = as_written(overrides)
        check_overrides(overrides, hydra.config_loader)
        refuse_sweep(overrides, "several values are a sweep: add -m")
        cfg = hydra.compose_config(CONFIG_NAME, overrides, run_mode=RunMode.RUN)
    except COMPOSE_ERRORS as error:
        raise explain(error, overrides, hydra.config_loader) from error
    finally:
        GlobalHydra.instance().clear()
    with open_dict(cfg):
        hydra_cfg = cfg.pop("hydra")
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return validate(plain), compose_info(hydra_cfg, plain)


def launcher_of(overrides: list[str], config_dir: str | None = None) -> tuple[str, dict[str, Any]]:
    """The launcher that Hydra's overrides choose: `population`, `slurm`, `ray`, or another's class; and its keys.

    Raises:
        RequestError: there is none of that name, or it has not these keys.
    """
    hydra = create_application(config_dir)
    try:
        cfg = hydra.compose_config(CONFIG_NAME, overrides, run_mode=RunMode.MULTIRUN, with_log_configuration=False)
    except COMPOSE_ERRORS as error:
        raise explain(error, overrides, hydra.config_loader) from error
    finally:
        GlobalHydra.instance().clear()
    keys: Any = OmegaConf.to_container(cfg.hydra.launcher, resolve=True)
    target = str(keys.pop("_target_"))
    own = target.removeprefix("hydra_plugins.rltrain.")
    return (own.removesuffix("Launcher").lower() if own != target else target), keys


def job_variables(cfg: DictConfig) -> dict[str, str]:
    """`hydra.job.env_set` of a composed job: the environment variables that hold while it runs."""
    if not cfg.hydra.job.env_set:
        return {}
    before = HydraConfig.instance().cfg
    known = copy.deepcopy(cfg)  # it becomes read-only
    HydraConfig.instance().set_config(known)  # for values that say ${hydra:...}
    try:
        return {str(name): str(value) for name, value in known.hydra.job.env_set.items()}
    finally:
        HydraConfig.instance().cfg = before


def run_config(cfg: DictConfig) -> RunConfig:
    """The config of a composed job, without Hydra's own part."""
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    resolved: Any = OmegaConf.to_container(
        OmegaConf.create({key: value for key, value in plain.items() if key != "hydra"}), resolve=True
    )
    return validate(resolved)
