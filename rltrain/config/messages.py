"""Hydra's and OmegaConf's complaints in one form: the key, the value, what is allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep, Sweep
from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rltrain.config import schema
from rltrain.config.choices import check_group, choices_of, groups_of, names_of, that_hold
from rltrain.config.command_names import COMMANDS
from rltrain.config.contradictions import OPTIONAL_GROUPS
from rltrain.config.keys import same_name, takes_list, unknown_key
from rltrain.config.launchers import wrong_launcher_key
from rltrain.config.spelling import closest
from rltrain.config.user_files import check_registered, explain_file
from rltrain.errors import RequestError
from rltrain.terminal.shell import quoted, shown_path

COMPOSE_ERRORS = (HydraException, OmegaConfBaseException, YAMLError, ValueError)
# What a choice decides is more than this key: its defaults, tuned files, names of folders.
_GROUP_OF = {f"{group}.name": group for group in (*schema.GROUP_CONFIGS, "device", "env")} | {"env.id": "env"}


def check_overrides(overrides: Sequence[str], loader: Any) -> None:
    """Refuses what Hydra would accept, crash on, or explain in its own words; composes nothing.

    Raises:
        RequestError: an override that cannot be read, names no key, deletes one, or sets a group to null.
    """
    groups = groups_of(loader)
    our_sweeper = not any(line.startswith("hydra/sweeper=") for line in overrides)
    for line in overrides:
        override = _parse(line)
        key = override.key_or_group
        if key.startswith("hydra"):
            _refuse_values(override, line)
            continue
        _check_values(override, line, our_sweeper and key not in groups)
        if override.is_delete():
            raise RequestError(f"{line}: a key cannot be deleted; `rltrain --cfg job` shows all of them")
        if key in _GROUP_OF:
            raise RequestError(f"{line}: use {_GROUP_OF[key]}={line.partition('=')[2]}")
        if key in ("search", "tune") or key.startswith("tune."):
            raise RequestError(f"{line}: belongs to a search: rltrain tune ...")
        if key in groups:
            check_group(override, line, loader)
        elif message := unknown_key(key, {}):
            if any("." in name for name in (key, *same_name(key, {}))):  # a tenth of a second, to find what is chosen
                choices = choices_of(loader, overrides)
                _check_plug_in(key.partition(".")[0], choices, loader)
                message = unknown_key(key, choices, names_of(loader, choices)) or message
            raise RequestError(f"{line}: {message}")
        if override.is_add() and not key.startswith("env.kwargs"):
            raise RequestError(f"{line}: keys are not added: write {line.lstrip('+')}")


def _check_values(override: Override, line: str, listed: bool) -> None:
    """Refuses several values that no sweep takes, and where they must be `listed` an interval."""
    key, values = override.key_or_group, override.value()
    if isinstance(values, ChoiceSweep) and any(isinstance(value, Sweep) for value in values.list):
        raise RequestError(f"{line}: a range stands alone; with values beside it, give each: {key}=A,B,C")
    if isinstance(values, RangeSweep) and next(iter(values.range()), None) is None:
        raise RequestError(f"{line}: the range is empty, and so is the sweep")
    if isinstance(values, IntervalSweep) and listed:
        rule = f"a sweep takes values, {key}=A,B,C, or {key}=range(start,stop,step)"
        raise RequestError(f"{line}: intervals are for a search, rltrain tune; {rule}")
    if isinstance(values, Glob):
        raise RequestError(f"{line}: a sweep takes values, {key}=A,B,C, and no glob")


def _refuse_values(override: Override, line: str) -> None:
    """Refuses several values of a setting of Hydra's own, of which there is one also in a sweep."""
    key, _, text = line.partition("=")
    if override.is_sweep_override():
        one = '{}="{}"'.format(key, text.replace('"', '\\"'))
        quotes = f"; quote what holds a comma: {quoted(one)}" if "/" not in key else ""
        raise RequestError(f"{line}: is several values, and one is needed{quotes}")


def _check_plug_in(group: str, choices: Mapping[str, str], loader: Any) -> None:
    """Refuses the user's choice of a group where no module has registered its name: its keys cannot be known."""
    if (file := loader.user_file(f"{group}/{choices.get(group)}")) is not None:
        check_registered(file, group)


def refuse_launcher(overrides: Sequence[str]) -> None:
    """Refuses a launcher where there is one run, which it would not get.

    Raises:
        RequestError: an override names one.
    """
    for line in overrides:
        if line.startswith("hydra/launcher="):
            raise RequestError(f"{line}: a launcher hands out the jobs of a sweep, and this is one run: add -m")


def refuse_sweep(overrides: Sequence[str], why: str) -> None:
    """Refuses several values where one is needed.

    Args:
        why: one is needed, as the end of the message.

    Raises:
        RequestError: an override gives several values.
    """
    for line in overrides:
        override = _parse(line)
        key = override.key_or_group
        if override.is_sweep_override() and not key.startswith("hydra"):
            values = line.partition("=")[2]
            of_numbers = takes_list(key) and "[" not in values  # not of lists, which are values themselves
            hint = f" (a list is written {quoted(f'{key}=[{values}]')})" if of_numbers else ""
            raise RequestError(f"{line}: {why}{hint}")


def explain(error: Exception, overrides: Sequence[str], loader: Any) -> RequestError:
    """The RequestError that says what `error` means, in at most three lines."""
    named = re.search(r"Could not override '([\w.]+)'", str(error))
    if named is not None and named[1].startswith("hydra."):
        return RequestError(_wrong_hydra_key(named[1], overrides))
    choices = loader.choices or choices_of(loader, overrides)
    for line in overrides:
        override = _parse(line)
        key = override.key_or_group
        if named is None or key != named[1]:
            continue  # the other keys may be those of a choice that a tuned file makes
        algo = choices.get("algo")
        group = key.partition(".")[0]
        if algo is not None and group in OPTIONAL_GROUPS and group not in choices:
            return RequestError(f"{line}: {algo} has no {OPTIONAL_GROUPS[group]}")
        if key not in groups_of(loader):
            return RequestError(f"{line}: {_not_there(key, choices, loader)}")
    if (in_file := explain_file(error, overrides, choices, loader)) is not None:
        return in_file
    missing = re.search(r"Could not find 'hydra/(launcher|sweeper)/(\w+)'", str(error))
    if missing is not None:
        return RequestError(_missing_plugin(missing[1], missing[2], loader))
    cause = error.__cause__ if error.__cause__ is not None and not str(error).strip() else error
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        place = loader.place(cause.full_key, overrides)
        return RequestError(f"{place}{cause.full_key}: {str(cause).splitlines()[0]}")
    lines = [text.strip() for text in str(cause).splitlines() if text.strip()]
    return RequestError("\n".join(lines[:3]) or type(error).__name__)


def _not_there(key: str, choices: Mapping[str, str], loader: Any) -> str:
    """Why a config lacks a key though its group is there: the key is another choice's. Hydra's advice, a + before it,
    would be refused."""
    if message := unknown_key(key, choices, names_of(loader, choices)):
        return message
    if makers := that_hold(key, loader):
        chosen = choices.get(makers[0].partition("=")[0])
        now = f", and {makers[0].partition('=')[0]}={chosen} is chosen" if chosen else ": add that"
        return f"belongs to {' and '.join(makers)}{now}"
    section = key.partition(".")[0]
    choice = f"{section}={choices[section]}" if section in choices else "the config"
    file = loader.user_file(choice.replace("=", "/"))
    return f"{choice} has no such key; add it to {shown_path(file)}" if file else f"{choice} has no such key"


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


def _wrong_hydra_key(key: str, overrides: Sequence[str]) -> str:
    if not key.startswith("hydra.launcher."):
        return f"{key}: Hydra has no such key"
    launcher = next((line.partition("=")[2] for line in overrides if line.startswith("hydra/launcher=")), "population")
    return wrong_launcher_key(key.removeprefix("hydra.launcher."), launcher)


def _command_meant(word: str) -> str:
    # A slip keeps the first letter.
    alike = [name for name in (*COMMANDS, "train") if name[0] == word[:1].lower()]
    matches = [name for name in COMMANDS if name.startswith(word)] or closest(word, alike, cutoff=0.75)
    if not matches:
        return ""
    return "; to train, leave it out" if matches[0] == "train" else f"; did you mean {matches[0]}?"


_PLUGINS = {
    "launcher": {"joblib": "joblib", "rq": "rq", "submitit_local": "submitit", "submitit_slurm": "submitit"},
    "sweeper": {"optuna": "optuna", "ax": "ax", "nevergrad": "nevergrad"},
}
"""Hydra's own plug-ins, and the word in their packages' names."""


def _missing_plugin(kind: str, name: str, loader: Any) -> str:
    """Error text for an unknown launcher or sweeper. Only names that are known lead to a package."""
    if (package := _PLUGINS[kind].get(name)) is not None:
        return f"hydra/{kind}={name}: is not installed; its package is hydra-{package}-{kind}"
    options = sorted(loader.get_group_options(f"hydra/{kind}"))
    matches = closest(name, [*options, *_PLUGINS[kind]])
    guess = f"; did you mean {matches[0]}?" if matches else ""
    return f"hydra/{kind}={name}: no such {kind}{guess}\nchoices: {', '.join(options)}"
