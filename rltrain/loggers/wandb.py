"""Weights & Biases: scalars against environment steps, the config, and the final evaluation as the run's summary.

Project, entity and mode are those of its own environment variables (WANDB_PROJECT, WANDB_MODE=offline, ...).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from rltrain.storage.files import open_regular, write_atomic

ID = "wandb_id.txt"
"""The file of a run folder that keeps the id of its W&B run."""


class WandbLogger:
    """One W&B run for one run folder, which a resumed run continues."""

    def __init__(self, folder: Path, resume_step: int | None, config: Mapping[str, Any]) -> None:
        place = folder.resolve()
        how = {"dir": str(folder), "name": place.name, "group": place.parent.name, "id": _id(folder, resume_step)}
        settings = wandb.Settings(console="off")
        self._run: Any = wandb.init(**how, resume="allow", config=dict(config), reinit="create_new", settings=settings)

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


def _id(folder: Path, resume_step: int | None) -> str:
    """The id of a run's W&B run, kept in its folder: W&B drops rows of steps that a run of that id has already, so a
    new run needs a new one."""
    id = ""
    if resume_step is not None and (folder / ID).exists():
        with open_regular(folder / ID) as file:
            id = file.read(100).decode(errors="replace")
    if not re.fullmatch("[0-9a-f]{16}", id):
        id = secrets.token_hex(8)
        if resume_step is not None and (folder / "wandb").is_dir():  # of a version that kept none
            id = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
        write_atomic(folder / ID, id)
    return id
