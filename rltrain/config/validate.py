"""Plain nested data -> typed, range-checked `RunConfig`. Torch-free and Hydra-free."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from rltrain.config import schema
from rltrain.config.contradictions import check_contradictions
from rltrain.config.plain import plain_value, read_value, show
from rltrain.config.spelling import list_meant, scalar_meant, section_meant, suggestion
from rltrain.config.wrappers import INSTEAD, WRAPPER_CONFIGS, arguments_of
from rltrain.errors import RequestError

_ANY_NUMBER = schema.Range()
_LONGEST_TEXT = 1000  # that is read as a number or a list


def validate(plain: Mapping[str, Any]) -> schema.RunConfig:
    """The typed config of `plain`, which holds every key of the schema.

    Whole floats count as integers where an integer is asked (1e5 is 100000). A group that an algorithm has no use for
    may be absent.

    Raises:
        RequestError: an unknown or missing key, a wrong type, a number out of range, keys that contradict each other.
    """
    config: schema.RunConfig = build_section(schema.RunConfig, plain, "")
    check_contradictions(config)
    return config


def build_section(cls: type, values: Any, path: str) -> Any:
    """The typed section `path`, of a config or by itself; keys that contradict each other are not looked for.

    Raises:
        RequestError: as `validate`.
    """
    if not isinstance(values, Mapping):
        meant = section_meant(path, values, _keys(cls))
        raise RequestError(f"{path}={show(values)}: must be a mapping of keys ({', '.join(_keys(cls))}){meant}")
    prefix = f"{path}." if path else ""
    for key in values:
        if key not in _keys(cls):
            where = f" of {path}={values['name']}" if path and isinstance(values.get("name"), str) else ""
            raise RequestError(
                f"{prefix}{key}: unknown key{where}{suggestion(str(key), _keys(cls))}\nknown: {', '.join(_keys(cls))}"
            )
    hints = schema.hints_of(cls)
    built = {}
    for field in dataclasses.fields(cls):
        key = prefix + field.name
        hint, limits = hints[field.name], _ANY_NUMBER
        if get_origin(hint) is Annotated:
            hint, *marks = get_args(hint)
            limits = next((mark for mark in marks if isinstance(mark, schema.Range)), limits)
        if field.name not in values and not _optional(hint):
            raise RequestError(f"{key}: missing")
        built[field.name] = _convert(hint, values.get(field.name), key, limits)
    return cls(**built)


@functools.cache
def _keys(cls: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


def keys_of(plain: Mapping[str, Any], path: Sequence[str]) -> list[str]:
    """The keys that the section at `path` of the config `plain` may have; none where that is no section."""
    cls: Any = schema.RunConfig
    node: Any = plain
    for depth, part in enumerate(path, start=1):
        node = node.get(part) if isinstance(node, Mapping) else None
        group = schema.GROUP_CONFIGS.get(".".join(path[:depth]))
        if group is not None:
            name = node.get("name") if isinstance(node, Mapping) else None
            cls = group.get(name) if isinstance(name, str) else None
        elif dataclasses.is_dataclass(cls):
            cls = get_type_hints(cls).get(part)
    known = dataclasses.is_dataclass(cls)
    return list(_keys(cls)) if known else []


def _optional(hint: Any) -> bool:
    return type(None) in get_args(hint)


def _convert(hint: Any, value: Any, key: str, limits: schema.Range) -> Any:
    if isinstance(value, str) and get_origin(hint) is not Literal and str not in (hint, *get_args(hint)):
        value = _decoded(value)
    if key in schema.GROUP_CONFIGS:
        if value is None and _optional(hint):
            return None
        return build_section(_group_class(key, value), value, key)
    if key == "env.wrappers":
        return _wrappers(value, key)
    if dataclasses.is_dataclass(hint):
        return build_section(hint, value, key)  # type: ignore[arg-type]
    if get_origin(hint) in (Union, types.UnionType):
        return _convert_union(hint, value, key, limits)
    if get_origin(hint) is Literal:
        if value in get_args(hint) and isinstance(value, str):
            return value
        allowed = [str(choice) for choice in get_args(hint)]
        raise RequestError(f"{key}={show(value)}: must be {_alternatives(allowed)}{suggestion(str(value), allowed)}")
    if get_origin(hint) is tuple:
        return _convert_list(hint, value, key, limits)
    if get_origin(hint) is dict:
        if isinstance(value, Mapping):
            _check_finite(value, key)
            return {str(name): plain_value(item) for name, item in value.items()}
        raise RequestError(f"{key}={show(value)}: must be a mapping, such as {{x: 1}}")
    return _convert_scalar(hint, value, key, limits)


@functools.lru_cache(maxsize=1024)
def _decoded(text: str) -> Any:
    """The number, the list, true, false or null that stands in a text: the value of ${oc.env:NAME} is one always."""
    try:
        value = read_value(text) if len(text) <= _LONGEST_TEXT else text
    except (yaml.YAMLError, RecursionError):
        return text
    no_word_of_ours = isinstance(value, bool) and text.lower() not in ("true", "false")  # YAML's yes, no, on, off
    return text if isinstance(value, dict) or no_word_of_ours else value


def _wrappers(value: Any, key: str) -> tuple[Any, ...]:
    """A list of names, or of mappings of a name and arguments; arguments that are not given have their defaults."""
    if not isinstance(value, (list, tuple)):
        such = f"such as [time_aware] or [{{name: frame_stack}}]{list_meant(key, value, str)}"
        raise RequestError(f"{key}={show(value)}: must be a list, {such}")
    _check_length(value, key)
    return tuple(_wrapper(entry, f"{key}[{i}]") for i, entry in enumerate(value))


def _check_length(value: Sequence[Any], key: str) -> None:
    if len(value) > schema.MOST_ENTRIES:
        raise RequestError(f"{key}: lists {len(value):,} entries; at most {schema.MOST_ENTRIES} are taken")


def _wrapper(entry: Any, key: str) -> Any:
    entry = {"name": entry} if isinstance(entry, str) else entry
    name = entry.get("name") if isinstance(entry, Mapping) else None
    if not isinstance(name, str):
        raise RequestError(f"{key}={show(entry)}: must be a wrapper's name, or {{name: ..., argument: value}}")
    if name in INSTEAD:
        raise RequestError(f"{key}={name}: there is no such wrapper; {INSTEAD[name]}")
    if name not in WRAPPER_CONFIGS:
        known = ", ".join(WRAPPER_CONFIGS)
        raise RequestError(f"{key}={name}: no such wrapper{suggestion(name, WRAPPER_CONFIGS)}\nknown: {known}")
    cls = WRAPPER_CONFIGS[name]
    return build_section(cls, {**arguments_of(cls), **entry}, key)


def _group_class(group: str, value: Any) -> type:
    classes = schema.GROUP_CONFIGS[group]
    name = value.get("name") if isinstance(value, Mapping) else None
    if not isinstance(name, str) or name not in classes:
        raise RequestError(unregistered(group, name))
    return classes[name]


def unregistered(group: str, name: object) -> str:
    """The error text for a `name` in a section such as `algo` that stands for no class of keys."""
    classes = schema.GROUP_CONFIGS[group]
    return (
        f"{group}.name={show(name)}: is not registered; if a plug-in adds it, RLTRAIN_PLUGINS must name its module\n"
        f"registered: {', '.join(classes)}{suggestion(str(name), classes)}"
    )


def _check_finite(value: Any, key: str) -> None:
    """Refuses numbers within an argument of an environment that JSON, and so a checkpoint, cannot hold."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            _check_finite(item, f"{key}.{name}")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _check_finite(item, f"{key}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise RequestError(f"{key}={show(value)}: must be finite")


def _convert_union(hint: Any, value: Any, key: str, limits: schema.Range) -> Any:
    if value is None and _optional(hint):
        return None
    words = [str(word) for part in get_args(hint) if get_origin(part) is Literal for word in get_args(part)]
    if isinstance(value, str) and value in words:
        return value
    words += ["null"] if _optional(hint) else []
    scalars = [part for part in get_args(hint) if part is not type(None) and get_origin(part) is not Literal]
    if not scalars:
        raise RequestError(f"{key}={show(value)}: must be {_alternatives(words)}{suggestion(str(value), words)}")
    (scalar,) = scalars
    if dataclasses.is_dataclass(scalar):
        return build_section(scalar, value, key)  # type: ignore[arg-type]
    if get_origin(scalar) is tuple:
        return _convert_list(scalar, value, key, limits, words)
    return _convert_scalar(scalar, value, key, limits, words)


def _convert_list(hint: Any, value: Any, key: str, limits: schema.Range, words: Iterable[str] = ()) -> Any:
    if isinstance(value, (list, tuple)):
        _check_length(value, key)
        return tuple(_convert(get_args(hint)[0], item, f"{key}[{i}]", limits) for i, item in enumerate(value))
    of = get_args(hint)[0]
    example = "words, such as [a,b]" if of is str else "integers, such as [128,128]"
    rule = _alternatives([f"a list of {example}", *words])
    raise RequestError(f"{key}={show(value)}: must be {rule}{list_meant(key, value, of)}")


def _convert_scalar(hint: type, value: Any, key: str, limits: schema.Range, words: Sequence[str] = ()) -> Any:
    accepted = value
    if hint is int and isinstance(value, float) and value.is_integer():
        accepted = int(value)
    if hint is float and type(value) is int:
        accepted = float(value)
    if hint is str and type(value) in (int, float):
        accepted = str(value)
    if type(accepted) is not hint:
        names = {int: "an integer", float: "a number", bool: "true or false", str: "a word"}
        rule = _alternatives([f"{names[hint]} {limits}".strip(), *words])
        raise RequestError(f"{key}={show(value)}: must be {rule}{scalar_meant(hint, key, value, 'null' in words)}")
    if type(accepted) is int and accepted > schema.LARGEST:
        raise RequestError(f"{key}={show(value)}: must be below 2^63")
    if type(accepted) is float and schema.LARGEST_FLOAT < abs(accepted) < math.inf:
        raise RequestError(f"{key}={show(value)}: must lie within +-{schema.LARGEST_FLOAT:g}, as float32 does")
    if isinstance(accepted, (int, float)) and accepted not in limits:
        rules = [] if math.isfinite(accepted) else ["finite"]
        rule = " and ".join([*rules, *filter(None, [str(limits)])])
        raise RequestError(f"{key}={show(value)}: must be {rule}{scalar_meant(hint, key, value, 'null' in words)}")
    return accepted


def _alternatives(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
