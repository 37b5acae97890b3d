"""The form of what an environment's `reset` and `step` return, apart from the observation: Gymnasium's, or it is named.

Unambiguous values are taken: a whole number as a reward, NumPy's numbers and arrays without axes, 0 and 1 as flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

LARGEST_REWARD = float(np.finfo(np.float32).max)  # rewards become float32: above this they would be infinite
REWARDS = frozenset({float, int, bool, np.float32, np.float64})  # of these types nothing but the value is to be checked
FLAGS = frozenset({bool, np.bool_})
RESET_RULE = "reset must return a tuple (observation, info) with a dict `info`"
STEP_RULE = "step must return a tuple (observation, reward, terminated, truncated, info)"


class Mistake(ValueError):
    """An environment returned something that Gymnasium's interface does not allow; the message is for its author."""


def reset_observation(result: Any) -> Any:
    """The observation in what `reset` returned.

    Raises:
        Mistake: it is no pair of an observation and a dict.
    """
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], Mapping | None):
        raise Mistake(f"{RESET_RULE}, and it returned {_shown(result)}")
    return result[0]


def reward_number(reward: Any) -> float:
    """The reward as a float.

    Raises:
        Mistake: it is no single finite number that float32 can hold.
    """
    plain = _plain(reward)
    try:
        number = None if isinstance(plain, str | bytes | bytearray) else float(plain)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None:
        raise Mistake(f"the reward must be a number, and it is {_shown(reward)}")
    if not -LARGEST_REWARD <= number <= LARGEST_REWARD:
        raise Mistake(f"the reward {number} is not a finite float32")
    return number


def flag(name: str, value: Any) -> bool:
    """`terminated` or `truncated` as a bool.

    Raises:
        Mistake: it is neither True nor False, nor 0 or 1.
    """
    plain = _plain(value)
    if isinstance(plain, bool | int | float) and plain in (0, 1):
        return bool(plain)
    raise Mistake(f"`{name}` must be True or False, and it is {_shown(value)}")


def _plain(value: Any) -> Any:
    """A number of NumPy, or of another library of arrays, as Python's; None for an array that has axes."""
    if not hasattr(value, "ndim"):
        return value
    return value.item() if value.ndim == 0 else None


def _shown(value: Any) -> str:
    """A value and its kind, for a person: the str '1.0', None, an array of shape (1,): [1.]."""
    text = " ".join((repr(value) if isinstance(value, str | bytes) else str(value)).split())
    text = text if len(text) <= 100 else text[:97] + "..."
    if value is None:
        return "None"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}: {text}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}: {text}"
    return f"the {type(value).__name__} {text}"
