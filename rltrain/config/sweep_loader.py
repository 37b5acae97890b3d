"""The config loader of a sweep: what its jobs have in common is composed once."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from rltrain.config.loader import (
    RunConfigLoader,
    of_the_task,
    opened,
    takes_the_goal,
    validated_job,
    write_validated,
)
from rltrain.config.messages import COMPOSE_ERRORS, explain
from rltrain.config.override_text import as_typed
from rltrain.config.plain import at, to_plain
from rltrain.config.schema import RunConfig
from rltrain.config.validate import validate
from rltrain.errors import RequestError


@dataclass(frozen=True)
class _Frame:
    """Config that jobs with the same choices of groups have in common.

    Attributes:
        config: without the overrides of values, not validated; pickled, as each job copies it (deepcopy takes six
            times as long).
        plain: the same as plain data.
        tuned: the override that chooses the tuned file, if there is one.
    """

    config: bytes
    plain: bytes
    tuned: list[str]


class PlainJob(NamedTuple):
    """A job of a sweep: all of it as plain data, Hydra's part included, interpolations not resolved; and its config."""

    record: dict[str, Any]
    config: RunConfig


class _About(NamedTuple):
    """Overrides as a job's record has them: those of its name, and those of the task."""

    named: list[Override]
    task: list[str]


class SweepConfigLoader(RunConfigLoader):
    """Composes runs, and the jobs of one sweep, which get the folder that was reserved for the sweep.

    Hydra chooses files by the overrides of groups, and puts the values that are given into what they make. The first
    takes a tenth of a second and is the same for jobs that differ in numbers only.
    """

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self._frames: dict[tuple[str, ...], _Frame] = {}
        self._parsed: dict[str, tuple[Override, bool]] = {}
        self._groups: dict[str, bool] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_frames": {}, "_parsed": {}}  # a launcher sends the loader to every worker

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """A job of the sweep, validated.

        Raises:
            RequestError: it cannot be composed, or is not valid.
        """
        try:
            job = self._from_frame(master_config, sweep_overrides)
        except (RequestError, *COMPOSE_ERRORS):
            job = None  # composing the whole says what is wrong
        return self._compose_whole(master_config, sweep_overrides) if job is None else job

    def _compose_whole(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        try:
            config = super().load_sweep_config(master_config, sweep_overrides)
        except (RequestError, *COMPOSE_ERRORS) as error:
            reason = error if isinstance(error, RequestError) else explain(error, sweep_overrides, self)
            raise RequestError(f"in the job `{as_typed(sweep_overrides)}`: {reason}") from error
        return _of_sweep(config, master_config)

    def plain_job(self, master_config: DictConfig, sweep_overrides: list[str]) -> PlainJob:
        """`load_sweep_config` as plain data, which takes a fifth of the time.

        Raises:
            RequestError: as there.
        """
        try:
            job = self._plain_from_frame(master_config, sweep_overrides)
        except (RequestError, *COMPOSE_ERRORS):
            job = None
        if job is not None:
            return job
        cfg = self.load_sweep_config(master_config, sweep_overrides)
        record: Any = OmegaConf.to_container(cfg, resolve=False, enum_to_str=True)
        return PlainJob(record, validate({key: value for key, value in record.items() if key != "hydra"}))

    def _plain_from_frame(self, master_config: DictConfig, sweep_overrides: Sequence[str]) -> PlainJob | None:
        """None where an override does more than give a value to a key that is there."""
        found = self._frame(master_config, sweep_overrides)
        if found is None:
            return None
        frame, values, about = found
        record: dict[str, Any] = pickle.loads(frame.plain)
        if not all(_put(record, override) for override in values):
            return None
        hydra = record.pop("hydra")
        config = validated_job(record, hydra["runtime"]["choices"].get("replay"))
        job, validated = hydra["job"], to_plain(config)
        job["override_dirname"] = get_overrides_dirname(about.named, **job["config"]["override_dirname"])
        hydra["overrides"]["task"] = about.task
        return PlainJob({"hydra": hydra, **{key: validated[key] for key in record}}, config)

    def _from_frame(self, master_config: DictConfig, sweep_overrides: Sequence[str]) -> DictConfig | None:
        """The same as `_compose_whole`; None where an override deletes something."""
        found = self._frame(master_config, sweep_overrides)
        if found is None:
            return None
        frame, values, about = found
        cfg: DictConfig = pickle.loads(frame.config)
        self._apply_overrides_to_config(values, cfg)
        cfg.hydra.job.override_dirname = get_overrides_dirname(about.named, **cfg.hydra.job.config.override_dirname)
        cfg.hydra.overrides.task = about.task
        write_validated(cfg)
        OmegaConf.copy_cache(from_config=master_config, to_config=cfg)
        return cfg

    def _frame(
        self, master_config: DictConfig, sweep_overrides: Sequence[str]
    ) -> tuple[_Frame, list[Override], _About] | None:
        """The frame of a job, the overrides that give values to its keys, and what is written about all of them; None
        where an override deletes something."""
        name, of_hydra = master_config.hydra.job.config_name, _as_given(master_config.hydra.overrides.hydra)
        overrides = [*of_hydra, *sweep_overrides]
        lines = opened(overrides)
        parsed = [self._parse(line, name, of_hydra) for line in lines]
        if any(override.is_delete() or override.is_sweep_override() for override, _ in parsed):
            return None
        key = tuple(line for line, (_, chooses) in zip(lines, parsed, strict=True) if chooses)
        if key not in self._frames:
            config = _of_sweep(self._composed(name, list(key), RunMode.RUN), master_config)
            plain = OmegaConf.to_container(config, resolve=False, enum_to_str=True)
            self._frames[key] = _Frame(pickle.dumps(config), pickle.dumps(plain), self._tuned)
        frame = self._frames[key]
        tuned = [self._parse(line, name, of_hydra)[0] for line in frame.tuned]
        named = [override for override in (*(found for found, _ in parsed), *tuned) if not override.is_hydra_override()]
        values = [override for override, chooses in parsed if not chooses]
        return frame, values, _About(named, of_the_task(overrides))

    def _parse(self, line: str, name: str | None, of_hydra: list[str]) -> tuple[Override, bool]:
        """An override, and whether it chooses a file or what a file says, or is about Hydra itself; else it gives a
        value to a key.

        Args:
            name: of the primary config.
            of_hydra: overrides of Hydra's keys, which may say where files are searched.
        """
        if line not in self._parsed:
            override = OverridesParser.create().parse_override(line)
            key = override.key_or_group
            if key not in self._groups:
                _, repo = super()._parse_overrides_and_create_caching_repo(name, of_hydra)
                self._groups[key] = repo.group_exists(key)
            chooses = self._groups[key] or key.startswith("hydra") or takes_the_goal(line)
            self._parsed[line] = override, chooses
        return self._parsed[line]


def _put(record: dict[str, Any], override: Override) -> bool:
    """Gives a value to a key of plain data, as OmegaConf would; False where more is to be done than that."""
    *path, last = override.key_or_group.split(".")
    section = at(record, path)
    value = override.value()
    if override.package is not None or override.is_add() or not isinstance(section, dict) or isinstance(value, dict):
        return False
    if isinstance(section.get(last), dict) or (last not in section and not override.is_force_add()):
        return False
    section[last] = value
    return True


def _of_sweep(job: DictConfig, master_config: DictConfig) -> DictConfig:
    job.hydra.mode = RunMode.MULTIRUN
    job.hydra.sweep.dir = master_config.hydra.sweep.dir
    return job


def _as_given(overrides: ListConfig) -> list[str]:
    """The overrides as text, in which an interpolation may stand."""
    lines: Any = OmegaConf.to_container(overrides, resolve=False)
    return [str(line) for line in lines]
