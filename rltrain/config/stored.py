"""Configs that come from a run folder: data of possibly foreign origin, changed by `key=value` on the command line."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rltrain.config.keys import as_written, in_one_word
from rltrain.config.plain import at, leaves, read_value, show, to_plain
from rltrain.config.schema import RunConfig
from rltrain.config.spelling import closest, suggestion
from rltrain.config.validate import keys_of, validate
from rltrain.errors import RequestError

Arguments = dict[str, Any]
Differences = dict[str, tuple[Any, Any]]
"""Dotted key -> its value before and after."""

ADDED_KEYS: dict[str, Any] = {
    "env.wrappers": [], "device.cuda_graphs": False, "eval.num_envs": "auto", "loggers": [],
    "video": {"period": None},
    "algo.munchausen_temperature": 0.03, "algo.munchausen_clip": -1.0, "algo.anneal_lr": False,
}  # fmt: skip
"""Keys that came after the first checkpoints of format 1, dotted -> the value that means what those runs did without
the key (which need not be its default). One that may be null needs no line: it is null."""


def validate_stored(plain: Mapping[str, Any]) -> RunConfig:
    """`validate` for a config that an older version may have stored: keys that came later mean what was done before.

    Raises:
        RequestError: as `validate`.
    """
    filled = copy.deepcopy(dict(plain))
    for dotted, value in ADDED_KEYS.items():
        *path, name = dotted.split(".")
        section = at(filled, path)
        # A key of one choice of a group is no key of the others.
        if isinstance(section, dict) and name not in section and name in keys_of(filled, path):
            section[name] = copy.deepcopy(value)
    return validate(filled)


def parse_arguments(command: str, args: list[str], defaults: Mapping[str, Any]) -> tuple[str | None, Arguments]:
    """`parse_words` for a command that takes one path at the most.

    Raises:
        RequestError: as `parse_words`; a second path.
    """
    paths, values = parse_words(command, args, defaults)
    if len(paths) > 1:
        raise RequestError(f"{paths[1]}: one folder is enough, and {paths[0]} was given too")
    return paths[0] if paths else None, values


def parse_words(command: str, args: list[str], defaults: Mapping[str, Any]) -> tuple[list[str], Arguments]:
    """`[PATH ...] [key=value ...]` -> the paths, and `defaults` with what was given; `--flag` is `flag=true`.

    What names a folder that exists is a path, also with `=` in it.

    Raises:
        RequestError: an unknown key, a flag that is neither true nor false.
    """
    paths, values = list[str](), dict(defaults)
    flags = [key for key, value in defaults.items() if isinstance(value, bool)]

    def key_meant(name: str) -> str:
        if not (alike := closest(name, defaults)):
            raise RequestError(f"{name}: unknown key; known: {', '.join(defaults)}")
        return alike[0]

    for arg in as_settings(args, command, flags, key_meant=key_meant):
        key, equals, text = arg.partition("=")
        if Path(arg).is_dir() or not equals:
            if arg.startswith("-"):
                raise RequestError(f"{arg}: unknown option; known: {', '.join(defaults)}")
            paths.append(arg)
            continue
        if key not in defaults:
            raise RequestError(f"{key}: unknown key{suggestion(key, defaults)}; known: {', '.join(defaults)}")
        values[key] = parse_value(text)
        if key in flags and not isinstance(values[key], bool):
            raise RequestError(f"{key}={values[key]}: must be true or false")
    return paths, values


def as_settings(
    args: Sequence[str],
    command: str,
    flags: Sequence[str],
    options: Sequence[str] = (),
    key_meant: Callable[[str], str] = str,
) -> list[str]:
    """The words of a command, with `as_written`; `--json` is `json=true`, and `--seed 3` is `seed=3`.

    Args:
        flags: keys that may be written so.
        options: words that begin with a dash, and take the one after them.
        key_meant: name in another tool's form, without dashes -> key.

    Raises:
        RequestError: `--key value` or `--key=value` of a key that is called otherwise; with the whole command.
    """
    settings, meant, words = list[str](), list[str](), list(args)
    for_others = False
    while words:
        word = words.pop(0)
        name, equals, value = word.lstrip("-").partition("=")
        key = name.replace("-", "_")
        if word.startswith("--") and key in flags and not equals:
            value = words.pop(0) if words[:1] in (["true"], ["false"]) else "true"
            new, typed = [f"{key}={value}"], [f"--{key}" if value == "true" else f"{key}={value}"]
        elif word in options:
            new = typed = [word, *words[:1]]
            del words[:1]
        elif word.startswith("-") and name and not Path(word).is_dir() and (equals or _is_value(words[:1])):
            new = typed = [f"{key_meant(key)}={value if equals else words.pop(0)}"]
            for_others |= not word.startswith("--") or key_meant(key) != key
        else:
            new = typed = [word]
        settings += new
        meant += typed
    if for_others:
        raise in_one_word([command, *meant])
    return as_written(settings)


def _is_value(words: Sequence[str]) -> bool:
    return any("=" not in word and not word.startswith("--") for word in words)


def parse_value(text: str) -> Any:
    """`read_value`.

    Raises:
        RequestError: it cannot be read.
    """
    try:
        return read_value(text)
    except yaml.YAMLError:
        raise RequestError(f"{text}: is no value that YAML can read") from None


def parse_changes(overrides: list[str]) -> list[tuple[str, Any]]:
    """`key=value` texts as keys and values.

    Raises:
        RequestError: another form, or no value that YAML can read.
    """
    for override in overrides:
        if "=" not in override:
            raise RequestError(f"{override}: give changes as key=value")
    return [(key, parse_value(text)) for key, _, text in (override.partition("=") for override in overrides)]


def changed(
    config: RunConfig, asked: Iterable[tuple[str, Any]], allowed: tuple[str, ...]
) -> tuple[RunConfig, Differences]:
    """`config` with the values that are asked for, and what differs from it.

    Args:
        allowed: the keys, or the sections before a dot, that may differ.

    Raises:
        RequestError: an unknown key, a bad value, or a difference that would make it another experiment.
    """
    plain = to_plain(config)
    differences: Differences = {}
    refused: list[str] = []
    for key, value in asked:
        choice = "id" if key == "env" else "name"
        *path, name = (f"{key}.{choice}" if isinstance(plain.get(key), dict) else key).split(".")
        section = at(plain, path)
        if not isinstance(section, dict) or name not in section:
            raise RequestError(f"{key}: is no key of this run's config{suggestion(key, leaves(plain))}")
        if section[name] == value:
            continue
        dotted = ".".join([*path, name])
        if dotted not in allowed and path[:1] not in [[entry] for entry in allowed]:
            refused.append(f"{dotted}={show(section[name])} (asked: {show(value)})")
        differences[dotted] = (differences.get(dotted, (section[name],))[0], value)
        section[name] = value
    if refused:
        raise RequestError(
            f"a resumed run keeps {', '.join(refused)}\na new run may start from its network: init_from=RUN"
        )
    return validate(plain), {key: pair for key, pair in differences.items() if pair[0] != pair[1]}


def record_changes(step: int, differences: Differences) -> list[dict[str, Any]]:
    """Entry in run.json for `differences` that hold from environment step `step` on."""
    return [{"step": step, "key": key, "from": old, "to": new} for key, (old, new) in differences.items()]


def recorded_changes(record: Mapping[str, Any], since: int) -> list[tuple[str, Any]]:
    """The changes in a run.json that were made at the environment step `since` or later, in their order.

    A checkpoint of an earlier step, from which a killed run goes on, does not know of them.

    Raises:
        RequestError: they are not what `record_changes` makes.
    """
    found = record.get("changes", [])
    made: list[tuple[str, Any]] = []
    for entry in found if isinstance(found, list) else [None]:
        if not isinstance(entry, dict) or entry.keys() != {"step", "key", "from", "to"}:
            raise RequestError("changes: is no list of step, key, from and to")
        step, key = entry["step"], entry["key"]
        if type(step) is not int or not isinstance(key, str):
            raise RequestError("changes: has a step that is no number or a key that is no word")
        if step >= since:
            made.append((key, entry["to"]))
    return made


def earlier_totals(record: Mapping[str, Any], anneals: Any) -> tuple[int, ...]:
    """The `total_steps` that a run had before `resume` gave it others, if its learning rate fell over them: it is no
    replicate of a run that had the last ones from the start. Of a run.json, which may be untrusted."""
    return tuple(before for before, _ in changed_totals(record)) if anneals is True else ()


def changed_totals(record: Mapping[str, Any]) -> list[tuple[int, int]]:
    """The `total_steps` before and after each `resume` that changed them."""
    pairs = [(entry.get("from"), entry.get("to")) for entry in changes_of(record) if entry.get("key") == "total_steps"]
    return [(before, after) for before, after in pairs if type(before) is int and type(after) is int]


def changes_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The changes that `resume` has made, as far as a run.json, which may be untrusted, tells them rightly."""
    changes = record.get("changes")
    return [entry for entry in changes if isinstance(entry, dict)] if isinstance(changes, list) else []


def require_trusted(config: RunConfig, trust: bool) -> None:
    """Refuses a stored config whose environment id or loggers import a module, unless the user said that they may.

    Raises:
        RequestError: one is `module:name`, and neither `trust=true` nor RLTRAIN_PLUGINS covers the module.
    """
    plugins = [name.strip() for name in os.environ.get("RLTRAIN_PLUGINS", "").split(",")]
    for key, value in (("env.id", config.env.id), *(("loggers", name) for name in config.loggers)):
        module, colon, _ = value.partition(":")
        if colon and not trust and module not in plugins:
            raise RequestError(
                f"{key}={value}: the stored config would import the Python module {module}\n"
                f"if you know where it comes from, say trust=true (or RLTRAIN_PLUGINS={module})"
            )
