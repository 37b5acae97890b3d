"""Hydra's and OmegaConf's complaints in one form: the key, the value, what is allowed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rltrain.config import schema
from rltrain.config.command_names import COMMANDS
from rltrain.config.validate import closest, show
from rltrain.errors import RequestError

COMPOSE_ERRORS = (HydraException, OmegaConfBaseException, YAMLError, ValueError)
_SYNONYMS = {"learning_rate": "lr", "batch": "batch_size", "timesteps": "total_steps"}
# What a choice decides is more than this key: its defaults, tuned files, names of folders.
_GROUP_OF = {f"{group}.name": group for group in (*schema.GROUP_CONFIGS, "device")} | {"env.id": "env"}
_WHAT_IS_MISSING = {"network": "network", "target_update": "target network", "exploration": "exploration schedule"}


def check_overrides(overrides: Sequence[str], loader: Any) -> None:
    """Refuses what Hydra would accept, crash on, or explain in its own words.

    Raises:
        RequestError: an override that cannot be read, deletes a key, or sets a group to null.
    """
    groups = _groups(loader)
    for line in overrides:
        override = _parse(line)
        key = override.key_or_group
        if key.startswith("hydra"):
            continue
        if override.is_delete():
            raise RequestError(f"{line}: a key cannot be deleted; `rltrain --cfg job` shows all of them")
        if key in _GROUP_OF:
            raise RequestError(f"{line}: use {_GROUP_OF[key]}={line.partition('=')[2]}")
        if key in groups:
            _check_group(override, line, loader)
        if override.is_add() and not key.startswith("env.kwargs"):
            raise RequestError(f"{line}: {_unknown(key, {}) or f'{key} exists: write {line[1:]}'}")


def explain(error: Exception, overrides: Sequence[str], loader: Any) -> RequestError:
    """The RequestError that says what `error` means, in at most three lines."""
    choices = _choices(loader, overrides)
    for line in overrides:
        override = _parse(line)
        key = override.key_or_group
        if key.startswith("hydra"):
            continue
        if override.is_sweep_override() and "multirun" in str(error):
            return RequestError(f"{line}: several values are a sweep: add -m (a list is written {key}=[a,b])")
        algo = choices.get("algo")
        group = key.partition(".")[0]
        if algo is not None and group in _WHAT_IS_MISSING and group not in choices:
            return RequestError(f"{line}: {algo} has no {_WHAT_IS_MISSING[group]}")
        if key not in _groups(loader):
            message = _unknown(key, choices)
            if message is not None:
                return RequestError(f"{line}: {message}")
    within = re.match(r"In '(tuned|experiment)/(.+)': Could not override '(\w+)'", str(error))
    if within is not None:
        file, name, group = within.groups()
        return RequestError(f"{file}={name}: picks a {group}, and algo={choices.get('algo', 'the algorithm')} has none")
    missing = re.search(r"Could not find 'hydra/(launcher|sweeper)/(\w+)'", str(error))
    if missing is not None:
        return RequestError(
            f"hydra/{missing[1]}={missing[2]}: is not installed; its package is hydra-{missing[2]}-{missing[1]}"
        )
    cause = error.__cause__ if error.__cause__ is not None and not str(error).strip() else error
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return RequestError(f"{cause.full_key}: {str(cause).splitlines()[0]}")
    lines = [text.strip() for text in str(cause).splitlines() if text.strip()]
    return RequestError("\n".join(lines[:3]) or type(error).__name__)


def _parse(line: str) -> Override:
    try:
        return OverridesParser.create().parse_override(line)
    except (OverrideParseException, HydraException) as error:
        if "=" in line:
            reason = str(error).splitlines()[0].rpartition("Error parsing")[0]
            quote = "; quote values that hold special characters: key='\"...\"'"
            raise RequestError(f"{line}: cannot be read as key=value{reason}{quote}") from error
        raise RequestError(
            f"{line}: is neither key=value nor a command ({', '.join(COMMANDS)}){_command_meant(line)}\n"
            "see rltrain --help"
        ) from error


def _command_meant(word: str) -> str:
    # A slip keeps the first letter; `report` is no slip of export.
    alike = [name for name in (*COMMANDS, "train") if name[0] == word[:1].lower()]
    matches = [name for name in COMMANDS if name.startswith(word)] or closest(word, alike, cutoff=0.75)
    if not matches:
        return ""
    return "; to train, leave it out" if matches[0] == "train" else f"; did you mean {matches[0]}?"


def _groups(loader: Any) -> set[str]:
    return set(loader.list_groups("")) - {"hydra"}


def _check_group(override: Override, line: str, loader: Any) -> None:
    group = override.key_or_group
    if override.package is not None:
        raise RequestError(f"{line}: a group cannot be moved; write {group}=...")
    if override.is_sweep_override():
        if not override.is_discrete_sweep():
            raise RequestError(f"{line}: {group} takes names, not a range of numbers")
        values: Iterable[Any] = override.sweep_string_iterator()
    else:
        values = [override.value()]
    text = line.partition("=")[2]
    for word in (text, text.strip("'\"")):
        if word != word.strip():
            raise RequestError(f"{group}={word!r}: blanks before or after the name")
    for value in values:
        if value is None and group == "experiment":
            continue
        if not isinstance(value, str) or not value:
            hint = f"{group}=none turns it off" if group == "tuned" else f"{group} needs one of its choices"
            raise RequestError(f"{group}={show(value)}: {hint}; see `rltrain list {_listed(group)}`")
        name = value.strip("'\"")
        if not loader.repository.config_exists(f"{group}/{name}"):
            raise RequestError(_unknown_choice(group, name, loader))


def _unknown_choice(group: str, name: str, loader: Any) -> str:
    options = [option for option in loader.get_group_options(group) if option != "auto" or group != "tuned"]
    matches = closest(name, options, 3, 0.5)
    if group == "env":
        # Two names that share little more than the version are not alike.
        matches = [match for match in matches if closest(_unversioned(name), [_unversioned(match)], cutoff=0.6)]
        known = f"closest: {', '.join(matches)}; " if matches else ""
        return f"env={name}: no such environment\n{known}`rltrain list envs` shows all, module:id imports one of yours"
    guess = f"; did you mean {matches[0]}?" if matches else ""
    return f"{group}={name}: no such choice{guess}\nchoices: {', '.join(options)}"


def _unversioned(env_id: str) -> str:
    return re.sub(r"-v\d+$", "", env_id)


def _listed(group: str) -> str:
    return group if group in ("tuned",) else f"{group}s"


def _choices(loader: Any, overrides: Sequence[str]) -> dict[str, str]:
    """The choices that the overrides which name a choice lead to, as far as they can be found out."""
    names = [line for line in overrides if line.partition("=")[0] in ("algo", "env", "network", "experiment", "tuned")]
    more = [line for line in overrides if line.partition("=")[0] in _WHAT_IS_MISSING]
    no_network = [line for line in names if not line.startswith("network=")]
    plain = [line for line in names if line.startswith(("algo=", "env="))]
    for attempt in (names + more, names, no_network, plain):
        try:
            found = loader.compute_defaults_list("config", attempt, RunMode.MULTIRUN).overrides.known_choices
        except Exception:
            continue
        return {key: value for key, value in found.items() if isinstance(value, str)}
    return {}


def _unknown(key: str, choices: Mapping[str, str]) -> str | None:
    """What is wrong with a dotted key, or None where the schema knows it."""
    leaves = sorted(_schema_keys(schema.RunConfig, "", choices))
    if key in leaves or key.startswith("env.kwargs") or any(leaf.startswith(f"{key}.") for leaf in leaves):
        return None
    last = _SYNONYMS.get(key.rpartition(".")[2], key.rpartition(".")[2])
    section = key.partition(".")[0]
    owner = f" of {section}={choices[section]}" if section in choices and "." in key else ""
    elsewhere = [
        f"{section}={name}"
        for name, cls in schema.GROUP_CONFIGS.get(section, {}).items()
        if key in _schema_keys(cls, f"{section}.", {})
    ]
    if elsewhere:
        return f"unknown key{owner}; it belongs to {' and '.join(elsewhere)}"
    same = [leaf for leaf in leaves if leaf.rpartition(".")[2] == last]
    sections = {leaf.partition(".")[0] for leaf in leaves} | {"experiment", "tuned"}
    by_name = {leaf.rpartition(".")[2]: leaf for leaf in leaves} | {section: section for section in sections}
    matches = same or (closest(key, leaves) if "." in key else []) or [by_name[name] for name in closest(last, by_name)]
    guess = f"; did you mean {' or '.join(matches[:3])}?" if matches else "; `rltrain --cfg job` shows all keys"
    return f"unknown key{owner}{guess}"


def _schema_keys(cls: type, prefix: str, choices: Mapping[str, str]) -> Iterable[str]:
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        key = f"{prefix}{field.name}"
        if key in schema.GROUP_CONFIGS:
            classes = schema.GROUP_CONFIGS[key]
            chosen = [classes[choices[key]]] if choices.get(key) in classes else list(classes.values())
        else:
            hint = hints[field.name]
            chosen = [
                part for part in (hint, *get_args(hint)) if isinstance(part, type) and dataclasses.is_dataclass(part)
            ]
        if not chosen:
            yield key
        for part in chosen:
            yield from _schema_keys(part, f"{key}.", choices)
