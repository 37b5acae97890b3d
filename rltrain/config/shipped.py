"""Where the shipped configs lie."""

from __future__ import annotations

from pathlib import Path


def conf_folder() -> Path:
    """`rltrain/conf` in an installed wheel, `conf` beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"
