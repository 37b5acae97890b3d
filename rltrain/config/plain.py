"""Configs and parts of them as plain data: dicts, lists, strings, numbers, booleans and None."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from rltrain.terminal.text import shortened


def to_plain(config: Any) -> dict[str, Any]:
    """A typed config or section as plain data, which `validate` reads again."""
    return {field.name: plain_value(getattr(config, field.name)) for field in dataclasses.fields(config)}


def read_settings(file: Path) -> dict[str, Any]:
    """A shipped YAML file of settings, which is known to be right."""
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")))


def leaves(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value, of everything in a tree of mappings; an empty mapping is a value."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return found


def at(tree: Mapping[str, Any], path: Iterable[str]) -> Any:
    """The value under the keys of `path`, one within the other; None where a section is not there."""
    node: Any = tree
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def show(value: object) -> str:
    """A value as the user would type it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return shortened(str(value), 60)


def read_value(text: str) -> Any:
    """A value as YAML reads it: numbers, booleans, null, lists, text; no tags.

    Raises:
        yaml.YAMLError: it cannot be read.
    """
    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value  # YAML takes 1e5 for text
    except ValueError:
        return value


def plain_value(value: Any) -> Any:
    """A value of a config as plain data."""
    if dataclasses.is_dataclass(value):
        return to_plain(value)
    if isinstance(value, dict):
        return {key: plain_value(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain_value(item) for item in value]
    return value
