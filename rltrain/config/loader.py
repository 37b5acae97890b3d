"""Hydra's config loader with three rules of ours.

1. `tuned=auto` becomes tuned/<algo>_<env>.yaml where there is such a file, else tuned/<algo>_<family>.yaml, which is
   for all environments `<family>/<name>`, or of MuJoCo.
2. What a file says about a group reaches only the choice that this file names: with `override /target_update: hard` and
   `target_update.period: 10` in it and `target_update=soft` on the command line, soft keeps its own period. The
   environments of one namespace are one choice.
3. A composed job is validated, so whatever composes (a run, a sweep, --cfg) refuses the same requests.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import GroupDefault, ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from rltrain.config.env_families import family_of, namespace_of
from rltrain.config.folders import USER_ORIGINS
from rltrain.config.override_text import key_of
from rltrain.config.plain import to_plain
from rltrain.config.schema import ALGO_CONFIGS, RunConfig
from rltrain.config.user_files import check_user_file
from rltrain.config.validate import validate
from rltrain.errors import RequestError
from rltrain.terminal.shell import shown_path

_LAYERS = ("algo/", "tuned/", "experiment/")  # the files that may speak about other groups
_OPEN = ("env.kwargs.", "env.kwargs=")
_TASK = ("env.kwargs", "env.max_episode_steps")


def tuned_name(algo: str, env: str) -> str:
    """The tuned file of an algorithm's and an environment's choice: `module:ALE/Pong-v5` is `dqn_ALE-Pong-v5`."""
    return f"{algo}_{env.rpartition(':')[2].replace('/', '-')}"


class RunConfigLoader(ConfigLoaderImpl):
    """Composes a job."""

    _choices: Mapping[str, str] = {}
    _tuned: list[str]
    _no_goal = False
    _shared_repo: CachingConfigRepository | None = None

    def _load_configuration_impl(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        effective = opened(overrides)
        if run_mode != RunMode.RUN:  # which keys there are is the jobs' affair: a tuned file may choose their groups
            effective = [line for line in effective if "." not in key_of(line) or key_of(line).startswith("hydra")]
        cfg = self._composed(config_name, effective, run_mode, from_shell, validate_sweep_overrides)
        cfg.hydra.overrides.task = of_the_task(overrides)
        if run_mode == RunMode.RUN:
            try:
                write_validated(cfg)
            except RequestError as error:
                raise self._with_place(error, overrides) from error
        return cfg

    def _composed(self, config_name: str | None, overrides: list[str], run_mode: RunMode, *how: bool) -> DictConfig:
        """Hydra's composition, with the tuned file of the choices; not validated."""
        self._tuned, self._choices = [], {}
        self._no_goal = any(map(takes_the_goal, overrides))
        try:
            with redirect_stdout(sys.stderr):  # looking an environment up may import packages that greet
                if run_mode == RunMode.RUN:
                    self._tuned = self._tuned_override(config_name, overrides)
                return super()._load_configuration_impl(config_name, [*overrides, *self._tuned], run_mode, *how)
        except KeyError as error:
            if any("env_copy" in line for line in overrides):
                raise RequestError(f"hydra.job.env_copy: the environment variable {error} is not set") from error
            raise
        finally:
            self._shared_repo = None

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self._places: dict[str, str] = {}

    @property
    def choices(self) -> Mapping[str, str]:
        """The choices in force in what was composed last, those of its tuned file too; empty where composing failed
        before they were known."""
        return self._choices

    def user_file(self, config_path: str) -> Path | None:
        """The user's own file of a choice, such as `experiment/mine`; None where it is one of ours, or none."""
        files = (folder / f"{config_path}.yaml" for folder in self.user_folders())
        return next((file for file in files if file.is_file()), None)

    def user_folders(self) -> list[Path]:
        """The folders of the user's own configs, the strongest first."""
        return [Path(source.path) for source in self.get_sources() if source.provider in USER_ORIGINS]

    def place(self, key: str, overrides: Sequence[str]) -> str:
        """`FILE:LINE: ` where a file of the user's sets a key that `overrides` leave alone; else nothing."""
        typed = any(line.lstrip("+").partition("=")[0] == key for line in overrides)
        return f"{self._places[key]}: " if key in self._places and not typed else ""

    def _with_place(self, error: RequestError, overrides: Sequence[str]) -> RequestError:
        key = re.match(r"[\w.]*", str(error))
        place = self.place(key[0], overrides) if key else ""
        return RequestError(f"{place}{error}") if place else error

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        """Looking for the tuned file and composing read each file once. Composing may change what it read: once."""
        if self._shared_repo is not None:
            repo, self._shared_repo = self._shared_repo, None
            return OverridesParser.create().parse_overrides(overrides=overrides), repo
        parsed, repo = super()._parse_overrides_and_create_caching_repo(config_name, overrides)
        return parsed, repo

    def _tuned_override(self, config_name: str | None, overrides: list[str]) -> list[str]:
        parsed, repo = self._parse_overrides_and_create_caching_repo(config_name, overrides)
        defaults = create_defaults_list(repo, config_name, parsed, prepend_hydra=True, skip_missing=False)
        self._shared_repo = repo
        choices = _choices_of(defaults.defaults)
        if choices.get("tuned") != "auto" or "algo" not in choices or "env" not in choices:
            return []
        algo, env = choices["algo"], choices["env"]
        names = [tuned_name(algo, env), *([tuned_name(algo, family)] if (family := family_of(env)) else [])]
        return [f"tuned={name}" for name in names if repo.config_exists(f"tuned/{name}")][:1]

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: Any) -> DictConfig:
        self._choices = _choices_of(defaults)
        self._places = {}
        return super()._compose_config_from_defaults_list(defaults, repo)

    def _load_single_config(self, default: ResultDefault, repo: Any) -> ConfigResult:
        result = super()._load_single_config(default, repo)
        path = default.config_path or ""
        file = self.user_file(path) if result.provider in USER_ORIGINS else None
        picks = _picks_of(result)
        if file is not None:
            package = default.package or ""
            self._places |= check_user_file(file, path, package, {**self._choices, **picks})
        if path.startswith(_LAYERS) and isinstance(result.config, DictConfig):
            _keep_own_sections(
                path, result.config, picks, self._choices, str(shown_path(file or Path(f"conf/{path}.yaml")))
            )
            if path.startswith("tuned/") and self._no_goal:
                with open_dict(result.config):
                    result.config.pop("stop_at_return", None)
        return result


def takes_the_goal(override: str) -> bool:
    """Whether the return at which a tuned file ends a run means nothing under an override: it makes another task of the
    environment, or turns off the evaluations that would see that return."""
    bare = override.lstrip("+~")
    return key_of(bare).startswith(_TASK) or bare.replace(" ", "") == "eval.period=null"


def opened(overrides: Sequence[str]) -> list[str]:
    """The overrides, those of keys that no file need know as additions."""
    return [f"++{line}" if line.startswith(_OPEN) else line for line in overrides]


def of_the_task(overrides: Sequence[str]) -> list[str]:
    """The overrides that are not Hydra's own."""
    return [line for line in overrides if not line.lstrip("+~").startswith("hydra")]


def _choices_of(defaults: list[ResultDefault]) -> dict[str, str]:
    """The choice in force of each top-level group; override_key does not tell it for a file with its own defaults."""
    paths = [default.config_path.partition("/") for default in defaults if default.config_path is not None]
    return {group: name for group, slash, name in paths if slash and group != "hydra"}


def _picks_of(result: ConfigResult) -> dict[str, str]:
    """Group -> the choice that a file itself makes in its defaults."""
    entries = [entry for entry in result.defaults_list or [] if isinstance(entry, GroupDefault)]
    return {str(entry.group).lstrip("/"): str(entry.value) for entry in entries}


def _keep_own_sections(
    path: str, config: DictConfig, picks: dict[str, str], choices: Mapping[str, str], file: str
) -> None:
    """Drops from a file what it says about choices that are not in force."""
    group, _, name = path.partition("/")
    if group == "tuned":
        if name not in ("auto", "none") and not name.startswith(f"{choices['algo']}_"):
            raise RequestError(f"tuned={name}: is not for algo={choices['algo']}; tuned=none turns tuned files off")
        picks = {"algo": choices["algo"], "env": choices["env"], **picks}
    _keep_own_replay(config, picks, choices)
    for section in list(config):
        if section == group or section not in ("algo", "env", "network", "target_update", "exploration", "device"):
            continue
        if section not in picks:
            value = config[section] if isinstance(config[section], str) else "..."
            raise RequestError(
                f"{file}: has a section {section}: but does not say for which choice;"
                f" add `override /{section}: {value}` to its defaults"
            )
        if picks[section] == (chosen := choices.get(section)):
            continue
        with open_dict(config):
            if section == "env" and chosen is not None and _alike(picks[section], chosen):
                config[section].pop("id", None)
            else:
                del config[section]


def _keep_own_replay(config: DictConfig, picks: Mapping[str, str], choices: Mapping[str, str]) -> None:
    """The same for `replay`, which has no section of its own: its choices set `algo.prioritized`, or make it null."""
    algo = config.get("algo")
    if not isinstance(algo, DictConfig) or "prioritized" not in algo:
        return
    own = picks.get("replay", "uniform" if algo["prioritized"] is None else "prioritized")
    if own != choices.get("replay", own):
        with open_dict(config):
            del algo["prioritized"]


def _alike(env: str, other: str) -> bool:
    """Whether two environments share a namespace, as the games of Atari do: what a file says of one is for all."""
    return bool(namespace_of(env)) and namespace_of(env) == namespace_of(other)


def _check_replay(choice: str | None, algo: Any) -> None:
    """The group `replay` writes into `algo`: refused where the algorithm does not have its key.

    Raises:
        RequestError: with the choice as it was made.
    """
    cls = ALGO_CONFIGS.get(algo.get("name"))
    if choice is None or cls is None:
        return
    if "prioritized" not in {field.name for field in dataclasses.fields(cls)}:
        raise RequestError(f"replay={choice}: {algo['name']} has no replay")


def validated_job(app: dict[str, Any], replay: str | None) -> RunConfig:
    """The config of a composed job.

    Args:
        app: it as plain data without Hydra's part; interpolations are not resolved.
        replay: the choice of that group.

    Raises:
        RequestError: it is not valid.
    """
    resolved = app if _is_literal(app) else _resolved(app)
    _check_replay(replay, resolved["algo"])
    return validate(resolved)


def write_validated(cfg: DictConfig) -> None:
    """Puts the validated values back (1e5 given for an integer is 100000 from here on)."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    app = {str(key): value for key, value in plain.items() if key != "hydra"}
    validated = to_plain(validated_job(app, cfg.hydra.runtime.choices.get("replay")))
    with open_dict(cfg):
        for key, value in app.items():
            if repr(value) != repr(validated[key]):  # making nodes takes longer than all else here
                cfg[key] = validated[key]


def _is_literal(value: Any) -> bool:
    """Whether nothing in plain data is an interpolation, or marked as missing."""
    if isinstance(value, dict):
        return all(map(_is_literal, value.values()))
    if isinstance(value, list):
        return all(map(_is_literal, value))
    return not isinstance(value, str) or ("${" not in value and value != "???")


def _resolved(app: dict[str, Any]) -> dict[str, Any]:
    resolved: Any = OmegaConf.to_container(OmegaConf.create(app), resolve=True, throw_on_missing=True)
    return {str(key): value for key, value in resolved.items()}
