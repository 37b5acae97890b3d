"""Requests of `rltrain tune`: a new study from `key=value`, checked whole before anything is made."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, Sweep
from hydra.errors import HydraException

from rltrain.config.application import compose
from rltrain.config.contradictions import check_typed
from rltrain.config.folders import conf_folder
from rltrain.config.info import ComposeInfo
from rltrain.config.intended import key_meant
from rltrain.config.override_text import key_of
from rltrain.config.plain import read_settings, to_plain
from rltrain.config.schema import GROUP_CONFIGS, RunConfig, TuneConfig
from rltrain.config.search_space import Dimension, parse_dimension, read_space, space_file
from rltrain.config.searched import fitted
from rltrain.config.spelling import closest
from rltrain.config.stored import as_settings, parse_value, validate_stored
from rltrain.config.validate import build_section
from rltrain.errors import RequestError
from rltrain.terminal.text import counted

_OWN = ("dir", *(field.name for field in fields(TuneConfig)))


@dataclass(frozen=True)
class Request:
    """The words of a command, sorted.

    Attributes:
        study: the folder of a study that is joined; None: a new one.
        tune: settings of the search that were given: name -> value.
    """

    study: Path | None
    overrides: list[str]
    tune: dict[str, Any]
    search: str | None
    config_dir: str | None
    folder: str | None
    trust: bool


@dataclass(frozen=True)
class Plan:
    """A study: what its trials have in common, what is searched, and how.

    Attributes:
        config: of a trial without its own values; its seed is the first.
        left: keys of the space file that are fixed and not searched.
    """

    config: RunConfig
    tune: TuneConfig
    space: list[Dimension]
    left: list[str]
    info: ComposeInfo = field(default_factory=ComposeInfo)

    def to_plain(self) -> dict[str, Any]:
        """The content of study.yaml."""
        return {
            "tune": to_plain(self.tune),
            "space": {dimension.key: dimension.to_plain() for dimension in self.space},
            "config": to_plain(self.config),
        }

    @property
    def seeds(self) -> range:
        """The seeds of each trial."""
        return range(self.tune.first_seed, self.tune.first_seed + self.tune.seeds)


def seeds_said(seeds: Collection[int], noun: str = "seed", remark: str = "") -> str:
    """How many seeds, and the first and the last of them."""
    first, last = min(seeds), max(seeds)
    return f"{counted(len(seeds), noun)} ({first if first == last else f'{first} to {last}'}{remark})"


def read_request(args: Sequence[str]) -> Request:
    """Sorts the words of `rltrain tune WORDS`.

    Raises:
        RequestError: one is of no known form.
    """
    words = as_settings(args, "tune", ["trust"], ["--config-dir", "-cd"], _key_meant)
    study, search, config_dir, folder, trust = None, None, None, None, False
    overrides, tune = list[str](), dict[str, Any]()
    while words:
        word = words.pop(0)
        key, equals, text = word.partition("=")
        if key in ("--config-dir", "-cd"):
            config_dir = text if equals else _next(words, word)
        elif word.startswith("-"):
            raise RequestError(f"{word}: unknown option; settings are written key=value\nsee rltrain tune --help")
        elif not equals or Path(word).is_dir():
            if study is not None:
                raise RequestError(f"{word}: one folder is enough, and {study} was given too")
            study = Path(word)
        elif key == "search":
            search = text
        elif key == "tune.dir":
            value = parse_value(text)  # takes the quotes of a text away
            folder = value if isinstance(value, str) else text
        elif key == "trust":
            trust = parse_value(text) is True
        elif key.startswith("tune.") and (name := key.removeprefix("tune.")) not in _OWN:
            guess = "".join(f"; did you mean tune.{match}?" for match in closest(name, _OWN))
            raise RequestError(f"{key}: unknown key{guess}\nknown: {', '.join(f'tune.{own}' for own in _OWN)}")
        elif key == "tune" or key.startswith("tune."):
            tune[key.removeprefix("tune.")] = parse_value(text)
        elif key in _OWN and key != "seed":
            raise RequestError(f"{key}: unknown key; did you mean tune.{key}?")
        else:
            overrides.append(word)
    return Request(study, overrides, tune, search, config_dir, folder, trust)


def _key_meant(name: str) -> str:
    """The key of a search, or of its runs, that a name without dashes means."""
    if name in _OWN:
        return f"tune.{name}"
    return name if name == "search" or name.startswith("tune.") else key_meant(name) or name


def plan(request: Request) -> Plan:
    """The study that is asked for.

    Raises:
        RequestError: a key, a value or a combination is wrong.
    """
    tune = tune_config(request.tune)
    typed, swept = _split(request.overrides)
    _refuse_keys(typed)
    require_optuna()
    config, info = compose(typed, request.config_dir)
    check_typed(config, typed)
    _refuse(config, tune)
    config = replace(config, seed=tune.first_seed)
    keys = [key_of(override) for override in typed]
    if swept and request.search is None:
        space, left = fitted(swept, config, keys)
    else:
        file = space_file(request.search or config.algo.name, request.config_dir)
        own = {dimension.key for dimension in swept}
        space, left = fitted([*(d for d in read_space(file) if d.key not in own), *swept], config, keys)
    return Plan(config, tune, space, left, info)


def stored_plan(plain: Mapping[str, Any]) -> Plan:
    """The study that study.yaml holds, which may be a stranger's.

    Raises:
        RequestError: it is no such file.
    """
    require_optuna()
    sections = [plain.get(name) for name in ("config", "space", "tune")]
    if not all(isinstance(section, dict) for section in sections):
        raise RequestError("study.yaml: needs the sections config, space and tune")
    stored, dimensions, settings = sections
    assert stored is not None and dimensions is not None and settings is not None
    config = validate_stored(stored)
    space, _ = fitted([parse_dimension(str(key), entry) for key, entry in dimensions.items()], config, [])
    if len(space) < len(dimensions):
        raise RequestError("study.yaml: its space does not fit its config")
    return Plan(config, tune_config(settings), space, [])


def tune_config(given: Mapping[str, Any]) -> TuneConfig:
    """The settings of a search, those that are not given by their defaults in conf/tune.yaml.

    Raises:
        RequestError: an unknown one, or a wrong value.
    """
    tune: TuneConfig = build_section(TuneConfig, {**read_settings(conf_folder() / "tune.yaml"), **given}, "tune")
    return tune


def require_optuna() -> None:
    """Refuses where the extra is not installed; does not import it, which takes a while.

    Raises:
        RequestError: names the extra.
    """
    if find_spec("optuna") is None:
        raise RequestError("tune: optuna is not installed; pip install 'rltrain[tune]' brings it")


def _refuse_keys(typed: Sequence[str]) -> None:
    for override in typed:
        key = key_of(override)
        if key == "seed":
            raise RequestError(f"{override}: a search has the seeds from tune.first_seed up")
        if key == "hydra" or key.startswith("hydra."):
            raise RequestError(f"{override}: has no meaning for a search; tune.dir=FOLDER says where it goes")


def _refuse(config: RunConfig, tune: TuneConfig) -> None:
    if config.dry_run:
        raise RequestError("dry_run=true: a search trains; without `tune` it tries what the search starts from")
    if config.init_from is not None:
        raise RequestError("init_from: a search is for settings that learn from nothing")
    if tune.pruner != "none" and config.eval.period is None:
        raise RequestError(f"tune.pruner={tune.pruner}: needs evaluations, which eval.period=null has not")


def _split(overrides: Sequence[str]) -> tuple[list[str], list[Dimension]]:
    """Overrides with one value, and dimensions of those with several: `algo.n_step=1,3`, `algo.gamma=interval(0,1)`."""
    typed, swept = [], []
    for line in overrides:
        try:
            override = OverridesParser.create().parse_override(line)
        except HydraException:
            override = None  # composing says what is wrong with it
        if override is None or not override.is_sweep_override():
            typed.append(line)
            continue
        key = str(override.key_or_group)
        if key in (*GROUP_CONFIGS, "env", "device", "tuned", "experiment", "replay"):
            raise RequestError(f"{line}: a search keeps one {key}; make a study of each")
        swept.append(parse_dimension(key, _values(override, line)))
    return typed, swept


def _values(override: Override, line: str) -> dict[str, Any]:
    sweep: Any = override.value()
    if isinstance(sweep, IntervalSweep):
        low, high = (int(end) if "int" in sweep.tags else end for end in (sweep.start or 0.0, sweep.end or 0.0))
        return {"low": low, "high": high, "log": "log" in sweep.tags}
    if isinstance(sweep, ChoiceSweep) and not any(isinstance(value, Sweep) for value in sweep.list):
        return {"choices": [parse_value(text) for text in override.sweep_string_iterator()]}
    raise RequestError(f"{line}: give choices (a,b), interval(low,high) or tag(log,interval(low,high))")


def _next(words: list[str], option: str) -> str:
    if not words:
        raise RequestError(f"{option}: needs a value")
    return words.pop(0)
