"""Overrides as a person types them."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from typing import cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, RangeSweep
from hydra.errors import HydraException


def as_typed(overrides: Sequence[str]) -> str:
    """The overrides of a sweep's job in one line, without the backslashes that Hydra's sweepers put in.

    `env=corridor\\:Corridor-v0` is shown as `env=corridor:Corridor-v0`. What needs its backslashes keeps them, and
    what the shell would split is quoted.
    """
    return " ".join(_as_typed(override) for override in overrides)


def in_yaml(override: str) -> str:
    """`algo.double=true`, where Hydra's sweepers write a swept value as Python does, `algo.double=True`."""
    key, _, value = override.partition("=")
    return f"{key}={value.lower()}" if value in ("True", "False") else override


def key_of(override: str) -> str:
    """The key or the group that an override is about."""
    return override.lstrip("+~").partition("=")[0]


def own_overrides(jobs: Sequence[Sequence[str]]) -> list[list[str]]:
    """Of the overrides of each job of a sweep those that not all jobs have, in their order."""
    common = set[str]().union(*jobs[:1]).intersection(*jobs)
    return [[override for override in job if override not in common] for job in jobs]


def number_of_jobs(overrides: Sequence[str]) -> int:
    """The product of how many values each override of a sweep has, as Hydra's own sweeper will multiply them; one of a
    form that it does not count counts as one value."""
    parser, count = OverridesParser.create(), 1
    for override in parser.parse_overrides(list(overrides)):
        if override.is_choice_sweep():
            count *= len(cast(ChoiceSweep, override.value()).list)
        elif override.is_range_sweep():
            found = cast(RangeSweep, override.value())
            span = (found.stop or 0.0) - (found.start or 0.0)
            count *= max(0, math.ceil(span / found.step))
    return count


def _as_typed(override: str) -> str:
    text = override
    if "\\" in override:
        plain = re.sub(r"\\(.)", r"\1", override)
        text = plain if _meaning(plain) == _meaning(override) else override
    return shlex.quote(text) if any(character.isspace() for character in text) else text


def _meaning(override: str) -> object:
    """The key and the one value that Hydra reads in an override; None where it reads no such thing."""
    try:
        parsed = OverridesParser.create().parse_override(override)
        return parsed.type, parsed.key_or_group, parsed.get_value_element_as_str()
    except HydraException:
        return None
