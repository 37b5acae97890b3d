"""The command that was meant by one in another tool's form, or that the shell has split: `--algo dqn`,
`dqn CartPole-v1`, `network.hidden=[64, 64]`. Hydra-free."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from rltrain.config import schema
from rltrain.config.command_names import COMMANDS
from rltrain.config.env_source import env_ids, is_env_id
from rltrain.config.folders import group_files
from rltrain.config.keys import is_flag, same_name
from rltrain.config.spelling import closest

_VERBS = ("train", "run", "learn", "fit")
_SHORT = {"a": "algo", "e": "env", "s": "seed", "n": "total_steps", "d": "device"}
_GROUPS = {"algorithm": "algo", "agent": "algo", "environment": "env", "env_id": "env", "gym_id": "env"}
_SWEEPS = ("sweep", "multirun")
_EXAMPLES = {"algo": "dqn", "env": "CartPole-v1", "device": "cpu", "seed": "0"}


def intended(args: Sequence[str], options: Mapping[str, int]) -> list[str] | None:
    """The arguments of `rltrain` as they would be written; `args` themselves where nothing is amiss.

    Args:
        options: those that `rltrain` has -> how many words each takes after it.

    Returns:
        None where it cannot be told.
    """
    words = _joined(list(args))
    if words and words[0].startswith("-") and words[0].lstrip("-") in COMMANDS:
        return [words[0].lstrip("-"), *words[1:]]
    if words and words[0] in _VERBS:
        words = words[1:]
    if words and words[0] in _SWEEPS:
        words = words[1:] if {"-m", "--multirun"} & {*words} else ["-m", *words[1:]]
    line: list[str] = []
    while words:
        word = words.pop(0)
        option = word.partition("=")[0]
        if option in options:
            line += [word, *(words.pop(0) for _ in range(options[option] if word == option else 0) if words)]
            continue
        settings = _settings(word, words)
        if settings is None:
            return None
        line.append(settings)
    several = any(_lists_values(word) for word in line)
    return ["-m", *line] if several and line != list(args) and not {"-m", "--multirun"} & {*line} else line


def not_understood(args: Sequence[str], options: Mapping[str, int]) -> str | None:
    """The option that makes `intended` give up: the first that means nothing, alone or with the word after it."""
    unknown = {
        at: arg
        for at, arg in enumerate(args)
        if arg.startswith("-") and not _is_value(arg) and arg.partition("=")[0] not in options
    }
    for at, arg in unknown.items():
        if intended(args[at : at + 1], options) is None and intended(args[at : at + 2], options) is None:
            return arg
    return next(iter(unknown.values()), None)


def _settings(word: str, rest: list[str]) -> str | None:
    """`word` as key=value, with a value taken from `rest` where it has none; None where it cannot be told."""
    if word.startswith("~") or ("=" in word and not word.startswith("-")):
        return word
    flag = word.startswith("-")
    group, colon, chosen = word.partition(":")
    if colon and chosen and key_meant(group) == group:
        return f"{group}={chosen}"
    name, equals, value = word.lstrip("-").partition("=")
    key = key_meant(name)
    if not flag and (key is None or not rest or not _is_value(rest[0])):
        return f"{key}={_without_value(key)}" if key == name and _without_value(key) else _choice(word)
    if key is None:
        return None
    if not equals:
        value = rest.pop(0) if rest and _is_value(rest[0]) else _without_value(key)
    return f"{key}={value}" if value else None


def _without_value(key: str) -> str:
    return "true" if is_flag(key) else _EXAMPLES.get(key, "")


def key_meant(name: str) -> str | None:
    """The key, or the group, that a name means; None where it cannot be told."""
    name = name.replace("-", "_")
    name = _SHORT.get(name, _GROUPS.get(name, name))
    if name in (*schema.GROUP_CONFIGS, "env", "device", "experiment", "tuned"):
        return name
    matches = same_name(name, {"algo": "dqn"}) or same_name(name, {})
    exact = [match for match in matches if match == name]
    return (exact or matches)[0] if exact or len(matches) == 1 else None


def _choice(word: str) -> str | None:
    """`dqn` is algo=dqn, and `CartPole` env=CartPole-v1."""
    if is_env_id(word):
        return f"env={word}"
    if word[:1] == "." or "/" in word[:1]:
        return None  # a path
    choices = {group: list(group_files(group)) for group in ("algo", "experiment")}
    for cutoff in (1.0, 0.8):
        for group, names in choices.items():
            if match := closest(word, names, cutoff=cutoff):
                return f"{group}={match[0]}"
    if any(closest(word, [name], cutoff=0.7) for name in (*COMMANDS, *_VERBS)):
        return None  # a slip of a command
    unversioned = {env_id: re.sub(r"-v\d+$", "", env_id).lower() for env_id in env_ids()}
    same = [env_id for env_id, name in unversioned.items() if name == re.sub(r"-v\d+$", "", word).lower()]
    match = same[-1:] or closest(word, unversioned, cutoff=0.8)
    return f"env={match[0]}" if match else None


def _is_value(word: str) -> bool:
    return "=" not in word and (not word.startswith("-") or bool(re.fullmatch(r"-\.?\d.*", word)))


def _joined(words: list[str]) -> list[str]:
    """Puts together what blanks have parted: `seed=0,` `1`, `hidden=[64,` `64]`, `algo` `=` `dqn`."""
    return list(_joining(words))


def _joining(words: list[str]) -> Iterator[str]:
    while words:
        word, count = words[0], 1
        while count < len(words) and _goes_on(word, words[count]):
            blank = " " if word.endswith(":") else ""  # of a mapping: {name: frame_stack}
            word, count = f"{word}{blank}{words[count]}", count + 1
        if _is_open(word):  # to the end: a bracket was forgotten, and nothing was parted
            word, count = words[0], 1
        yield word
        del words[:count]


def _goes_on(word: str, follows: str) -> bool:
    if word.startswith("-"):
        return False
    if follows == "=" or (follows[:1] in ("=", ",") and len(follows) > 1):
        return True
    return "=" in word and (_is_open(word) or (word[-1] in "=," and _is_value(follows)))


def _is_open(word: str) -> bool:
    return any(word.count(left) > word.count(right) for left, right in ("[]", "{}", "()"))


def _lists_values(word: str) -> bool:
    """Whether a setting gives several values, a sweep: `seed=0,1`."""
    value = re.sub(r"'[^']*'|\"[^\"]*\"", "", word.partition("=")[2])
    while (bare := re.sub(r"\[[^\[\]]*\]|\{[^{}]*\}|\([^()]*\)", "", value)) != value:
        value = bare
    return "," in value
