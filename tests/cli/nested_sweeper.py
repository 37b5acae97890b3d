"""A sweeper in the form of Optuna's: another one inside has the launcher, and it writes what it found into the sweep's
folder. Loaded through RLTRAIN_PLUGINS."""

import sys
import types
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

from rltrain.commands.cluster_launcher import register_launchers


class Inner(Sweeper):
    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        how = {"hydra_context": hydra_context, "task_function": task_function, "config": config}
        self.launcher, self.folder = Plugins.instance().instantiate_launcher(**how), Path(config.hydra.sweep.dir)

    def sweep(self, arguments: list[str]) -> None:
        (seeds,) = [word.removeprefix("seed=") for word in arguments]
        jobs = self.launcher.launch([(f"seed={seed}",) for seed in seeds.split(",")], initial_job_idx=0)
        values = [job.return_value for job in jobs]
        if 99.0 in values:
            raise KeyError("a bug of the sweeper's")
        (self.folder / "found.txt").write_text(f"{values}")


class NestedSweeper(Sweeper):
    def __init__(self, direction: str, **_: Any) -> None:
        self.inner = Inner()

    def setup(self, **how: Any) -> None:
        self.inner.setup(**how)

    def sweep(self, arguments: list[str]) -> None:
        self.inner.sweep(arguments)


NestedSweeper.__module__ = "hydra_plugins.nested"
register_launchers()  # makes the package
sys.modules["hydra_plugins.nested"] = module = types.ModuleType("hydra_plugins.nested")
module.NestedSweeper = NestedSweeper  # type: ignore[attr-defined]
Plugins.instance().register(NestedSweeper)
NODE = {"_target_": "hydra_plugins.nested.NestedSweeper", "direction": "minimize", "max_failure_rate": 0.0}
ConfigStore.instance().store(group="hydra/sweeper", name="nested", node=NODE, provider="test")
