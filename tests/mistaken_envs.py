"""Environments whose authors made a mistake: `env=mistaken_envs:Returns-v0 env.kwargs.what=...` and so on.

Returns-v0   what it returns is not of Gymnasium's form (`what`, a key of RESETS or STEPS), from step or episode `at` on
Bugs-v0    its own code raises: in its constructor, its reset or its step (`where`)
Spaces-v0    its spaces are no spaces (`what`, a key of SPACES)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

OBS = np.zeros(2, np.float32)
RESETS: dict[str, Any] = {
    "observation_alone": OBS,
    "list": [OBS, {}],
    "three": (OBS, {}, 0.0),
    "info_is_no_dict": (OBS, 1.0),
    "pair_of_numbers": (0.0, 0.0),
    "nothing": None,
    "nan_at_reset": (np.full(2, np.nan), {}),
    "shape_at_reset": (np.zeros(3, np.float32), {}),
}
STEPS: dict[str, tuple[Any, ...] | None] = {
    "reward_array": (OBS, np.ones(1), False, False, {}),
    "reward_array_of_two": (OBS, np.ones(2), False, False, {}),
    "reward_list": (OBS, [1.0], False, False, {}),
    "reward_text": (OBS, "1.0", False, False, {}),
    "reward_text_of_numpy": (OBS, np.array("1.0"), False, False, {}),
    "reward_none": (OBS, None, False, False, {}),
    "reward_nan": (OBS, np.nan, False, False, {}),
    "reward_complex": (OBS, np.complex128(1), False, False, {}),
    "reward_dict": (OBS, {"a": 1.0}, False, False, {}),
    "terminated_array": (OBS, 1.0, np.array([True, False]), False, {}),
    "terminated_array_of_one": (OBS, 1.0, np.array([True]), False, {}),
    "terminated_list": (OBS, 1.0, [], False, {}),
    "terminated_none": (OBS, 1.0, None, False, {}),
    "terminated_text": (OBS, 1.0, "False", False, {}),
    "terminated_number": (OBS, 1.0, 0.5, False, {}),
    "truncated_array": (OBS, 1.0, False, np.array([True, False]), {}),
    "truncated_none": (OBS, 1.0, False, None, {}),
    "truncated_text": (OBS, 1.0, False, "", {}),
    "truncated_dict": (OBS, 1.0, False, {"TimeLimit.truncated": True}, {}),
    "four": (OBS, 1.0, False, {}),
    "six": (OBS, 1.0, False, False, {}, 0),
    "nothing_at_all": None,
}


class Correct(gymnasium.Env[Any, Any]):
    """Episodes of 20 steps with a reward of 1."""

    observation_space: spaces.Space[Any] = spaces.Box(-1, 1, (2,), np.float32)
    action_space: spaces.Space[Any] = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), 1.0, self.t == 20, False, {}


class Returns(Correct):
    """`seeded`: only in episodes whose seed is odd."""

    def __init__(self, what: str = "four", at: int = 3, seeded: bool = False) -> None:
        self.what, self.at, self.seeded, self.episodes = what, at, seeded, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        right = super().reset(seed=seed)
        self.wrong = bool(not self.seeded or (seed and seed % 2))
        self.episodes += 1
        return RESETS[self.what] if self.what in RESETS and self.wrong and self.episodes >= self.at else right

    def step(self, action: Any) -> Any:
        right = super().step(action)
        return STEPS[self.what] if self.what in STEPS and self.wrong and self.t >= self.at else right


class Bugs(Correct):
    made = 0

    def __init__(self, where: str = "step", after: int = 0) -> None:
        """`after`: so many constructors of this class go well first."""
        self.where = where
        type(self).made += 1
        if where == "constructor" and type(self).made > after:
            self.fail()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if self.where == "reset":
            self.fail()
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        if self.where == "library":
            np.linalg.inv(np.zeros((2, 2)))  # raises deep inside somebody else's code
        if self.where == "step":
            self.fail()
        return super().step(action)

    def fail(self) -> None:
        raise KeyError("left wheel")


class OldReset(Correct):
    def reset(self) -> Any:  # type: ignore[override]
        return OBS


class Spaces(Correct):
    SPACES: ClassVar[dict[str, Callable[[], Any]]] = {
        "none": lambda: None,
        "class": lambda: spaces.Box,
        "per_agent": lambda: {"a": spaces.Discrete(2), "b": spaces.Discrete(2)},
        "number": lambda: 4,
        "shape": lambda: (4,),
    }

    def __init__(self, what: str = "none", which: str = "observation_space") -> None:
        setattr(self, which, self.SPACES[what]())


class Typo(gymnasium.Env[Any, Any]):
    def __init__(self) -> None:
        self.observation_spaces = spaces.Discrete(2)  # not `observation_space`
        self.action_space = spaces.Discrete(2)


class Later(gymnasium.Env[Any, Any]):
    action_space = spaces.Discrete(2)
    sizes: Any = None

    @property
    def observation_space(self) -> Any:  # type: ignore[override]
        return spaces.Discrete(self.sizes["observation"])

    def close(self) -> None:
        raise RuntimeError("never opened")


for _class in (Correct, Returns, Bugs, OldReset, Spaces, Typo, Later):
    gymnasium.register(f"{_class.__name__}-v0", entry_point=_class)
