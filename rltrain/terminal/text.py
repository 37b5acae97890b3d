"""How numbers, paths and long lines are written for a person; and the folder in which a command was given."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TextIO

_NARROWEST, _WIDEST = 40, 120
_MOST_PIECES = 12
_given_in: Path | None = None
_variables: dict[str, set[str]] = {}
"""Of the environments, which the command itself set: name -> values, several where the jobs of a sweep differ."""


def number(value: float, scale: float | None = None) -> str:
    """`value` with the decimals that tell numbers of the size `scale` (unless told: its own) apart: 487.3, 9.31, 0.012.

    One decimal from 10 on, two below, and as many as give two significant digits below 0.1.
    """
    size = abs(value if scale is None else scale)
    if not math.isfinite(size) or size == 0 or size >= 10:
        decimals = 1
    else:
        decimals = max(2, min(1 - math.floor(math.log10(size)), 9))
    return f"{value:.{decimals}f}"


def mean_and_std(mean: float, std: float) -> str:
    """`487.3 +- 10.2`: both with the decimals of the larger."""
    scale = max(abs(mean), std)
    return f"{number(mean, scale)} +- {number(std, scale)}"


def counted(number: int, noun: str) -> str:
    """`1 job`, `1,000 jobs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shortened(text: str, longest: int, tail: int = 0) -> str:
    """The text in `longest` letters, the last `tail` of them its own last ones."""
    return text if len(text) <= longest else f"{text[: longest - 3 - tail]}...{text[len(text) - tail :]}"


def harmless(line: str) -> str:
    """An untrusted line as a terminal only shows it: control characters are written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def episodes_in_words(count: int, asked: int | None, cut: int, cut_at: int) -> str:
    """`100 episodes`, or `20 of 100 episodes, 3 of them cut at step 2,500`."""
    words = f"{count} of {asked} episodes" if asked not in (None, count) else counted(count, "episode")
    return words + (f", {cut if cut < count else 'all'} of them cut at step {cut_at:,}" if cut else "")


def name_ranges(names: Sequence[str], longest: int = 10_000) -> str:
    """`0 to 31`, `0 to 2, 7`, `seed_3 to 5`, or the names as they are; of many pieces, or beyond `longest` letters, the
    first and how many names are left."""
    pieces: list[tuple[str, int]] = []
    for run in _consecutive(names):
        whole = f"{run[0]} to {re.split('[_/]', run[-1])[-1]}"
        pieces += [(whole, len(run))] if len(run) > 2 else [(name, 1) for name in run]
    shown = pieces[:_MOST_PIECES]
    while len(shown) > 1 and sum(len(text) + 2 for text, _ in shown) > longest:
        shown.pop()
    left = len(names) - sum(count for _, count in shown)
    return ", ".join(text for text, _ in shown) + (f" and {left:,} more" if left else "")


def counted_names(noun: str, names: Sequence[str], longest: int = 10_000) -> str:
    """`job 3`, `jobs 0 to 31`: with the names as `name_ranges` has them."""
    return f"{noun}{'' if len(names) == 1 else 's'} {name_ranges(names, longest)}"


def _consecutive(names: Sequence[str]) -> list[list[str]]:
    """The names in runs of those that differ in the number at their ends alone, which counts up by one."""

    def family(entry: tuple[int, str]) -> tuple[str | int, ...]:
        place, name = entry
        found = re.fullmatch(r"(|.*[_/])([0-9]+)", name)
        return (found[1], int(found[2]) - place) if found else (name, place, "")

    return [[name for _, name in run] for _, run in groupby(enumerate(names), family)]


def terminal_width() -> int:
    """The columns that lines are wrapped to: the terminal's, or $COLUMNS; at least 40, at most 120."""
    return max(_NARROWEST, min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST))


def draws_bars(stream: TextIO) -> bool:
    """Whether `stream` can draw a bar over the one before: a terminal, or a notebook. A terminal that tells no width
    (of a container, or of a program that reads what it shows) would show none."""
    if "ipykernel" in sys.modules:
        return True
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return False
    try:
        return os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError):
        return True


def wrapped(text: str, indent: int = 10) -> str:
    """A line in as many as the terminal needs; the later ones begin below the column `indent`."""
    if len(text) <= terminal_width():
        return text
    bare = text.lstrip()
    return "\n".join(
        textwrap.wrap(
            bare, terminal_width(), initial_indent=text[: len(text) - len(bare)], subsequent_indent=" " * indent,
            break_long_words=False, break_on_hyphens=False,
        )
    )  # fmt: skip


def wrapped_table(text: str) -> str:
    """Each line wrapped; those of two columns, with two blanks between, below the second where that leaves it room,
    else with the second on lines of its own. A line that begins at the second column of the one before goes on with
    it."""
    lines, columns = list[str](), 0
    for line in map(str.rstrip, text.splitlines()):
        indent = len(line) - len(line.lstrip())
        if lines and line and 0 < indent == columns:
            lines[-1] += f" {line.lstrip()}"
            continue
        lines.append(line)
        columns = _second_column(line)
    return "\n".join(map(_laid_out, lines))


def _second_column(line: str) -> int:
    """Where the second of two columns begins; 0 in a line of one."""
    columns = re.match(r"\s*\S+(?: \S+)*\s{2,}(?=\S)", line)
    return columns.end() if columns else 0


def _laid_out(line: str) -> str:
    indent, column, width = len(line) - len(line.lstrip()), _second_column(line), terminal_width()
    if not column or len(line) <= width:
        return wrapped(line, indent + 2)
    if column <= width / 2 and column + max(map(len, line[column:].split())) <= width:
        return wrapped(line, column)
    below = f"{' ' * (indent + 4)}{line[column:]}"
    return f"{wrapped(line[:column].rstrip(), indent + 2)}\n{wrapped(below, indent + 4)}"


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
