"""The JSON and YAML files of folders: writing them, and reading those that may be untrusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rltrain.errors import RequestError, RunFailed
from rltrain.storage.files import open_regular, write_atomic
from rltrain.terminal.shell import unusable

_MAX_TEXT_BYTES = 16 << 20
MOST_LIST_BYTES = 256 << 20
"""Of a file that lists what a sweep has of each job."""


class _PlainDumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]
    """SafeLoader without aliases, with which a few lines can describe more data than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)


def write_file(path: Path, data: bytes | str) -> None:
    """`write_atomic` for a file that a command must write.

    Raises:
        RunFailed: it cannot be written.
    """
    try:
        write_atomic(path, data)
    except OSError as error:
        raise RunFailed(unusable(path, error, "written")) from error


def json_text(data: Mapping[str, Any]) -> str:
    """As the JSON files of a folder are written."""
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def plain_yaml(plain: Mapping[str, Any]) -> str:
    """As the YAML files of a folder are written."""
    return str(yaml.dump(dict(plain), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True))


def read_plain_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping, of bounded size. Interpolations stay text, tags and aliases are refused.

    Raises:
        RequestError: it is missing or holds something else.
    """
    try:
        plain = yaml.load(_read_text(path), Loader=_PlainLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RequestError(f"{path}: no plain YAML: {reason[:200]}") from error
    if not isinstance(plain, dict):
        raise RequestError(f"{path}: holds no mapping of keys")
    return plain


def _read_text(path: Path, most: int = _MAX_TEXT_BYTES) -> str:
    try:
        with open_regular(path) as file:
            data = file.read(most + 1)
    except OSError as error:
        raise RequestError(unusable(path, error, "read")) from error
    if len(data) > most:
        raise RequestError(f"{path}: larger than {most} bytes")
    return data.decode()


def read_json(path: Path, most: int = _MAX_TEXT_BYTES) -> dict[str, Any]:
    """A JSON file that holds a mapping, of at most so many bytes.

    Raises:
        RequestError: it is missing or holds something else.
    """
    try:
        data = json.loads(_read_text(path, most))
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path}: no valid JSON") from error
    if not isinstance(data, dict):
        raise RequestError(f"{path}: holds no mapping of keys")
    return data
