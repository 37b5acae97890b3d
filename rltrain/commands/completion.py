"""`rltrain --shell-completion install=bash|query=bash`: Hydra's completion of keys and choices, and our commands."""

from __future__ import annotations

import contextlib
import glob
import io
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from rltrain.commands.list import LISTS
from rltrain.config.application import CONFIG_NAME
from rltrain.config.command_names import COMMANDS
from rltrain.config.folders import group_files
from rltrain.config.messages import COMPOSE_ERRORS
from rltrain.config.schema import TuneConfig
from rltrain.config.wrappers import WRAPPER_CONFIGS
from rltrain.errors import RequestError
from rltrain.terminal.output import printing_answers

_WRAPPERS = "env.wrappers="
_ACTIONS = ("install", "uninstall", "query")
Query = Callable[[str | None, str], list[str]]


def complete(hydra: Hydra, arguments: list[str]) -> None:
    """Prints the shell's script (install=SHELL, uninstall=SHELL), or what may follow $COMP_LINE (query=SHELL).

    Raises:
        RequestError: another action, or a shell without a plug-in for it.
    """
    shells = hydra.get_shell_to_plugin_map(hydra.config_loader)
    action, _, shell = arguments[0].partition("=") if len(arguments) == 1 else ("", "", "")
    if action not in _ACTIONS or shell not in shells:
        raise RequestError(
            f"--shell-completion {' '.join(arguments)}: takes one of {'=SHELL, '.join(_ACTIONS)}=SHELL\n"
            f"shells: {', '.join(sorted(shells))}"
        )
    plugin = shells[shell][0]
    if action == "query":
        # Hydra makes its plug-ins itself, and each prints what its own _query returns in its shell's way.
        plugin.__dict__["_query"] = _with_commands(plugin._query)
        plugin.config_loader.__dict__["load_configuration"] = _with_lists_as_text(plugin.config_loader)
    with printing_answers():
        plugin.query(config_name=CONFIG_NAME) if action == "query" else getattr(plugin, action)()


def _with_commands(query: Query) -> Query:
    """Hydra's `query` (config name, the line after `rltrain`) -> choices, for a line that may hold a command."""

    def choices(config_name: str | None, line: str) -> list[str]:
        words = line.split()
        word = words.pop() if words and not line[-1].isspace() else ""
        if words and words[0] == "tune":
            rest = line.partition("tune")[2].lstrip()
            return sorted(
                [*_of_search(word), *_quietly(query, config_name, rest), *_arguments("tune", words[1:], word)]
            )
        if words and words[0] in COMMANDS:
            return _arguments(words[0], words[1:], word)
        if word == _WRAPPERS or word.startswith(f"{_WRAPPERS}["):
            return _wrappers(word.removeprefix(_WRAPPERS).removeprefix("["))
        commands = [name for name in COMMANDS if name.startswith(word)] if not words else []
        return sorted([*commands, *_quietly(query, config_name, line)])

    return choices


def _arguments(command: str, before: list[str], word: str) -> list[str]:
    """A list's name, or a folder: what each command takes first, and a report several of."""
    if before and command != "report":
        return []
    if command == "list":
        return sorted(name for name in LISTS if name.startswith(word))
    return sorted(glob.glob(f"{glob.escape(word)}*/"))


def _of_search(word: str) -> list[str]:
    """The words of `rltrain tune` that no run has."""
    options = [f"tune.{field.name}=" for field in fields(TuneConfig)] + ["tune.dir="]
    spaces = [f"search={name}" for name in group_files("search")]
    return [option for option in (*options, *spaces) if option.startswith(word)]


def _wrappers(listed: str) -> list[str]:
    """`time_aware,nor` -> `env.wrappers=[time_aware,normalize_observation]` and so on: the last name of the list."""
    before, comma, last = listed.rpartition(",")
    names = [name for name in WRAPPER_CONFIGS if name.startswith(last)]
    return sorted(f"{_WRAPPERS}[{before}{comma}{name}]" for name in names)


def _quietly(query: Query, config_name: str | None, line: str) -> list[str]:
    """Nothing for a line that cannot be read or composed: a message would land in the middle of the user's prompt."""
    try:
        with contextlib.redirect_stderr(io.StringIO()) as unread, contextlib.redirect_stdout(unread):
            offered = query(config_name, line)
            # Behind the dot of a key that has none below it, Hydra offers the key's value.
            return [word for word in offered if word[-1:] in ("=", ".")] if line.endswith(".") else offered
    except (RequestError, SystemExit, *COMPOSE_ERRORS):
        return []


def _with_lists_as_text(loader: Any) -> Callable[..., Any]:
    """The loader's `load_configuration` with each list as an override's text: to Hydra's completion a list is a section
    whose keys are 0, 1, ..., and one cannot override those."""
    load = loader.load_configuration

    def loaded(*args: Any, **options: Any) -> Any:
        config: Any = OmegaConf.to_container(load(*args, **options), resolve=False, enum_to_str=True)
        return OmegaConf.create(_lists_as_text(config))

    return loaded


def _lists_as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists_as_text(part) for key, part in value.items()}
    return Override._get_value_element_as_str(value) if isinstance(value, list) else value
