"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rltrain.terminal.text import harmless

_GAP = "  "
NOTHING = "-"
"""A cell that says nothing."""
MOST_ROWS = 40
"""Of a list on the terminal; of more the best are shown, or what they have in common."""


def laid_out(titles: Sequence[str], rows: Sequence[Sequence[str]], width: int | None, elastic: int = 1) -> str:
    """Columns as wide as their texts, but the one numbered `elastic` no wider than the terminal leaves; columns that
    say nothing are left out. Those up to the elastic one are set to the left, the others to the right.

    Args:
        width: of the terminal; None: all is shown.
    """
    shown = [
        place for place, title in enumerate(titles) if place <= elastic or any(row[place] != NOTHING for row in rows)
    ]
    lines = [[titles[p] for p in shown], *([harmless(row[p]) for p in shown] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    others = sum(widths) - widths[elastic] + len(_GAP) * (len(widths) - 1)
    if width is not None:
        widths[elastic] = min(widths[elastic], max(len(titles[elastic]), width - others))
    pad: list[Callable[[str, int], str]] = [str.ljust if place <= elastic else str.rjust for place in shown]
    cut = [[_cut(text, widths[place]) if place == elastic else text for place, text in enumerate(ln)] for ln in lines]
    return "\n".join(
        _GAP.join(fill(cell, w) for fill, cell, w in zip(pad, cells, widths, strict=True)).rstrip() for cells in cut
    )


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
