"""Commands and paths as a person types them, and the folder in which the present command was given."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_given_in: Path | None = None
_variables: dict[str, set[str]] = {}
"""Of the environments, which the command itself set: name -> values, several where the jobs of a sweep differ."""


@contextmanager
def command_given_here() -> Iterator[None]:
    """While active, `command_folder` is the folder in which it began."""
    global _given_in
    before, _given_in = _given_in, Path.cwd()
    try:
        yield
    finally:
        _given_in = before
        _variables.clear()


def need_variable(name: str, value: str) -> None:
    """Commands that are printed from now on set an environment variable for the environments of the runs they name."""
    _variables.setdefault(name, set()).add(value)


def command_folder() -> Path:
    """The folder in which the command was given, whose relative paths are meant; not always the working directory,
    which environments may change."""
    return Path.cwd() if _given_in is None else _given_in


def shown_path(path: Path) -> Path:
    """`path` as the user would type it: relative if it lies inside the folder in which the command was given."""
    here = command_folder()
    return path.relative_to(here) if path.is_relative_to(here) else path


def no_folder(path: Path) -> str:
    """Why a path is no folder: `no such folder`, or `is a file, not a folder`; nothing where it is one."""
    if path.is_dir():
        return ""
    return "is a file, not a folder" if path.exists() else "no such folder"


def unusable(path: Path, error: OSError, done: str = "used") -> str:
    """`PATH: cannot be used: Permission denied`: a file or a folder, what cannot be done with it, and the reason."""
    return f"{shown_path(path)}: cannot be {done}: {error.strerror or error}"


def shell_word(path: Path) -> str:
    """`shown_path` as one word of a shell's command."""
    text = str(shown_path(path))
    return quoted(f"./{text}" if text.startswith("-") else text)


def quoted(word: str) -> str:
    """One word of a command, which bash and zsh read as it is."""
    plain = word.isprintable() and _has_letters(word)
    if not plain:  # control characters, bytes that are no text, letters that the terminal lacks
        data = os.fsencode(word)
        shown = (chr(byte) if 32 <= byte < 127 and byte not in b"\\'" else f"\\x{byte:02x}" for byte in data)
        return f"$'{''.join(shown)}'"
    return f"'{word}'" if word.startswith("=") else shlex.quote(word)  # zsh: =ls is the path of ls


def _has_letters(word: str) -> bool:
    """Whether the terminal can show all letters of `word`."""
    try:
        word.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def rltrain_command(*words: str | Path, imports: Sequence[str] = ()) -> str:
    """`rltrain WORDS`, to be pasted into bash or zsh: in the folder in which this command was given, also in a terminal
    that does not have the variables that this command had.

    Args:
        words: a path is the folder of a run or a sweep.
        imports: each `module:name` that the command imports and `words` do not tell. Where they name a run, this
            process has imported them, so that the user knows them: `trust=true` stands for that.
    """
    plugins = [name.strip() for name in os.environ.get("RLTRAIN_PLUGINS", "").split(",") if name.strip()]
    typed = (str(word) for word in words if str(word).startswith(("env=", "loggers=")))
    modules = [module for text in (*imports, *typed) for module in re.findall(r"([\w.]+):", text)]
    reads_run = words[0] in ("resume", "evaluate", "export", "tune") and any(isinstance(word, Path) for word in words)
    line = [shell_word(word) if isinstance(word, Path) else quoted(word) for word in ("rltrain", *words)]
    if words[0] == "report":  # which reads files alone
        return " ".join(line)
    if reads_run and not set(modules) <= set(plugins) and "trust=true" not in words:
        line.append("trust=true")
    path = os.environ.get("PYTHONPATH", "")
    needed = {
        "PYTHONPATH": path if any(_lies_in(name, path) for name in (*plugins, *modules)) else "",
        "RLTRAIN_CONF": "" if reads_run else os.environ.get("RLTRAIN_CONF", ""),
        "RLTRAIN_PLUGINS": ",".join(plugins),
        **{name: next(iter(values)) for name, values in _variables.items() if reads_run and len(values) == 1},
    }
    return " ".join([*(f"{name}={quoted(value)}" for name, value in needed.items() if value), *line])


def _lies_in(module: str, search_path: str) -> bool:
    """Whether a module is found by way of one of the folders of $PYTHONPATH."""
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return False
    places = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or ())]
    folders = [os.path.normpath(command_folder() / folder) for folder in search_path.split(os.pathsep) if folder]
    return any(Path(place).is_relative_to(folder) for place in places for folder in folders)
