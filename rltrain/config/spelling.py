"""Words that are nearly right, and values in another program's spelling: `yes` for true, 0 for never, `50k` for 50_000;
the ends of their refusals."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

_YES, _NO = ("true", "yes", "on", "y", "1"), ("false", "no", "off", "n", "0")
_NOTHING = ("none", "never", "inf", "-1", *_NO)
_TURNED_ON = {"algo.munchausen": "0.9", "env.reward_clip": "1.0"}
"""Numbers that sound like flags -> their usual values."""
_POWERS = {"k": 3, "m": 6}


def scalar_meant(kind: type, key: str, value: object, optional: bool) -> str:
    """`; write KEY=VALUE`, with the value of the kind bool, int or float that `value` says in another way: null, where
    the key is optional, for what turns it off; nothing where it says none."""
    text = str(value).lower()
    if values := _several(kind, key, value):
        return f"; for a sweep write -m {values}"
    if kind is bool:
        return _write(key, "true" if text in _YES else "false" if text in _NO else "")
    if kind is str:
        return ""
    if optional and text in _NOTHING:
        return _write(key, "null")
    return _write(key, _TURNED_ON.get(key, "") if text in _YES else _digits(text))


def list_meant(key: str, value: object, of: type) -> str:
    """`; write 'KEY=[VALUE]'` for an entry that is no list, quoted for the shell; `[]` for null."""
    if value is None or value == "none":
        return f"; write '{key}=[]'"
    return f"; write '{key}=[{value}]'" if type(value) is of else ""


def section_meant(key: str, value: object, names: Sequence[str]) -> str:
    """`; write algo.optimizer.name=adam` for a word in place of a section with these keys."""
    if key == "algo.prioritized":
        return _write("replay", {True: "prioritized", False: "uniform"}.get(value, "")) if type(value) is bool else ""
    return _write(f"{key}.name", value) if isinstance(value, str) and "name" in names else ""


def _several(kind: type, key: str, value: object) -> str:
    """The values of a sweep that a list, `1..5` or `0-4` stands for, quoted for the shell; nothing for all else."""
    if isinstance(value, list) and value and "[" not in key:
        return f"{key}={','.join(str(entry).lower() for entry in value)}" if all(type(e) is kind for e in value) else ""
    found = re.fullmatch(r"(\d{1,6})(?:\.\.|-)(\d{1,6})", str(value)) if kind is int else None
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    return f"'{key}=range({first},{last + 1})'" if first < last else ""


def _write(key: str, value: str) -> str:
    return f"; write {key}={value}" if value else ""


def _digits(text: str) -> str:
    """`1.5m` -> `1_500_000`."""
    found = re.fullmatch(r"(\d{1,9})(?:\.(\d+))?([km])", text)
    if found is None or len(found[2] or "") > _POWERS[found[3]]:
        return ""
    return f"{int(found[1] + (found[2] or '').ljust(_POWERS[found[3]], '0')):_}"


def closest(word: str, candidates: Iterable[str], count: int = 1, cutoff: float = 0.6) -> list[str]:
    """Up to `count` of `candidates` that look like `word`, the best first; capitals do not matter."""
    originals = {candidate.lower(): candidate for candidate in candidates}
    return [originals[match] for match in difflib.get_close_matches(word.lower(), originals, count, cutoff)]


def suggestion(word: str, candidates: Iterable[str]) -> str:
    """`; did you mean x?` or nothing, to end a message with."""
    matches = closest(word, candidates)
    return f"; did you mean {matches[0]}?" if matches else ""
