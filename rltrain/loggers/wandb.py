"""Weights & Biases: scalars against environment steps, the config, and the final evaluation as the run's summary.

Project, entity and mode are those of its own environment variables (WANDB_PROJECT, WANDB_MODE=offline, ...).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb


class WandbLogger:
    """One W&B run for one run folder, which a resumed run continues."""

    def __init__(self, folder: Path, resume_step: int | None, config: Mapping[str, Any]) -> None:
        # The same folder, the same run: W&B takes rows of steps that it has already for old ones, and drops them.
        id = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
        place = {"dir": str(folder), "name": folder.name, "group": folder.parent.name, "id": id, "resume": "allow"}
        settings = wandb.Settings(console="off")
        self._run: Any = wandb.init(**place, config=dict(config), reinit="create_new", settings=settings)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)

    def result(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.summary.update(dict(scalars))

    def video(self, step: int, path: Path) -> None:
        self._run.log({"eval/video": wandb.Video(str(path), format="gif")}, step=step)

    def flush(self) -> None:
        pass

    def close(self, completed: bool | None = None) -> None:
        if self._run is not None:
            run, self._run = self._run, None
            run.finish(exit_code=1 if completed is False else 0)
