"""Changes that `resume` may make to a run's config, and those that earlier resumes made."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rltrain.commands.edited_config import warn_of_edits
from rltrain.config.plain import show
from rltrain.config.schema import RunConfig
from rltrain.config.stored import Differences, changed, parse_changes, recorded_changes, require_trusted
from rltrain.errors import RequestError
from rltrain.storage.run_folder import RunFolder
from rltrain.terminal.shell import shown_path

if TYPE_CHECKING:
    from rltrain.storage.checkpoint import Checkpoint

# What may differ without making it another experiment. Only the limits of the run must not shrink.
_HARMLESS = (
    "total_steps",
    "total_episodes",
    "log_period",
    "stop_at_return",
    "eval",
    "checkpoint",
    "device",
    "loggers",
    "video",
)
_LIMITS = ("total_steps", "total_episodes", "stop_at_return")


def changed_config(
    stored: RunConfig, folder: Path, made: Mapping[str, int], overrides: list[str], trust: bool
) -> tuple[RunConfig, Differences]:
    """The config stored when `made` was done with the changes that are asked for, and these.

    Args:
        made: environment steps and episodes until then, by the key that limits them.

    Raises:
        RequestError: what is asked for may not be changed, or not to this.
    """
    refuse_less(dict(parse_changes(overrides)), made, folder)  # before rules between keys, which would speak of others
    before = with_earlier_changes(stored, folder, made["total_steps"])
    config, differences = asked_config(before, overrides, trust)
    warn_of_edits(folder, before, config)
    return config, differences


def with_earlier_changes(stored: RunConfig, folder: Path, step: int) -> RunConfig:
    """The config stored at `step`, with the changes of an earlier resume, which hold even if the run was killed before
    it saved under them."""
    run = RunFolder(folder)
    if not run.record.exists():
        return stored
    try:
        return changed(stored, recorded_changes(run.read_record(), step), _HARMLESS)[0]
    except RequestError as error:
        raise RequestError(f"{run.record}: {error}") from error


def asked_config(before: RunConfig, overrides: list[str], trust: bool) -> tuple[RunConfig, Differences]:
    """`before` with the changes that are asked for, and these.

    Raises:
        RequestError: they may not be made, or the environment may not be imported.
    """
    asked = parse_changes(overrides)
    config, differences = changed(before, asked, _HARMLESS)
    typed = any(key == "loggers" for key, _ in asked)  # by the user, who knows where they come from
    require_trusted(replace(config, loggers=()) if typed else config, trust)
    return config, differences


def refuse_less(asked: Mapping[str, Any], made: Mapping[str, int], folder: Path) -> None:
    """Refuses limits, of those that are asked for, below what a run has made."""
    for key, least in made.items():
        limit = asked.get(key)
        if isinstance(limit, int | float) and limit < least:
            noun = key.removeprefix("total_")
            raise RequestError(
                f"{key}={limit}: {shown_path(folder)} has made {least:,} {noun}, and none can be taken back"
            )


def made_by(source: Checkpoint | None) -> dict[str, int]:
    """Steps and episodes at a checkpoint (None: at the beginning), by the limit on each."""
    episodes = 0 if source is None else source.state.get("episodes")
    return {
        "total_steps": 0 if source is None else source.step,
        "total_episodes": episodes if type(episodes) is int else 0,  # foreign: loading it says what is wrong
    }


def left_to_extend(folder: Path, wanted: Mapping[str, Any] | None) -> list[str]:
    """The limits that an earlier resume lifted for a completed run which a stop has kept from going on, as overrides.

    Args:
        wanted: the config that its sweep lists for it; None: it lists none.
    """
    if wanted is None:
        return []
    from rltrain.storage.checkpoint_files import read_manifest
    from rltrain.storage.checkpoint_folders import step_folders

    with suppress(RequestError, KeyError, TypeError, IndexError):  # damaged files: the run itself says what is wrong
        had = read_manifest(step_folders(folder)[-1])["config"]
        return [f"{key}={show(wanted[key])}" for key in _LIMITS if _lifts(wanted[key], had[key])]
    return []


def _lifts(limit: Any, before: Any) -> bool:
    """Whether a limit is laxer than before; both may be a stranger's."""
    if not isinstance(before, int | float):
        return False
    return limit is None or (isinstance(limit, int | float) and limit > before)


def lifting_change(folder: Path, config: Mapping[str, Any] | None) -> str:
    """The change that lets a completed run go on, by its files alone: reading its checkpoint would take seconds."""
    run = RunFolder(folder)
    with suppress(RequestError, KeyError, TypeError):  # a damaged file: the change that most runs need
        limits = run.read_config() if config is None else config
        if run.read_result()["env_step"] < limits["total_steps"]:
            return "stop_at_return=null" if limits["total_episodes"] is None else "total_episodes=N"
    return "total_steps=N"
