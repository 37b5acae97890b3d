"""Where configs lie, the shipped ones and the user's. Hydra-free, so that --help and `list` answer at once."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path

from rltrain.errors import RequestError, module_hint
from rltrain.terminal.shell import command_folder, no_folder

USER_ORIGINS = ("--config-dir", "RLTRAIN_CONF")
"""Where folders of the user's own configs are named, the strongest first."""


def conf_folder() -> Path:
    """`rltrain/conf` in an installed wheel, `conf` beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def user_folders(config_dir: str | None = None) -> list[tuple[str, Path]]:
    """(where it was named, absolute folder) of each folder of the user's own configs, the strongest first.

    `config_dir` comes before $RLTRAIN_CONF, which may name several folders, separated as in $PATH.
    """
    option, variable = USER_ORIGINS
    named = [(option, config_dir)] if config_dir is not None else []
    named += [(variable, folder) for folder in os.environ.get(variable, "").split(os.pathsep) if folder]
    for origin, folder in named:
        if fault := no_folder(command_folder() / folder):
            raise RequestError(f"{origin}={folder}: {fault}")
    return [(origin, command_folder() / folder) for origin, folder in named]


def import_plugins() -> None:
    """Imports the modules that $RLTRAIN_PLUGINS names, so that they can register what they add."""
    for module in filter(None, (name.strip() for name in os.environ.get("RLTRAIN_PLUGINS", "").split(","))):
        try:
            importlib.import_module(module)
        except Exception as error:
            raise RequestError(
                f"RLTRAIN_PLUGINS={module}: cannot be imported: {type(error).__name__}: {error}"
                + module_hint(error, module)
            ) from error


def group_files(group: str, config_dir: str | None = None) -> dict[str, Path]:
    """Choice -> file of a group, sorted; a user's file hides the shipped one of the same name."""
    folders = [conf_folder(), *(folder for _, folder in reversed(user_folders(config_dir)))]
    files = {
        path.relative_to(folder / group).with_suffix("").as_posix(): path
        for folder in folders
        for path in (folder / group).rglob("*.yaml")
    }
    return dict(sorted(files.items()))


def description(path: Path) -> str:
    """The first sentence of the comment at a config's top."""
    words = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.lstrip("# ")
        if text.startswith("@package"):
            continue
        words.append(text)
        if text.endswith((".", ":")):
            break
    return re.split(r"(?<!et al)\. |: ", " ".join(words))[0].rstrip(".:")
