"""`rltrain list WHAT [PART]`: what can be chosen, one line each."""

from __future__ import annotations

from typing import Any

from rltrain.config.folders import description, group_files, import_plugins
from rltrain.config.plain import show
from rltrain.config.spelling import closest, suggestion
from rltrain.config.wrappers import WRAPPER_CONFIGS, arguments_of
from rltrain.errors import RequestError
from rltrain.terminal.output import errors, say

LISTS = {
    "algos": "algo",
    "envs": "env",
    "networks": "network",
    "target_updates": "target_update",
    "explorations": "exploration",
    "replays": "replay",
    "wrappers": "wrapper",
    "devices": "device",
    "experiments": "experiment",
    "tuned": "tuned",
    "searches": "search",
}
_NOUNS = {
    "algo": "algorithm",
    "env": "environment",
    "target_update": "target update",
    "tuned": "tuned file",
    "search": "search space",
}


_ATARI = "atari ale_py"


def main(args: list[str]) -> int:
    """Prints the choices of one group, those whose line contains PART."""
    if len(args) > 2:
        raise RequestError(f"list {' '.join(args)}: {args[2]} is too many; a list takes one part of what is looked for")
    if not args:
        raise RequestError(f"list: say what: rltrain list {'|'.join(LISTS)} [PART]")
    if options := [arg for arg in args if arg.startswith("-")]:
        raise RequestError(f"{options[0]}: unknown option; see rltrain list --help")
    what, part = args[0], args[1].lower() if len(args) == 2 else ""
    group = LISTS.get(what) or (what if what in LISTS.values() else None)
    if group is None:
        nouns = {noun: name for name, group in LISTS.items() if (noun := _NOUNS.get(group))}
        matches = closest(what.removesuffix("s"), nouns)
        guess = f"; did you mean {nouns[matches[0]]}?" if matches else suggestion(what, LISTS)
        raise RequestError(f"list {what}: no such list{guess}\nlists: {', '.join(LISTS)}")
    import_plugins()
    rows = _wrappers() if group == "wrapper" else {n: description(path) for n, path in group_files(group).items()}
    if group == "tuned":
        rows = {name: text for name, text in rows.items() if name not in ("auto", "none")}
    rows = {name: text for name, text in rows.items() if part in f"{name}  {text}".lower()}
    if group == "env":
        rows = {**_registered(part), **rows}
    rows = dict(sorted(rows.items()))
    if not rows:
        noun = _NOUNS.get(group, group.replace("_", " "))
        print(f"no {noun} matches {args[1]}" if part else f"no {noun}", file=errors())
    width = min(max(map(len, rows), default=0), 40)
    for name, text in rows.items():
        say(f"{name:<{width}}  {text}".rstrip())
    return 0


def _wrappers() -> dict[str, str]:
    rows = {}
    for name, cls in WRAPPER_CONFIGS.items():
        arguments = ", ".join(f"{key}: {show(value)}" for key, value in arguments_of(cls).items())
        text = " ".join((cls.__doc__ or "").split()).rstrip(".")
        rows[name] = f"{text} ({arguments})" if arguments else text
    return rows


def _registered(part: str) -> dict[str, str]:
    """The ids of Gymnasium that contain `part`, or whose package's name does: mujoco, box2d, toy_text. Of Atari games
    the older ids, four of each, only where `part` is in them."""
    from rltrain.config.env_families import is_older_atari
    from rltrain.config.env_source import env_specs, lacking, left_out

    if fault := left_out():
        print(f"the Atari games are left out: {fault}", file=errors())
    older = bool(part) and part not in _ATARI
    specs = [spec for spec in env_specs() if part in _names(spec) and (older or not is_older_atari(spec.id))]
    return {spec.id: _told(spec, lacking(spec)) for spec in specs}


def _names(spec: Any) -> str:
    module = str(spec.entry_point).partition(":")[0]
    return f"{spec.id} {_ATARI if module.startswith('ale_py') else module}".lower()


def _told(spec: Any, package: str) -> str:
    frames = spec.kwargs.get("max_num_frames_per_episode")
    limit = f"{spec.max_episode_steps:,} steps" if spec.max_episode_steps else "no time limit"
    limit = f"{frames:,} frames" if frames and not spec.max_episode_steps else limit
    solved = f", solved at {spec.reward_threshold:g}" if spec.reward_threshold is not None else ""
    return limit + solved + (f" (needs {package})" if package else "")
