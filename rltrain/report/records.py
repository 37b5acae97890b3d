"""Words of a run's record (run.json), which may be untrusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rltrain.config.plain import show
from rltrain.config.stored import changes_of

_LONGEST = 1e12  # seconds


def before_resume(record: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that `resume` has changed, with the values that they had before the first change."""
    before: dict[str, Any] = {}
    for entry in changes_of(record):
        if isinstance(key := entry.get("key"), str):
            before.setdefault(key, entry.get("from"))
    return before


def used(record: Mapping[str, Any]) -> dict[str, str | int]:
    """The keys of which the run decided `auto`, or that mean nothing on its device -> the value that this came to."""
    device = str(record.get("device", "")).partition(":")[0]
    found = {
        "device.name": device,
        "device.threads": record.get("threads"),
        "env.vectorization": record.get("vectorization"),
    }
    if device == "cpu":
        found |= {"device.cuda_graphs": False, "device.deterministic": False}
    if record.get("compiled") is False:
        found["device.compile"] = False
    return {key: value for key, value in found.items() if isinstance(value, str | int) and value != ""}


def longest_gap(config: Mapping[str, Any], record: Mapping[str, Any]) -> float:
    """The most environment steps from one row of metrics to the next."""
    before = [entry.get("from") for entry in changes_of(record) if entry.get("key") == "log_period"]
    periods = [config.get("log_period"), *before]
    numbers = [number for number in (*periods, config.get("num_envs")) if type(number) is int]
    return sum(sorted(numbers)[-2:]) if len(numbers) == len(periods) + 1 else math.inf


def seconds_of(value: Any) -> float | None:
    """A time of the record; None where it is none."""
    return float(value) if isinstance(value, int | float) and 0 <= value < _LONGEST else None


def versions_of(record: Mapping[str, Any]) -> str:
    """Versions of the packages that decide a run's numbers, as far as its record has them."""
    told = record.get("versions")
    return (
        ", ".join(f"{name} {show(told[name])}" for name in ("rltrain", "torch") if name in told)
        if isinstance(told, dict)
        else ""
    )


def typed_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The overrides of the command, which may be those of all jobs of a sweep."""
    words = record.get("argv")
    return tuple(str(word) for word in words[1:] if "=" in str(word)) if isinstance(words, list) else ()


def reason_of(record: Mapping[str, Any]) -> str:
    """Why the run is not completed, in one line; empty where it does not tell."""
    reason = record.get("reason")
    return reason.splitlines()[0] if isinstance(reason, str) and reason.strip() else ""
