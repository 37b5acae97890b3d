"""Faults in the user's own config files, with file and line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rltrain.config.choices import groups_of, unknown_choice
from rltrain.config.keys import unknown_key
from rltrain.config.plain import at
from rltrain.config.schema import GROUP_CONFIGS
from rltrain.config.validate import unregistered
from rltrain.errors import RequestError
from rltrain.terminal.shell import shown_path

_GLOBAL = ("experiment", "tuned")
"""The groups whose files speak of the whole config."""


def check_user_file(file: Path, config_path: str, package: str, choices: Mapping[str, str]) -> dict[str, str]:
    """Refuses a file that lacks its package or its plug-in, or has an unknown key.

    Args:
        config_path: `experiment/mine`.
        package: where its keys go, `` for the whole config.
        choices: of the groups that are in force where it is read.

    Returns:
        The place of each key, dotted -> `FILE:LINE`.

    Raises:
        RequestError: names file, line and key.
    """
    group = config_path.partition("/")[0]
    check_package(file, group, package)
    prefix = f"{package}." if package else ""
    places = {f"{prefix}{key}": f"{shown_path(file)}:{line}" for key, line in _lines(file)}
    check_registered(file, group)
    for key, place in places.items():
        if key.partition(".")[0] in ("hydra", "defaults"):
            continue
        if wrong := unknown_key(key, choices):
            raise RequestError(f"{place}: {key}: {wrong}")
    return places


def check_registered(file: Path, group: str) -> None:
    """Refuses a file of algorithms, networks, ... with the name of one that no module has registered. None of its keys
    is known then, and each would be called a mistake.

    Raises:
        RequestError: names the file and the line.
    """
    if group not in GROUP_CONFIGS:
        return
    path = ["name"] if _package_of(file, group) else [group, "name"]
    name = at(yaml.load(file.read_text(encoding="utf-8"), yaml.BaseLoader), path)
    if isinstance(name, str) and "${" not in name and name not in GROUP_CONFIGS[group]:
        line = dict(_lines(file))[".".join(path)]
        raise RequestError(f"{shown_path(file)}:{line}: {unregistered(group, name)}")


def check_package(file: Path, group: str, package: str | None = None) -> None:
    """Refuses an experiment, a tuned or an algorithm's file whose keys would not reach the whole config.

    Args:
        package: where its keys go, if that is known; otherwise its comments tell.

    Raises:
        RequestError: names the file and the line to write.
    """
    if group not in (*_GLOBAL, "algo"):
        return
    package = _package_of(file, group) if package is None else package
    # An algorithm's file may hold its own keys alone.
    if package and (group in _GLOBAL or any(key.split(".")[0] in ("defaults", group) for key, _ in _lines(file))):
        raise RequestError(f"{shown_path(file)}:1: write `# @package _global_` as the first line, or its keys are lost")


def _package_of(file: Path, group: str) -> str:
    header = re.match(r"\s*#\s*@package +(\S+)", file.read_text(encoding="utf-8", errors="replace"))
    return header[1].removeprefix("_global_") if header else group


def place_of(file: Path, text: str) -> str:
    """`FILE:LINE` of the first line that holds `text`; the file alone where none does."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    number = next((number for number, line in enumerate(lines, start=1) if text in line), None)
    return f"{shown_path(file)}:{number}" if number else f"{shown_path(file)}"


def explain_file(
    error: Exception, overrides: Sequence[str], choices: Mapping[str, str], loader: Any
) -> RequestError | None:
    """Describes the fault in a config file, where `error` is about one.

    Args:
        choices: of the groups, as far as they are known.
        loader: a RunConfigLoader.
    """
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return RequestError(f"{shown_path(Path(mark.name))}:{mark.line + 1}: is no YAML: {error.problem}")
    if isinstance(error, UnicodeDecodeError):
        return RequestError(f"{_undecodable(loader)}: is no text in UTF-8")
    within = re.match(r"In '([\w.-]+)/(.+?)': (.*)", str(error))
    if within is None:
        return _lost_choice(str(error), overrides, loader)
    group, name, problem = within.groups()
    file = loader.user_file(f"{group}/{name}")
    if file is not None:
        check_package(file, group)
        if nested := re.match(rf"Could not find '{group}/(\w+)/([^']+)'", problem):
            place = place_of(file, f"{nested[1]}: {nested[2]}")
            return RequestError(f"{place}: write `- override /{nested[1]}: {nested[2]}`")
    picked = re.match(r"Could not override '(\w+)'", problem)
    if picked is None or group not in _GLOBAL:
        return None
    algo = choices.get("algo", "the algorithm")
    return RequestError(f"{group}={name}: picks a {picked[1]}, and algo={algo} has none")


def _lost_choice(problem: str, overrides: Sequence[str], loader: Any) -> RequestError | None:
    """An unknown choice that a file makes."""
    lost = re.match(r"In '.+': Could not find '(\w+)/([^']+)'", problem)
    if lost is None or lost[1] not in groups_of(loader):
        return None
    named = [line for line in overrides if line.partition("=")[0] in _GLOBAL]
    files = [file for line in named if (file := loader.user_file(line.replace("=", "/", 1))) is not None]
    place = f"{place_of(files[0], lost[2])}: " if files else ""
    return RequestError(f"{place}{unknown_choice(lost[1], lost[2], loader)}")


def _undecodable(loader: Any) -> str:
    """The first of the user's config files that is not in UTF-8."""
    for folder in loader.user_folders():
        for file in sorted(folder.rglob("*.yaml")):
            try:
                file.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                return str(shown_path(file))
    return "a config file"


def _lines(file: Path) -> Iterator[tuple[str, int]]:
    """(dotted key, line) of each leaf, and of empty mappings."""
    node = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    if node is not None and not isinstance(node, yaml.MappingNode):
        raise RequestError(f"{shown_path(file)}:1: must be keys with their values (key: value)")
    yield from _leaves(node, "") if node is not None else ()


def _leaves(node: Any, prefix: str) -> Iterator[tuple[str, int]]:
    for key, value in node.value:
        dotted = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode) and value.value and not dotted.startswith("env.kwargs"):
            yield from _leaves(value, f"{dotted}.")
        else:
            yield dotted, key.start_mark.line + 1
