"""Keys of a config.yaml that were changed by hand, which `resume` does not go by."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from rltrain.config.plain import leaves, to_plain
from rltrain.config.schema import RunConfig
from rltrain.config.stored import validate_stored
from rltrain.errors import RequestError
from rltrain.storage.run_folder import RunFolder
from rltrain.terminal.output import warn
from rltrain.terminal.shell import rltrain_command, shown_path
from rltrain.terminal.text import harmless, shortened

_log = logging.getLogger(__name__)
_LONGEST = 200  # letters of the keys


def warn_of_edits(folder: Path, *held: RunConfig) -> None:
    """Warns of the keys that config.yaml gives values which none of `held` has: what the run goes on with, before and
    after what is asked for. A file that cannot be read says nothing: it is written anew."""
    run = RunFolder(folder)
    try:
        plain = run.read_config()
    except RequestError:
        return
    with suppress(RequestError):  # else the keys are compared as they are written
        plain = to_plain(validate_stored(plain))
    known = [leaves(to_plain(config)) for config in held]
    edited = [
        key
        for key, value in leaves(plain).items()
        if not any(key in values and values[key] == value for values in known)
    ]
    if edited:
        keys = shortened(harmless(", ".join(edited)), _LONGEST)
        command = rltrain_command("resume", folder, "key=value")
        warn(
            _log,
            f"{shown_path(run.config)}: differs from what the run goes on with: {keys}; `{command}` changes a setting",
        )
