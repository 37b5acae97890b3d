"""Tables for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from rltrain.terminal.text import harmless, shortened, wrapped

_GAP = "  "
_LEAST_ENDS = 10  # letters of a text without its middle
_ELASTIC = 1  # the column that is cut where the terminal is narrow
NOTHING = "-"
"""A cell that says nothing."""
MOST_ROWS = 40
"""Of a list on the terminal; of more the best are shown, or what they have in common."""


def laid_out(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int | None,
    optional: Sequence[int] = (),
) -> str:
    """Columns as wide as their texts, but the second no wider than the terminal leaves; columns that say nothing are
    left out. The first two are set to the left, the others to the right. What is cut so far that rows have numbers is
    told below, by these.

    Args:
        width: of the terminal; None: all is shown.
        optional: columns after the second that are left out, in this order, where it would else be cut so that
            two of its texts look the same.
    """
    said = [p for p in range(len(titles)) if p <= _ELASTIC or any(row[p] != NOTHING for row in rows)]
    texts = [harmless(row[_ELASTIC]) for row in rows]
    for count in range(len(optional) + 1):
        shown = [place for place in said if place not in optional[:count]]
        lines = [[titles[p] for p in shown], *([harmless(row[p]) for p in shown] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        others = sum(widths) - widths[_ELASTIC] + len(_GAP) * (len(widths) - 1)
        if width is not None:
            widths[_ELASTIC] = min(widths[_ELASTIC], max(len(titles[_ELASTIC]), width - others))
        cells = cut_apart(texts, widths[_ELASTIC], middles=count == len(optional))
        if len(set(cells)) == len(set(texts)):
            break
    for line, cell in zip(lines[1:], cells, strict=True):
        line[_ELASTIC] = cell
    pad: list[Callable[[str, int], str]] = [str.ljust if place <= _ELASTIC else str.rjust for place in shown]
    found = [_GAP.join(fill(c, w) for fill, c, w in zip(pad, line, widths, strict=True)).rstrip() for line in lines]
    names = _numbered(texts)
    if texts and cells == [shortened(name, widths[_ELASTIC]) for name in names]:
        found += [wrapped(name, indent=3) for name in names]
    return "\n".join(found)


def cut_apart(texts: Sequence[str], width: int, middles: bool = False) -> list[str]:
    """Each text in at most `width` letters. Where that would make two of them the same, their words are put in another
    order, the same for all texts: first the keys (of `key=value`) whose values fewest have. Or else, with `middles`,
    the texts lose theirs, or, where that does not help either or leaves a few letters, begin with their numbers: #1
    and so on."""
    words = [text.split() for text in texts]
    count = Counter(word for of_text in words for word in set(of_text))
    commonest: dict[str, int] = {}
    for word in (word for of_text in words for word in of_text):
        commonest[_key(word)] = max(count[word], commonest.get(_key(word), 0))
    keys = sorted(commonest, key=lambda key: commonest[key])
    ordered = [" ".join(sorted(of_text, key=lambda word: keys.index(_key(word)))) for of_text in words]
    ways = [[shortened(text, width) for text in found] for found in (texts, ordered)]
    if middles:
        if width >= _LEAST_ENDS + len("..."):
            ways.append([shortened(text, width, width // 2) for text in texts])
        ways.append([shortened(text, width) for text in _numbered(texts)])
    different = len(set(texts))
    return next((cut for cut in ways if len(set(cut)) == different), ways[0])


def _numbered(texts: Sequence[str]) -> list[str]:
    return [f"#{number} {text}" for number, text in enumerate(texts, 1)]


def _key(word: str) -> str:
    return word.partition("=")[0]
