"""A composed and validated job of a sweep, free of Hydra's objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rltrain.commands.sweep_header import PlannedJob
from rltrain.config.hydra_files import write_hydra_files
from rltrain.config.schema import RunConfig


@dataclass(frozen=True, eq=False)
class CheckedJob:
    """A job of a sweep.

    Attributes:
        number: in the sweep.
        variables: `hydra.job.env_set`.
        record: its whole config as plain data, Hydra's part included; interpolations are not resolved.
    """

    number: int
    planned: PlannedJob
    config: RunConfig
    variables: Mapping[str, str]
    folder: Path
    record: dict[str, Any] = field(repr=False)

    def make_folder(self) -> None:
        """Makes the folder, with what Hydra writes into it.

        Raises:
            OSError: it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        write_hydra_files(self.folder, self.record)
