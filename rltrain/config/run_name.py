"""Names and creation of run folders."""

from __future__ import annotations

import re
import shutil
from collections.abc import Set
from contextlib import suppress
from pathlib import Path

from rltrain.errors import RequestError
from rltrain.storage.files import LOCK, holder_of
from rltrain.terminal.shell import command_folder, rltrain_command, shown_path, unusable


def safe(text: str) -> str:
    """`text` as one component of a path: `ALE/Pong-v5` is `ALE-Pong-v5`."""
    return re.sub(r"[^\w.,=+-]+", "-", text).strip("-.")[:100] or "run"


def run_name(algo: str, env: str, name: str | None) -> str:
    """The part of a run folder's name that tells what was run."""
    return "_".join(safe(part) for part in (algo, env.rpartition(":")[2], name) if part)


def reserve_folder(wanted: Path, *, key: str | None) -> Path:
    """Creates a folder that nobody else has: `wanted`, or where that is taken `wanted_2`, `wanted_3`, ...; absolute.

    Args:
        key: by which the user named this very folder; it may exist if nothing is in it.

    Raises:
        RequestError: the folder exists and holds something, or cannot be created.
    """
    wanted = command_folder() / wanted
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        if key is not None:
            return _reserve_exact(wanted, key)
        for attempt in range(1, 10_000):
            folder = wanted if attempt == 1 else wanted.with_name(f"{wanted.name}_{attempt}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise RequestError(unusable(wanted, error, "made")) from error
    raise RequestError(f"{shown_path(wanted)}: no free name for the run folder")


def config_text(folder: Path) -> str:
    """A path as a value of a config, in which `${` would begin an interpolation."""
    return str(folder).replace("${", r"\${")


def remove_unused(folder: Path, before: Set[str] = frozenset({".hydra", LOCK, "run.log"})) -> None:
    """Removes a folder in which nothing lies but what is there `before` a run begins, and that of the day with the last
    one in it."""
    if not folder.exists() or not {path.name for path in folder.iterdir()} <= before:
        return
    shutil.rmtree(folder)
    if re.fullmatch(r"\d{4}-\d\d-\d\d", folder.parent.name):
        with suppress(OSError):  # others are in it
            folder.parent.rmdir()


def _reserve_exact(folder: Path, key: str) -> Path:
    """Of two runs that ask for one folder at once, the one that makes .hydra in it has it."""
    try:
        folder.mkdir(exist_ok=True)
        if any(folder.iterdir()):
            raise FileExistsError
        (folder / ".hydra").mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise RequestError(f"{key}={shown_path(folder)}: is a file; a run needs a folder") from None
        if holder := holder_of(folder):
            raise RequestError(f"{key}={shown_path(folder)}: in use by {holder}") from None
        going_on = {"run.json": "resume", "study.yaml": "tune"}
        commands = [rltrain_command(command, folder) for file, command in going_on.items() if (folder / file).exists()]
        hint = f"\n(`{commands[0]}` continues it)" if commands else ""
        if [path.name for path in folder.iterdir()] == [".hydra"]:
            hint = "\n(no run has begun in it: unless another process begins one now, it may be removed)"
        raise RequestError(
            f"{key}={shown_path(folder)}: exists and is not empty; a run never writes into another's folder{hint}"
        ) from None
    return folder
