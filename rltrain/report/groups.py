"""Settings of a report: groups of runs that differ in their seeds alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rltrain.config.plain import show
from rltrain.config.schema import GROUP_CONFIGS
from rltrain.report.runs import Run

ENV, FOLDER, BEFORE = "env.id", "folder", "total_steps.before"
_TUNED_BY = (ENV, "algo.name")
_NO_SETTING = (
    "seed", "name", "dry_run", "log_period", "loggers", "checkpoint.", "video.", "eval.num_envs", "env.step_timeout",
    "device.index",
)  # fmt: skip
"""Keys, or the sections before a dot, in which replicates may differ."""
_VAGUE = ("before", "start", "end", "steps", "period", "unit", "decay", "size", "kwargs")


@dataclass(frozen=True)
class Setting:
    """Runs of one environment that differ in their seeds alone.

    Attributes:
        values: the keys that set it apart -> its values, but for the environment's id.
        texts: the same values as they are shown.
        runs: one of each seed; of two of the same seed the first that is completed, or else the first.
        repeated: the other runs of these seeds.
    """

    env: str
    values: Mapping[str, Any]
    texts: Mapping[str, str]
    runs: tuple[Run, ...]
    repeated: tuple[Run, ...]

    @property
    def variant(self) -> str:
        """Its values in one line, the same in every environment, without keys that its runs do not have."""
        names, known = short_names(self.texts), self.runs[0].config
        has = {key for key, value in self.values.items() if value is not None or key in known or key == BEFORE}
        return " ".join(f"{names[key]}={text}" for key, text in self.texts.items() if key in has) or "all runs"


@dataclass(frozen=True)
class Groups:
    """The settings of a report, and in what they differ.

    Attributes:
        keys: in whose values they are told apart, the environment's id first.
        implied: keys whose values differ too, and follow from those of `keys`.
        left_out: runs whose config cannot be read.
        parted: runs that are apart from the other seeds of their setting because `resume` has changed them alone.
    """

    settings: tuple[Setting, ...]
    keys: tuple[str, ...]
    implied: tuple[str, ...]
    left_out: tuple[Run, ...]
    parted: tuple[Run, ...]


def group_runs(runs: Sequence[Run], origins: Sequence[str]) -> Groups:
    """Settings in the order of their first runs.

    Runs of equal configs and seeds that lie in different folders that were asked for are compared by folder, and those
    of which `resume` has changed `total_steps` by what these were before.

    Args:
        origins: how those folders are called.
    """
    known = [run for run in runs if run.config]
    configs: Sequence[Mapping[str, Any]]
    configs = [
        {key: value for key, value in run.config.items() if value is not None and not is_no_setting(key)}
        for run in known  # a key that came later is null in an older run
    ]
    configs = _as_used(known, configs)
    if _compares_folders(known, configs):
        configs = [{**config, FOLDER: origins[run.origin]} for run, config in zip(known, configs, strict=True)]
    parted = tuple(_parted(known, configs))
    configs = _with_history(known, configs)
    differing = _differing(configs)
    keys = _telling(differing, configs, [key for run in known for key in _keys(run.typed)])
    found: dict[str, list[Run]] = {}
    for run, config in zip(known, configs, strict=True):
        found.setdefault(_text([config.get(key) for key in differing]), []).append(run)
    holders = {_text([config.get(key) for key in differing]): config for config in configs}
    values = {key: [holders[text].get(key) for text in found] for key in keys}
    texts = {key: shown(column) for key, column in values.items()}
    settings = [
        _setting(members, {key: values[key][place] for key in keys}, {key: texts[key][place] for key in keys})
        for place, members in enumerate(found.values())
    ]
    return Groups(
        tuple(settings), tuple(keys), tuple(key for key in differing if key not in keys),
        tuple(run for run in runs if not run.config), parted,
    )  # fmt: skip


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Key -> the least of its last parts that no other has and that say enough: `algo.optimizer.lr` is lr,
    `exploration.steps` stays, `algo.name` is algo."""
    full = {key: key.removesuffix(".name").removesuffix(".id") for key in keys}
    short = {}
    for key, name in full.items():
        parts = name.split(".")
        vague = len(parts) > 1 and parts[-1] in _VAGUE
        tails = (".".join(parts[start:]) for start in range(len(parts) - (2 if vague else 1), -1, -1))
        taken = [other for other in full.values() if other != name]
        short[key] = next(t for t in tails if t == name or not any(o == t or o.endswith(f".{t}") for o in taken))
    return short


def as_text(texts: Mapping[str, str]) -> str:
    """`lr=0.001 gamma=0.99`."""
    names = short_names(texts)
    return " ".join(f"{names[key]}={text}" for key, text in texts.items())


def shown(values: Sequence[Any]) -> list[str]:
    """The values of a key as the user would type them, without blanks; numbers of a random search with the digits that
    tell them apart."""
    texts = [show(_text(value) if isinstance(value, list) else value) for value in values]
    different = len(set(texts))
    for digits in range(3, 17):
        short = [f"{v:.{digits}g}" if isinstance(v, float) else text for v, text in zip(values, texts, strict=True)]
        if len(set(short)) == different:
            return [few if len(few) < len(text) and ("e" in text or "e" not in few) else text
                    for text, few in zip(texts, short, strict=True)]  # fmt: skip
    return texts


def _setting(members: Sequence[Run], values: Mapping[str, Any], texts: Mapping[str, str]) -> Setting:
    by_seed: dict[int | None, Run] = {}
    for run in sorted(members, key=lambda run: run.result is None):  # stable
        by_seed.setdefault(run.seed, run)
    runs = sorted(by_seed.values(), key=lambda run: (run.seed is None, run.seed or 0))
    kept = {run.folder for run in runs}
    return Setting(
        members[0].env,
        {key: value for key, value in values.items() if key != ENV},
        {key: text for key, text in texts.items() if key != ENV},
        tuple(runs),
        tuple(run for run in members if run.folder not in kept),
    )


def _as_used(runs: Sequence[Run], configs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The configs with what was used, for the keys in which they differ: without a GPU device=auto and device=cpu are
    one. Runs of one config stay together, whatever `auto` chose for each."""
    texts = [_text(config) for config in configs]
    differing = _differing(configs)
    values: dict[str, dict[str, set[str | int]]] = {text: {} for text in texts}
    for run, text in zip(runs, texts, strict=True):
        for key in run.used.keys() & set(differing):
            values[text].setdefault(key, set()).add(run.used[key])
    one = {text: {key: used.pop() for key, used in found.items() if len(used) == 1} for text, found in values.items()}
    return [{**config, **one[text]} for config, text in zip(configs, texts, strict=True)]


def _compares_folders(runs: Sequence[Run], configs: Sequence[Mapping[str, Any]]) -> bool:
    origins: dict[str, int] = {}
    texts = (_text([run.seed, config]) for run, config in zip(runs, configs, strict=True))
    return any(origins.setdefault(text, run.origin) != run.origin for run, text in zip(runs, texts, strict=True))


def _with_history(runs: Sequence[Run], configs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The configs with `BEFORE` where one seed of a setting has runs of several histories."""
    texts = [_text(config) for config in configs]
    histories: dict[tuple[str, int | None], set[str]] = {}
    for run, text in zip(runs, texts, strict=True):
        histories.setdefault((text, run.seed), set()).add(_text(run.totals))
    mixed = {text for (text, _), found in histories.items() if len(found) > 1}
    return [
        {**config, BEFORE: ",".join(map(str, run.totals))} if text in mixed and run.totals else config
        for run, config, text in zip(runs, configs, texts, strict=True)
    ]


def _parted(runs: Sequence[Run], configs: Sequence[Mapping[str, Any]]) -> Iterator[Run]:
    """The runs whose config was that of others until `resume` changed it."""
    texts = set(map(_text, configs))
    for run, config in zip(runs, configs, strict=True):
        before = {key: value for key, value in run.before.items() if not is_no_setting(key)}
        earlier = {key: value for key, value in {**config, **before}.items() if value is not None}
        if earlier != config and _text(earlier) in texts:
            yield run


def _differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys whose values are not all the same, in the order of the configs."""
    values: dict[str, set[str]] = {}
    holders: dict[str, int] = {}
    for config in configs:
        for key, value in config.items():
            values.setdefault(key, set()).add(_text(value))
            holders[key] = holders.get(key, 0) + 1
    return [key for key, found in values.items() if len(found) > 1 or holders[key] < len(configs)]


def _telling(differing: Sequence[str], configs: Sequence[Mapping[str, Any]], typed: Iterable[str]) -> list[str]:
    """The keys that tell the settings apart: all that was typed, and of the others, choices of groups first, those that
    do not follow from one of these, or, in several environments, from one together with the environment and the
    algorithm, by which tuned files differ. These two lead: a long name is cut at its end."""
    texts = {key: [_text(config.get(key)) for config in configs] for key in differing}
    keys = [key for key in dict.fromkeys([ENV, *typed, FOLDER]) if key in texts]
    for key in dict.fromkeys([*(f"{group}.name" for group in GROUP_CONFIGS), *differing]):
        tuned_by = [texts[other] for other in _TUNED_BY if ENV in keys and other in keys]
        if key in texts and not any(_follows(texts[key], [*tuned_by, texts[other]]) for other in keys):
            keys.append(key)
    return sorted(keys, key=lambda key: key not in _TUNED_BY)


def _follows(values: Sequence[str], others: Sequence[Sequence[str]]) -> bool:
    """Whether the values of `others`, together, come with one of `values` alone."""
    return len(set(zip(values, *others, strict=True))) == len(set(zip(*others, strict=True)))


def _keys(overrides: Iterable[str]) -> Iterable[str]:
    """The keys that overrides are about: a group's choice is its name, or the environment's id."""
    for override in (word for words in overrides for word in words.split()):  # a study's are several in one
        key = override.lstrip("+~").partition("=")[0]
        yield f"{key}.id" if key == "env" else f"{key}.name" if key in (*GROUP_CONFIGS, "device") else key


def is_no_setting(key: str) -> bool:
    """Whether replicates may differ in the key."""
    return any(key == entry or (entry[-1] == "." and key.startswith(entry)) for entry in _NO_SETTING)


def _text(value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    except TypeError:  # keys that are no text, in a config that is none of ours
        return repr(value)
