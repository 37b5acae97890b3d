"""Checkpoints of a run: what the loop saves, and what is read of one where a run goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rltrain.config.plain import to_plain
from rltrain.config.schema import RunConfig
from rltrain.engine.protocol import StateDict
from rltrain.envs.space_data import space_to_plain
from rltrain.envs.wrappers.stack import statistics_in
from rltrain.jobs.build import Parts
from rltrain.jobs.filming import film_episode
from rltrain.loggers.logger import Logger
from rltrain.policy.source import EVAL_ENVS
from rltrain.storage import checkpoint, checkpoint_folders
from rltrain.storage.checkpoint_parts import PartWriter
from rltrain.storage.run_folder import RunFolder, versions
from rltrain.training.evaluator import Evaluator
from rltrain.types import Ring


class RunCheckpointer:
    """Writes the state as checkpoints of one run; `entries` gives what else its manifests say."""

    def __init__(self, config: RunConfig, run: RunFolder, parts: Parts, evaluator: Evaluator, logger: Logger) -> None:
        self.entries: Callable[[], Mapping[str, Any]] = dict
        self._config = config
        self._run, self._logger = run, logger
        self._parts = PartWriter()
        self._saved = False
        self._manifest = {
            "config": to_plain(config),
            "observation_space": space_to_plain(parts.envs.observation_space),
            "action_space": space_to_plain(parts.envs.action_space),
            "max_episode_steps": parts.envs.max_episode_steps,
            "versions": versions(),
            **parts.conditions,
            EVAL_ENVS: evaluator.num_envs,
        }

    def save(self, step: int, state: StateDict) -> None:
        tensors = {name: section for name, section in state.items() if name not in ("state", "rings")}
        if not self._config.resumable:
            tensors = {name: section for name, section in tensors.items() if name not in ("replay", "frames")}
        folder = checkpoint_folders.step_folder(self._run.path, step)
        self._write(folder, step, tensors, state["state"], state.get("rings", {}))
        for void in checkpoint_folders.later(self._run.path, step):  # damaged: the run went back behind it
            checkpoint_folders.remove(void)
        self._saved = True

    def prune(self) -> None:
        if self._saved:  # else the newest may be damaged, and the run have come from an older one
            checkpoint_folders.prune(self._run.path, self._config.checkpoint.keep)

    def save_best(self, step: int, state: StateDict) -> None:
        best = {"network": state["network"]}
        kept: dict[str, Any] = {name: state["state"][name] for name in ("solve_step", "episodes")}
        if statistics := statistics_in(state["state"]["envs"]):
            kept["envs"] = statistics
        self._write(checkpoint_folders.best_folder(self._run.path), step, best, kept)

    def film(self, step: int, state: StateDict) -> None:
        tensors = {"network": state["network"]}
        manifest = {**self._manifest, "step": step}
        source = checkpoint.Checkpoint(manifest, tensors, state["state"], self._run.path)
        film_episode(source, self._run.videos / f"step_{step:08}.gif", self._logger)

    def _write(
        self,
        folder: Path,
        step: int,
        tensors: Mapping[str, Mapping[str, Any]],
        state: Mapping[str, Any],
        rings: Mapping[str, Ring] | None = None,
    ) -> None:
        manifest = {**self._manifest, **self.entries()}
        checkpoint.write_checkpoint(
            folder, step=step, manifest=manifest, tensors=tensors, state=state, rings=rings, parts=self._parts
        )


UNFIT = (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError)
"""Raised where a checkpoint's tensors or state are not those of the run that loads them."""


def evaluated_before(source: checkpoint.Checkpoint | None) -> object:
    """How many environments evaluated the run that is continued, as its checkpoint says."""
    return None if source is None else source.manifest.get(EVAL_ENVS)
