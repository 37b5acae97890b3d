"""How numbers, names and long lines are written for a person."""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import TextIO

_NARROWEST, _WIDEST = 40, 120
_MOST_PIECES = 12


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
