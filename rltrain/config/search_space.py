"""Search spaces of `rltrain tune`: which keys are varied, and between which values. Hydra-free and torch-free."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from rltrain.config.folders import group_files
from rltrain.config.horizon import check_horizon, epsilon_at_end
from rltrain.config.keys import unknown_key
from rltrain.config.schema import GROUP_CONFIGS, RunConfig
from rltrain.config.user_files import place_of
from rltrain.config.validate import at, build_section, read_value, show, suggestion, to_plain
from rltrain.errors import RequestError
from rltrain.terminal.text import shown_path

_FIELDS = ("low", "high", "log", "step", "choices")
_NOT_SEARCHED = (
    "seed",
    "name",
    "init_from",
    "dry_run",
    "log_period",
    "loggers",
    "eval",
    "checkpoint",
    "device",
    "video",
)
"""Keys, or sections before a dot, that do not change what is learned, or in which trials could not be compared."""


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


def fitted(space: Sequence[Dimension], config: RunConfig, given: Sequence[str]) -> tuple[list[Dimension], list[str]]:
    """The dimensions that are searched with `config`, in the numbers of its keys' types; and the keys that leave the
    space: those `given`, and those of choices that are not in force (a `tau` under target_update=hard).

    Raises:
        RequestError: a key that there is not, a value out of its range, or nothing is left to search.
    """
    plain = to_plain(config)
    choices = {group: plain[group]["name"] for group in GROUP_CONFIGS if plain.get(group) is not None}
    kept, left = [], []
    for dimension in space:
        key = dimension.key
        group, _, choice = dimension.under.partition("=")
        if group and choices.get(group) != choice:
            continue
        if wrong := unknown_key(key, {}):
            raise RequestError(f"{dimension.place}{key}: {wrong}")
        if key in _NOT_SEARCHED or key.partition(".")[0] in _NOT_SEARCHED:
            raise RequestError(f"{dimension.place}{key}: is no setting of what is learned, and is not searched")
        if key in given:
            left.append(key)
            continue
        section = key.partition(".")[0]
        if (section in GROUP_CONFIGS and section not in choices) or unknown_key(key, choices) or not _has(plain, key):
            left.append(key)
            continue
        kept.append(_typed(dimension, plain))
    if not kept:
        raise RequestError(f"nothing is left to search: {', '.join(left)} {'is' if len(left) == 1 else 'are'} fixed")
    return kept, left


def late_epsilon(config: RunConfig, dimension: Dimension) -> str:
    """`epsilon_at_end` of a trial with the largest value of the dimension, which decides how long epsilon falls."""
    if dimension.key not in ("exploration.steps", "exploration.decay"):
        return ""
    largest = max(dimension.choices) if dimension.choices else dimension.high
    return epsilon_at_end(build_section(RunConfig, with_values(to_plain(config), {dimension.key: largest}), ""))


def with_values(plain: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A config as plain data with other values of some dotted keys, not validated."""
    changed = copy.deepcopy(dict(plain))
    for key, value in values.items():
        *path, last = key.split(".")
        at(changed, path)[last] = value
    return changed


def _has(plain: Mapping[str, Any], key: str) -> bool:
    """Whether the config's section of the key is there: algo.prioritized may be null."""
    *path, last = key.split(".")
    section = at(plain, path)
    return isinstance(section, Mapping) and not isinstance(section.get(last), Mapping)


def _typed(dimension: Dimension, plain: Mapping[str, Any]) -> Dimension:
    """The dimension with its values as the schema has them, each tried in the config."""
    key, place = dimension.key, dimension.place
    if dimension.choices:
        return replace(dimension, choices=tuple(_tried(plain, key, value, place) for value in dimension.choices))
    low, high = (_tried(plain, key, value, place) for value in (dimension.low, dimension.high))
    step = dimension.step
    for name, value in (("low", low), ("high", high)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RequestError(f"{place}{key}: takes no numbers between {name} and another; give choices")
    if isinstance(low, int) and step is not None and step != int(step):
        raise RequestError(f"{place}{key}.step={step:g}: must be an integer, as {key} is")
    step = int(step) if isinstance(low, int) and step is not None else step
    return replace(dimension, low=low, high=high, step=step)


def _tried(plain: Mapping[str, Any], key: str, value: Any, place: str) -> Any:
    try:
        # Alone: what contradicts a value that is searched too is refused when it comes together.
        changed = build_section(RunConfig, with_values(plain, {key: value}), "")
    except RequestError as error:
        raise RequestError(f"{place}{error}") from error
    try:
        check_horizon(changed)  # how long a run is, is not searched
    except RequestError as error:
        raise RequestError(f"{place}{key}={show(value)}, which is searched: {error}") from error
    return at(to_plain(changed), key.split("."))


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
