"""Search spaces of `rltrain tune`: which keys are varied, and between which values. Hydra-free and torch-free."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from rltrain.config.folders import group_files
from rltrain.config.plain import read_value, show
from rltrain.config.schema import GROUP_CONFIGS
from rltrain.config.spelling import suggestion
from rltrain.config.user_files import place_of
from rltrain.errors import RequestError
from rltrain.terminal.shell import shown_path

_FIELDS = ("low", "high", "log", "step", "choices")


@dataclass(frozen=True)
class Dimension:
    """A key and its values: `choices`, or those from `low` to `high`, in steps of `step`, or even in their logarithm.

    Attributes:
        under: `GROUP=CHOICE`, the choice with which alone it is searched; or nothing.
        place: `FILE:LINE: ` or nothing, for complaints.
    """

    key: str
    low: float | int | None = None
    high: float | int | None = None
    log: bool = False
    step: float | int | None = None
    choices: tuple[Any, ...] = ()
    under: str = ""
    place: str = ""

    @property
    def integer(self) -> bool:
        """Whether its numbers are whole."""
        return isinstance(self.low, int)

    @property
    def size(self) -> float:
        """How many values it has; endless for real numbers."""
        if self.choices:
            return len(self.choices)
        return (
            len(range(int(self.low or 0), int(self.high or 0) + 1, int(self.step or 1))) if self.integer else math.inf
        )

    def to_plain(self) -> dict[str, Any]:
        """As a file says it."""
        if self.choices:
            return {"choices": [list(choice) if isinstance(choice, tuple) else choice for choice in self.choices]}
        said = {"low": self.low, "high": self.high, "log": self.log or None, "step": self.step}
        return {name: value for name, value in said.items() if value is not None}

    def __str__(self) -> str:
        if self.choices:
            return f"{self.key} {', '.join(json.dumps(value) for value in self.to_plain()['choices'])}"
        how = " (log)" if self.log else f" in steps of {self.step:g}" if self.step is not None else ""
        return f"{self.key} {self.low:g} to {self.high:g}{how}"


def space_file(name: str, config_dir: str | None) -> Path:
    """The file of `search=NAME`: the user's own before the shipped one.

    Raises:
        RequestError: there is none of that name.
    """
    files = group_files("search", config_dir)
    if name not in files:
        raise RequestError(
            f"search={name}: no such search space{suggestion(name, files)}; known: {', '.join(files)}"
            f"\none of your own is DIR/search/{name}.yaml, with --config-dir DIR"
        )
    return files[name]


def read_space(file: Path) -> list[Dimension]:
    """The dimensions in a file, not yet compared with a config.

    Raises:
        RequestError: it is no such file; names file, line and key.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"{shown_path(file)}: is no YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict) or not content:
        raise RequestError(f"{shown_path(file)}: must hold keys with their values (algo.gamma: {{low: 0.9, high: 1}})")
    return list(_dimensions(content, file))


def _dimensions(content: Mapping[Any, Any], file: Path, under: str = "") -> Iterator[Dimension]:
    for key, entry in content.items():
        place = f"{place_of(file, str(key))}: "
        group, equals, choice = str(key).partition("=")
        if not equals:
            yield replace(parse_dimension(str(key), entry, place), under=under)
            continue
        known = GROUP_CONFIGS.get(group, {})
        if choice not in known:
            wrong = suggestion(choice, known) if known else suggestion(group, GROUP_CONFIGS)
            raise RequestError(f"{place}{key}: there is no such choice{wrong}")
        if under or not isinstance(entry, dict):
            raise RequestError(f"{place}{key}: holds the keys that are searched under that choice, and only those")
        yield from _dimensions(entry, file, str(key))


def parse_dimension(key: str, entry: Any, place: str = "") -> Dimension:
    """One dimension from `{low, high, log, step}` or `{choices}`.

    Raises:
        RequestError: it says something else.
    """
    here = f"{place}{key}"
    if not isinstance(entry, Mapping):
        raise RequestError(f"{here}={show(entry)}: must be {{low: ..., high: ...}} or {{choices: [...]}}")
    for name in entry:
        if name not in _FIELDS:
            known = ", ".join(_FIELDS)
            raise RequestError(f"{here}.{name}: unknown{suggestion(str(name), _FIELDS)}\nknown: {known}")
    if "choices" in entry:
        return Dimension(key, choices=_choices(entry, here), place=place)
    low, high, step = (_number(entry.get(name), f"{here}.{name}") for name in ("low", "high", "step"))
    log = entry.get("log", False)
    if low is None or high is None:
        raise RequestError(f"{here}: needs low and high, or choices")
    if not isinstance(log, bool):
        raise RequestError(f"{here}.log={show(log)}: must be true or false")
    if low >= high:
        raise RequestError(f"{here}: low={low:g} must be below high={high:g}")
    if log and (low <= 0 or step is not None):
        raise RequestError(f"{here}: log=true needs {'low > 0' if low <= 0 else 'no step'}")
    if step is not None and not 0 < step <= high - low:
        raise RequestError(f"{here}.step={step:g}: must be > 0 and <= high - low")
    return Dimension(key, low, high, log, step, place=place)


def _choices(entry: Mapping[str, Any], here: str) -> tuple[Any, ...]:
    values = entry["choices"]
    if len(entry) > 1:
        raise RequestError(f"{here}: has choices, and so no {', '.join(name for name in entry if name != 'choices')}")
    if not isinstance(values, list) or not 1 < len(values) <= 1000:
        raise RequestError(f"{here}.choices={show(values)}: must be a list of several values")
    values = [read_value(value) if isinstance(value, str) else value for value in values]
    if len({json.dumps(value, sort_keys=True, default=str) for value in values}) < len(values):
        raise RequestError(f"{here}.choices={show(values)}: holds a value twice")
    return tuple(values)


def _number(value: Any, here: str) -> float | int | None:
    value = read_value(value) if isinstance(value, str) else value
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RequestError(f"{here}={show(value)}: must be a number")
    return value


def shown_values(values: Mapping[str, Any]) -> str:
    """`algo.gamma=0.99 network.hidden=[64,64]`, as one types it."""
    return " ".join(f"{key}={show(value).replace(', ', ',')}" for key, value in values.items())
