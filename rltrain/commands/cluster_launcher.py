"""`hydra/launcher=slurm` and `hydra/launcher=ray`: a new sweep as tasks on a cluster."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Sequence
from dataclasses import replace
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from rltrain.commands.cluster import task_groups, train_on_cluster
from rltrain.commands.launcher import PopulationLauncher, returned
from rltrain.config.launchers import launcher_config
from rltrain.errors import Pruned, RequestError, RunFailed
from rltrain.storage.run_folder import RunFolder
from rltrain.storage.run_result import read_result, read_status
from rltrain.terminal.output import say
from rltrain.terminal.text import counted, counted_names, wrapped

_MOST_SHOWN = 4  # tasks of a dry run


class ClusterLauncher(PopulationLauncher):
    """Hands the jobs to a cluster, waits, and reads from their folders how they ended.

    Args:
        keys: of the launcher's file.
    """

    here = False
    name: ClassVar[str]

    def __init__(self, **keys: Any) -> None:
        self._keys = keys

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        plain: Any = OmegaConf.to_container(OmegaConf.create(self._keys), resolve=True)
        self._launcher = launcher_config(self.name, plain, submits=not config.dry_run)
        if config.hydra.callbacks:
            raise RequestError(
                f"hydra.callbacks: are told of jobs that run here; with hydra/launcher={self.name} none do"
            )

    def _look_at_each_kind(self) -> list[JobReturn]:
        """Also tells what the tasks would be."""
        returns = super()._look_at_each_kind()
        tasks = task_groups({str(j.number): replace(j.config, dry_run=False) for j in self._jobs}, self._launcher)
        shown = "; ".join(counted_names("job", names) for names in tasks[:_MOST_SHOWN])
        more = f"; and {len(tasks) - _MOST_SHOWN:,} more" if len(tasks) > _MOST_SHOWN else ""
        say(wrapped(f"tasks     {counted(len(tasks), 'task')} of hydra/launcher={self.name}: {shown}{more}"))
        return returns

    def _train(self, own: Sequence[Sequence[str]]) -> list[JobReturn]:
        sweep = Path(self._config.hydra.sweep.dir)
        if any(job.variables for job in self._jobs):
            raise RequestError(
                f"hydra.job.env_set: holds for jobs that run here; with hydra/launcher={self.name} none do"
            )
        jobs = {job.folder: job.config for job in self._jobs}
        imports = [name for job in self._jobs for name in job.config.imports]
        lost = train_on_cluster(sweep, jobs, self._launcher, ["trust=true"], imports)
        return [returned(job, _outcome(job.folder, lost.get(job.folder))) for job in self._jobs]


class SlurmLauncher(ClusterLauncher):
    """`hydra/launcher=slurm`."""

    name = "slurm"


class RayLauncher(ClusterLauncher):
    """`hydra/launcher=ray`."""

    name = "ray"


# Hydra takes a launcher only from a package of this name, which need not be a folder anywhere.
_PACKAGE, _MODULE = "hydra_plugins", "hydra_plugins.rltrain"


def register_launchers() -> None:
    """Makes the launchers known to Hydra under the names that config/application.py gives them."""
    if _PACKAGE not in sys.modules and importlib.util.find_spec(_PACKAGE) is None:
        sys.modules[_PACKAGE] = module_from_spec(ModuleSpec(_PACKAGE, None, is_package=True))
    module = types.ModuleType(_MODULE)
    importlib.import_module(_PACKAGE).__dict__["rltrain"] = sys.modules[_MODULE] = module
    for launcher in (PopulationLauncher, SlurmLauncher, RayLauncher):
        launcher.__module__ = _MODULE
        module.__dict__[launcher.__name__] = launcher
        Plugins.instance().register(launcher)


def _outcome(folder: Path, lost: str | None) -> float | BaseException:
    run = RunFolder(folder)
    status = read_status(run)
    if status == "completed" and (result := read_result(run)) is not None:
        return result.returns["mean"]
    reason = str(run.read_record().get("reason") or "") if status in ("failed", "pruned") else ""
    if status == "pruned":
        return Pruned(reason)
    return RunFailed(reason or lost or f"its status is {status}")
