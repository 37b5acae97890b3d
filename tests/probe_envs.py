"""Environments with known answers and known faults, for tests: `env=probe_envs:Chain-v0` and so on.

Those that are there to learn on are named with their answer. Discount is gamma.

    Bandit-v0              one step, 2 actions, reward [0.25, 1.0]: Q(s, .) = [0.25, 1.0]
    ConstantTruncated-v0   reward 1 for ever, cut after 10 steps, time not visible: V = 1 / (1 - gamma)
    ConstantTerminated-v0  reward 1, terminates with probability 1/10 after each step: V = 1 / (1 - 0.9 gamma)
    Countdown-v0           reward 1, terminates after 5 steps, obs one-hot of the time t: V(t) = (1 - gamma^(5 - t)) /
                           (1 - gamma)
    Flip-v0                the best action flips if truncation is taken for termination
    Target-v0              one step, Box(2), reward -mean((a - 0.3)^2): best action [0.3, 0.3], return 0
    LongShort-v0           the first action picks 1 or `long` steps, `short_return` or `long_return`
    Chain-v0               Discrete obs, 10 right actions to a reward of 1, a wrong one ends it: greedy return 1,
                           random 2^-10
    DelayedReward-v0       obs one-hot of the time t, reward 1 only at the last of 4 steps: V(t) = gamma^(3 - t)
    Counter-v0             obs counts up from a seeded start, terminated or truncated after `length` steps: next_obs =
                           obs + 1
    FixedLength-v0         7 steps of reward 3: return 21, length 7
    Shifted-v0, EchoBox-v0, Images-v0, Walk-v0           spaces: Discrete with a start, bounds, uint8, float64
    Votes-v0               one step; three parts of an observation of `kind` vote with +1 or -1, the rest is noise:
                           Q(s, 1) = sum of the votes = -Q(s, 0), greedy return at least 1, which takes all three
    Aim-v0                 `length` steps (1), Box actions of `kind`, reward -mean((a - best)^2): at best 0
    Clock-v0               10 steps, a reward where the action is a bit, which the time tells by a minute: float64, and
                           int64, dict, declared float32 (`kind`); `start` is where the time lies
    Refused-v0             a space of `kind` that is refused
    Raises-v0, Nan-v0, Hangs-v0, Dies-v0                 a fault at step `at` of every episode
    Unrepeatable-v0        what it shows is not a function of its seed: a replay does not come back to it
    Pid-v0                 shows the process that it runs in
    Scarce-v0              of which a machine can hold `most` at a time, each made in `seconds`; 10 steps of reward 1
    Straggler-v0           reward 1 for a seeded number of steps from 1 to 60, or, one time in five, for ever
    Film-v0                draws frames `how`
"""

from __future__ import annotations

import os
import time
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

Step = tuple[Any, float, bool, bool, dict[str, Any]]


def _box(size: int = 1, high: float = np.inf) -> spaces.Box:
    return spaces.Box(-high, high, (size,), np.float32)


class Probe(gymnasium.Env[Any, Any]):
    """Counts the steps of its episode in `self.t`; subclasses give the observation and the step."""

    observation_space: spaces.Space[Any] = _box()
    action_space: spaces.Space[Any] = spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.t = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        self.begin()
        return self.observe(), {}

    def step(self, action: Any) -> Step:
        self.t += 1
        reward, terminated, truncated = self.advance(action)
        return self.observe(), reward, terminated, truncated, {}

    def begin(self) -> None: ...

    def observe(self) -> Any:
        return np.ones(1, np.float32)

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        raise NotImplementedError


class Bandit(Probe):
    def advance(self, action: Any) -> tuple[float, bool, bool]:
        return (0.25, 1.0)[action], True, False


class ConstantTruncated(Probe):
    """The observation does not tell the time, so only bootstrapping through the cut gives 1 / (1 - gamma)."""

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        return 1.0, False, self.t == 10


class ConstantTerminated(Probe):
    def advance(self, action: Any) -> tuple[float, bool, bool]:
        return 1.0, bool(self.np_random.random() < 0.1), False


class Countdown(Probe):
    observation_space = _box(5)

    def observe(self) -> np.ndarray:
        return np.eye(6, 5, dtype=np.float32)[self.t]

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        return 1.0, self.t == 5, False


class Flip(Probe):
    """Two states, one-hot. In state 0, action 0 pays 1 and stays, and the episode is cut at once; action 1 pays 0.5 and
    leads to state 1, which pays 0.75 for both actions and terminates.

    With the cut bootstrapped, Q(0, 0) = 1 + gamma max(Q(0, 0), Q(0, 1)) = 1 / (1 - gamma), far above Q(0, 1) = 0.5 +
    0.75 gamma. With the cut taken for an end, Q(0, 0) = 1 < Q(0, 1) for gamma > 2/3: the best action flips.
    """

    observation_space = _box(2)

    def begin(self) -> None:
        self.state = 0

    def observe(self) -> np.ndarray:
        return np.eye(2, dtype=np.float32)[self.state]

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        if self.state == 1:
            return 0.75, True, False
        self.state = int(action)
        return (0.5, False, False) if action else (1.0, False, True)


class Target(Probe):
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        return -float(np.mean((np.asarray(action, np.float64) - 0.3) ** 2)), True, False


class LongShort(Probe):
    """Action 0 at the first step: one step, return `short_return`. Action 1: `long` steps, `long_return` at the last.
    A sampler that takes the first K finished episodes of several environments sees action 0 far too often."""

    observation_space = _box(2)

    def __init__(
        self, long: int = 20, short_return: float = 1.0, long_return: float = 1.0, render_mode: str | None = None
    ) -> None:
        super().__init__(render_mode)
        self.long, self.returns = long, (short_return, long_return)

    def begin(self) -> None:
        self.length = 0

    def observe(self) -> np.ndarray:
        return np.array([float(self.t == 0), float(self.t > 0)], np.float32)

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        if self.t == 1:
            self.length, self.pay = (self.long if action else 1), self.returns[int(action)]
        ended = self.t == self.length
        return (self.pay if ended else 0.0), ended, False


class Chain(Probe):
    """State s = 0..9; the right action is 1 in odd states, 0 in even ones."""

    observation_space = spaces.Discrete(11)

    def observe(self) -> int:
        return self.state

    def begin(self) -> None:
        self.state = 0

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        if action != self.state % 2:
            return 0.0, True, False
        self.state += 1
        return float(self.state == 10), self.state == 10, False


class DelayedReward(Probe):
    observation_space = _box(4)

    def observe(self) -> np.ndarray:
        return np.eye(5, 4, dtype=np.float32)[self.t]

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        return float(self.t == 4), self.t == 4, False


class Counter(Probe):
    """obs counts up from a seeded multiple of 1000; `ending`: terminated, truncated, or alternate between the two.

    The observation is one array that the environment writes into, as some do: who keeps it must copy it.
    """

    def __init__(self, length: int = 5, ending: str = "alternate", render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.length, self.ending, self.episodes = length, ending, 0
        self.buffer = np.zeros(1, np.float32)

    def begin(self) -> None:
        self.start = 1000 * int(self.np_random.integers(1, 10_000))
        self.episodes += 1

    def observe(self) -> np.ndarray:
        self.buffer[0] = self.start + self.t
        return self.buffer

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        ended = self.t == self.length
        terminated = self.ending == "terminated" or (self.ending == "alternate" and self.episodes % 2 == 1)
        return float(self.t), ended and terminated, ended and not terminated


class FixedLength(Probe):
    def advance(self, action: Any) -> tuple[float, bool, bool]:
        return 3.0, self.t == 7, False


class Shifted(Probe):
    """Discrete(3, start=5) actions and Discrete(4, start=-2) observations: the next one is the action taken - 7."""

    observation_space = spaces.Discrete(4, start=-2)
    action_space = spaces.Discrete(3, start=5)

    def begin(self) -> None:
        self.last = 1

    def observe(self) -> int:
        return self.last

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        assert action in (5, 6, 7)
        assert type(action) is int
        self.last = action - 7
        return float(action), self.t == 5, False


class EchoBox(Probe):
    """The next observation is the action as the environment got it; dims bounded, half-bounded, unbounded."""

    observation_space = _box(4)
    action_space = spaces.Box(
        np.array([-2.0, 0.0, -np.inf, -np.inf], np.float32), np.array([6.0, np.inf, 1.0, np.inf], np.float32)
    )

    def begin(self) -> None:
        self.last = np.zeros(4, np.float32)

    def observe(self) -> np.ndarray:
        return self.last

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        assert self.action_space.contains(action), action
        self.last = action.copy()
        action *= 0  # some environments write into their action
        return 0.0, self.t == 5, False


class Images(Probe):
    observation_space = spaces.Box(0, 255, (3, 4, 2), np.uint8)

    def observe(self) -> np.ndarray:
        return np.full((3, 4, 2), 200 + self.t, np.uint8)

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        return 0.0, self.t == 5, False


class Noise(Probe):
    """Images of bool [side, side, 3] that the seed and the actions determine; episodes of 3 to 9 steps."""

    def __init__(self, side: int = 4) -> None:
        super().__init__()
        self.observation_space = spaces.Box(0, 1, (side, side, 3), np.bool_)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.generator = np.random.default_rng(seed)
        self.length = int(self.generator.integers(3, 10))
        return super().reset(seed=seed, options=options)

    def observe(self) -> np.ndarray:
        return self.generator.random(self.observation_space.shape) < 0.5

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        self.generator.random(int(action))
        return float(self.generator.normal()), self.t == self.length, False


class _Fault(Probe):
    def __init__(self, at: int = 3, what: str = "", render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.at, self.what = at, what

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        return (self.fault() if self.t == self.at else 1.0), self.t == 50, False

    def fault(self) -> float:
        raise NotImplementedError


class Raises(_Fault):
    def fault(self) -> float:
        if self.what == "exit":
            raise SystemExit(0)
        raise ValueError("the left wheel\ncame off")


class Nan(_Fault):
    """`what`: obs, reward, inf_reward, big_reward (infinite in float32), shape, none_reward, four."""

    def fault(self) -> float:
        return {"reward": np.nan, "inf_reward": np.inf, "big_reward": 1e39, "none_reward": None}.get(self.what, 1.0)  # type: ignore[return-value]

    def observe(self) -> np.ndarray:
        if self.t == self.at and self.what == "obs":
            return np.array([np.nan], np.float32)
        return np.ones((), np.float32) if self.t == self.at and self.what == "shape" else np.ones(1, np.float32)

    def step(self, action: Any) -> Any:
        full = super().step(action)
        return full[:4] if self.t == self.at and self.what == "four" else full


class Hangs(_Fault):
    def fault(self) -> float:
        time.sleep(3600)
        return 1.0


class Dies(_Fault):
    def fault(self) -> float:
        os._exit(11)


class Unrepeatable(Probe):
    """What it shows after a reset has nothing to do with the seed."""

    def begin(self) -> None:
        self.mark = np.random.default_rng().random(1).astype(np.float32)

    def observe(self) -> np.ndarray:
        return self.mark

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        return 1.0, self.t == 50, False


class Walk(Probe):
    """A random walk from its seeded generator: what it shows depends on the seed and on all actions so far."""

    observation_space = _box(2)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float64)

    def begin(self) -> None:
        self.place = self.np_random.normal(size=2)

    def observe(self) -> np.ndarray:
        return self.place

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        self.place = self.place * 0.9 + self.np_random.normal(size=2) + action
        return float(self.place.sum()), bool(self.np_random.random() < 0.02), self.t == 40


class Votes(Probe):
    """Which numbers of the observation are votes is in `votes`, in the words of the space and not of its flat form."""

    spaces_by_kind: ClassVar[dict[str, spaces.Space[Any]]] = {
        "dict": spaces.Dict(
            side=spaces.Discrete(2, start=3), place=spaces.MultiDiscrete([2, 3], start=[-1, 4]),
            lamp=spaces.MultiBinary(2),
        ),
        "tuple": spaces.Tuple(
            (
                spaces.Discrete(2), spaces.Dict(b=_box(2), a=spaces.Tuple((spaces.MultiBinary(1), _box()))),
                spaces.Discrete(3, start=-1),
            )
        ),
        "multi_discrete": spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[0, -5], [7, 1]]),
        "multi_binary": spaces.MultiBinary((2, 2)),
        "integers": spaces.Box(-3, 3, (4,), np.int64),
        "bools": spaces.Box(0, 1, (4,), np.bool_),
        "bytes": spaces.Box(0, 255, (4,), np.uint8),
        "small_bytes": spaces.Box(0, 1, (4,), np.uint8),
        "matrix": spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
        "scalar": spaces.Box(-3.0, 3.0, (), np.float32),
    }  # fmt: skip

    def __init__(self, kind: str = "dict", render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.kind = kind
        self.observation_space = self.spaces_by_kind[kind]

    def begin(self) -> None:
        self.votes = self.np_random.choice([-1, 1], 3)
        self.noise = self.np_random.choice([-1, 1])

    def observe(self) -> Any:
        first, second, third = self.votes.tolist()
        yes = [*(vote > 0 for vote in self.votes.tolist()), self.noise > 0]
        match self.kind:
            case "dict":
                place = np.array([-1 + yes[3], 5 if yes[1] else 4 + 2 * yes[3]])
                return {"lamp": np.array([yes[2], yes[3]], np.int8), "side": 3 + yes[0], "place": place}
            case "tuple":
                inner = {"a": (np.array([yes[1]], np.int8), np.ones(1)), "b": np.array([self.noise, third])}
                return np.int64(yes[0]), inner, self.noise
            case "multi_discrete":
                return np.array([[yes[0], -5 + 2 * yes[1]], [7 + 3 * yes[3], 1 + yes[2]]])
            case "multi_binary":
                return np.array([[yes[3], yes[0]], [yes[1], yes[2]]], np.int8)
            case "scalar":
                return np.array(self.votes.sum(), np.float32)
            case "bytes":
                return np.array(yes, np.uint8) * np.uint8(255)
            case "matrix":
                return np.array([[self.noise, first], [second, third]], np.float64)
            case "integers":
                return np.array([first, second, third, self.noise])
            case _:
                return np.array(yes, self.observation_space.dtype)

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        return float(self.votes.sum() * (1 if action == 1 else -1)), True, False


class Aim(Probe):
    """Of the best action the environment says nothing; a bounded dimension spans -1..1 for the agent."""

    spaces_by_kind: ClassVar[dict[str, tuple[spaces.Box, Any]]] = {
        "scalar": (spaces.Box(0.0, 4.0, (), np.float32), 3.0),
        "matrix": (spaces.Box(-2.0, 2.0, (2, 3), np.float64), [[-1.0, 0.0, 1.0], [0.5, -0.5, 1.5]]),
        "half": (spaces.Box(np.array([-1.0, -np.inf]), np.array([np.inf, 1.0]), dtype=np.float64), [1.5, -1.5]),
    }

    def __init__(self, kind: str = "scalar", length: int = 1, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.length = length
        self.action_space, best = self.spaces_by_kind[kind]
        self.best = np.array(best)

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        assert type(action) is np.ndarray and self.action_space.contains(action), action
        return -float(np.mean((action - self.best) ** 2)), self.t == self.length, False


class Lock(Probe):
    """Shows a combination, another one at every step, and pays the share of its numbers that the action repeats."""

    spaces_by_kind: ClassVar[dict[str, spaces.Space[Any]]] = {
        "unlike": spaces.MultiDiscrete([2, 3, 4], start=[5, 0, -1]),
        "alike": spaces.MultiDiscrete([[3], [3]]),
        "binary": spaces.MultiBinary((2, 2)),
        "small": spaces.MultiDiscrete([3, 2], dtype=np.int8),
    }

    def __init__(self, kind: str = "unlike", length: int = 10, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.action_space = self.observation_space = self.spaces_by_kind[kind]
        self.length = length

    def begin(self) -> None:
        self.turn()

    def turn(self) -> None:
        space: Any = self.action_space
        sizes = getattr(space, "nvec", np.full(space.shape, 2))
        self.combination = (getattr(space, "start", 0) + self.np_random.integers(0, sizes)).astype(space.dtype)

    def observe(self) -> Any:
        return self.combination

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        assert type(action) is np.ndarray and self.action_space.contains(action), action
        reward = float(np.mean(action == self.combination))
        self.turn()
        return reward, self.t == self.length, False


class Clock(Probe):
    """At `start` seconds float32 knows no minutes, float64 does."""

    spaces_by_kind: ClassVar[dict[str, spaces.Space[Any]]] = {
        "float64": spaces.Box(0.0, 2e9, (1,), np.float64),
        "float32": spaces.Box(0.0, 2e9, (1,), np.float32),
        "int64": spaces.Box(0, 2_000_000_000, (1,), np.int64),
        "dict": spaces.Dict(day=spaces.Discrete(7), time=spaces.Box(0.0, np.inf, (), np.float64)),
    }

    def __init__(self, kind: str = "float64", start: float = 1.7e9, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.kind, self.start = kind, start
        self.observation_space = self.spaces_by_kind[kind]

    def begin(self) -> None:
        self.bit = int(self.np_random.integers(2))

    def observe(self) -> Any:
        time = self.start + 60 * self.bit
        if self.kind == "dict":
            return {"day": 3, "time": time}
        return np.array([time], np.int64 if self.kind == "int64" else np.float64)

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        reward, self.bit = float(action == self.bit), int(self.np_random.integers(2))
        return reward, self.t == 10, False


class Refused(Probe):
    observations: ClassVar[dict[str, spaces.Space[Any]]] = {
        "text": spaces.Text(5),
        "sequence": spaces.Sequence(spaces.Discrete(2)),
        "graph": spaces.Graph(spaces.Discrete(2), None),
        "one_of": spaces.OneOf((spaces.Discrete(2), spaces.Discrete(3))),
        "text_inside": spaces.Dict(a=spaces.Tuple((_box(), spaces.Dict(mission=spaces.Text(5))))),
        "nothing": spaces.Dict(),
        "too_many": spaces.Tuple((spaces.Discrete(2**40), spaces.Discrete(2))),
    }
    actions: ClassVar[dict[str, spaces.Space[Any]]] = {
        "too_many_actions": spaces.MultiDiscrete([2**40, 3]),
        "dict_action": spaces.Dict(a=spaces.Discrete(2)),
        "tuple_action": spaces.Tuple((spaces.Discrete(2),)),
        "integer_action": spaces.Box(0, 9, (1,), np.int64),
        "bool_action": spaces.Box(0, 1, (1,), np.bool_),
    }

    def __init__(self, kind: str = "text", render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.observation_space = self.observations.get(kind, self.observation_space)
        self.action_space = self.actions.get(kind, self.action_space)


class Pid(Probe):
    """Tells in which process it runs and whether torch is there: [pid, torch imported]."""

    observation_space = _box(2)

    def observe(self) -> np.ndarray:
        import sys

        return np.array([os.getpid(), "torch" in sys.modules], np.float32)

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        return 0.0, False, False


class Scarce(Probe):
    """A simulator that holds something of which there is little, until it is closed. Counts what was made."""

    alive: ClassVar[int] = 0
    made: ClassVar[int] = 0

    def __init__(self, most: int = 1, seconds: float = 0.0, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self._open = False
        time.sleep(seconds)
        if Scarce.alive >= most:
            raise OSError("the port is in use")
        self._open = True
        Scarce.alive += 1
        Scarce.made += 1

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        assert self._open
        return 1.0, self.t == 10, False

    def close(self) -> None:
        Scarce.alive -= self._open
        self._open = False


class Straggler(Probe):
    def begin(self) -> None:
        self.length = int(self.np_random.integers(1, 61)) if self.np_random.random() < 0.8 else -1

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        return 1.0, self.t == self.length, False


class Film(Probe):
    """Two steps of reward 1, drawn as what environments are known to return."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array", "rgb_array_list"], "render_fps": 10}

    def __init__(self, how: str = "rgb", render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.how = how

    def advance(self, action: Any) -> tuple[float, bool, bool]:
        return 1.0, self.t == 2, False

    def render(self) -> Any:
        frame = np.full((8, 12, 3), 60 * self.t, np.uint8)
        if self.how == "late":
            return [frame] if self.t else []
        return {"none": None, "text": "###", "never": []}.get(self.how, frame)


_ALL: tuple[type[Probe], ...] = (
    Bandit, ConstantTruncated, ConstantTerminated, Countdown, Flip, Target, LongShort, Chain, DelayedReward, Counter,
    FixedLength, Shifted, EchoBox, Images, Noise, Raises, Nan, Hangs, Dies, Unrepeatable, Walk, Votes, Aim,
    Lock, Clock, Refused, Pid, Scarce, Straggler, Film,
)  # fmt: skip
_BEST_RETURN: dict[type[Probe], float] = {Bandit: 1.0, Target: -0.01, Chain: 1.0, Lock: 9.5}

for _class in _ALL:
    gymnasium.register(
        f"{_class.__name__}-v0", entry_point=f"{__name__}:{_class.__name__}", reward_threshold=_BEST_RETURN.get(_class)
    )
