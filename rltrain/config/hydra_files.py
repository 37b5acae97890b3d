"""The files in which Hydra keeps a job's config, as it writes them itself for a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_omega_conf_dumper


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """OmegaConf's way of writing, with PyYAML's C library where that is there."""


_Dumper.add_representer(str, get_omega_conf_dumper().str_representer)


def write_hydra_files(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes `.hydra/` of a job.

    Args:
        folder: of the job.
        record: its whole config as plain data, Hydra's part included; interpolations are not resolved.

    Raises:
        OSError: it cannot be written.
    """
    hydra = record["hydra"]
    if hydra["output_subdir"] is None:
        return
    place = folder / str(hydra["output_subdir"])
    place.mkdir(parents=True, exist_ok=True)
    job = {key: value for key, value in record.items() if key != "hydra"}
    of_hydra = {**hydra, "runtime": {**hydra["runtime"], "output_dir": str(folder)}}
    for name, content in {"config": job, "hydra": {"hydra": of_hydra}, "overrides": hydra["overrides"]["task"]}.items():
        text = yaml.dump(content, default_flow_style=False, allow_unicode=True, sort_keys=False, Dumper=_Dumper)
        (place / f"{name}.yaml").write_text(text, encoding="utf-8")
