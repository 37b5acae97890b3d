"""Observations of float64: whole until `env.wrappers` have worked, float32 after; told where that loses something."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from halves import often
from small_runs import env_config

from rltrain.config.wrappers import WRAPPER_CONFIGS
from rltrain.envs.lanes import Lanes
from rltrain.envs.make_vector import make_vector_env
from rltrain.envs.precision import Precision
from rltrain.envs.probe import probe
from rltrain.envs.vector import VectorEnv
from rltrain.seeding import derive_seed

START = 1.7e9
"""Seconds, at which float32 tells no minutes apart."""


def wrapper(name: str, **arguments: Any) -> Any:
    return WRAPPER_CONFIGS[name](name, **arguments)


def make(kind: str, *wrappers: Any, vectorization: str = "sync", frozen: bool = False) -> VectorEnv:
    listed = tuple(wrapper(w) if isinstance(w, str) else w for w in wrappers)
    config = replace(env_config("probe_envs:Clock-v0", kind=kind), wrappers=listed, vectorization=vectorization)
    config = replace(config, max_episode_steps=20)
    return make_vector_env(config, 2, lambda env, number: derive_seed(0, "environment", env, number), frozen=frozen)


def drive(envs: VectorEnv, steps: int) -> list[np.ndarray]:
    """The observations; actions are 0, and a reward says that the bit was 0."""
    return [envs.reset(), *(envs.step(np.zeros(2, np.int64))[1] for _ in range(steps))]


NORMALIZE = "normalize_observation"
CLIP = wrapper("clip_observation", low=1.6e9, high=1.8e9)
NARROW = wrapper("clip_observation", low=START - 60, high=START + 120)
RESCALE = wrapper("rescale_observation", low=0.0, high=1.0)


@pytest.mark.parametrize(
    ("kind", "vectorization"),
    often(
        product(("float64", "int64", "dict"), ("sync", "async")),
        [("float64", "sync"), ("int64", "sync"), ("dict", "sync"), ("float64", "async")],
    ),
)
@pytest.mark.parametrize(
    "wrappers",
    [
        (NORMALIZE,),
        (wrapper("frame_stack", size=2), NORMALIZE),
        ("time_aware", NORMALIZE),
        (CLIP, NORMALIZE),
        (NARROW, RESCALE),
    ],
    ids=lambda listed: "-".join(getattr(one, "name", one) for one in listed),
)
def test_wrappers_work_on_float64(kind: str, wrappers: tuple[Any, ...], vectorization: str) -> None:
    if vectorization == "async" and wrappers != (NORMALIZE,):
        return
    if kind == "dict" and wrappers == (NARROW, RESCALE):
        return  # a vector of parts has no bounds
    envs = make(kind, *wrappers, vectorization=vectorization)
    try:
        obs = envs.reset()
        assert obs.dtype == np.float32 and envs.observation_spec.dtype == "float32"
        rest = (slice(None),) * (obs.ndim - 1)
        shown: dict[float, list[float]] = {0.0: [], 1.0: []}
        for step in range(60):
            transition, after, _ = envs.step(np.zeros(2, np.int64))
            for lane in range(2):  # the reward of action 0 is 1 where the bit was 0
                number = obs[(lane, *rest)].reshape(-1)[-2 if wrappers[0] == "time_aware" else -1]
                if step > 20:
                    shown[1 - float(transition.reward[lane])].append(float(number))
            obs = after
        low, high = max(shown[0.0]), min(shown[1.0])
        assert len(shown[0.0]) > 10 < len(shown[1.0]) and high - low > 0.2
    finally:
        envs.close()


@pytest.mark.parametrize("kind", ["float64", "int64", "dict", "float32"])
def test_without_wrappers_an_agent_is_shown_float32(kind: str) -> None:
    envs = make(kind)
    shown = drive(envs, 25)
    assert {obs.dtype for obs in shown} == {np.dtype("float32")} and envs.observation_spec.dtype == "float32"
    assert {float(obs[0, -1]) for obs in shown} == {float(np.float32(START))}
    config = env_config("probe_envs:Clock-v0", kind=kind)
    assert probe(config)[0].dtype == "float32"


def test_a_checkpoint_of_before_with_float32_goes_on() -> None:
    """Earlier versions cut observations before the wrappers, and stored them so."""
    stack = wrapper("frame_stack", size=2)
    for wrappers in ((), (NORMALIZE,), (stack,), (stack, NORMALIZE)):
        envs, other = make("float64", *wrappers), make("float64", *wrappers)
        drive(envs, 7)
        state = envs.state_dict()
        assert state["obs"].dtype == np.float64
        kept = {"obs", "memory.frame_stack.frames"}
        old = {name: array.astype(np.float32) if name in kept else array for name, array in state.items()}
        obs, exact = other.load_state_dict(old)
        assert exact and obs.tobytes() == envs._obs.tobytes() and obs.dtype == np.float32
        for _ in range(15):
            assert envs.step(np.zeros(2, np.int64))[1].shape == other.step(np.zeros(2, np.int64))[1].shape


@pytest.mark.parametrize("wrappers", [(), (wrapper("frame_stack", size=2),), ("time_aware", NORMALIZE)])
def test_what_is_restored_continues_bit_for_bit(wrappers: tuple[Any, ...]) -> None:
    envs, other = make("float64", *wrappers), make("float64", *wrappers)
    drive(envs, 37)
    obs, exact = other.load_state_dict({name: array.copy() for name, array in envs.state_dict().items()})
    assert exact and obs.tobytes() == envs._obs.tobytes()
    for _ in range(30):
        assert envs.step(np.zeros(2, np.int64))[1].tobytes() == other.step(np.zeros(2, np.int64))[1].tobytes()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr("rltrain.envs.vector.warn", lambda log, message: lines.append(message))
    return lines


@pytest.mark.parametrize(
    ("kind", "wrappers", "text"),
    [
        ("float64", (), r"number \[0\] of its observations was 17000000\d0.0, .* for both in float32, in which"),
        ("int64", (), r"number \[0\] of its observations was 17000000\d0.0, .* for both in float32, in which"),
        ("dict", (), r"number \[7\] of its observations"),
        ("float64", (wrapper("frame_stack", size=2),), r"number \[\d, 0\] of its observations"),
        ("float64", ("time_aware",), r"number \[0\] of its observations"),
        ("float32", (), r"which its observation space asks for: declare it float64"),
        ("float32", (NORMALIZE,), r"which its observation space asks for: declare it float64"),
    ],
)
@pytest.mark.parametrize("vectorization", often(["sync", "async"], ["sync"]))
def test_a_user_is_told_once(
    kind: str, wrappers: tuple[Any, ...], text: str, vectorization: str, told: list[str]
) -> None:

    envs = make(kind, *wrappers, vectorization=vectorization)
    try:
        drive(envs, 300)
    finally:
        envs.close()
    assert len(told) == 1 and told[0].startswith("probe_envs:Clock-v0: "), told
    assert re.search(text, told[0]) and "normalize_observation" in told[0] and "\n" not in told[0]


@pytest.mark.parametrize("kind", ["float64", "int64", "dict"])
def test_who_normalizes_and_who_evaluates_is_told_nothing(kind: str, told: list[str]) -> None:
    drive(make(kind, NORMALIZE), 300)
    drive(make(kind, frozen=True), 300)
    assert not told


def seen(numbers: np.ndarray, episode: int = 10**9) -> str | None:
    """What is said of a series of numbers [T]."""
    precision = Precision()
    for t, number in enumerate(numbers):
        if t % episode == 0:
            precision.begin()
        if precision.wants() and (text := precision.see(np.array([number], np.float64))):
            return text
    return None


DRAWN = np.random.default_rng(0)
DAY, MINUTES = 86_400.0, np.arange(20_000) * 60.0


@pytest.mark.parametrize(
    ("numbers", "episode"),
    [
        (START + MINUTES, 10**9),
        (START + MINUTES % (390 * 60) + MINUTES // (390 * 60) * DAY, 390),  # a trading day is an episode
        (START + np.repeat(DRAWN.integers(0, 1000, 50), 400) * DAY + MINUTES % (400 * 60), 400),  # of any of 1000 days
        (1e5 + np.cumsum(DRAWN.normal(0, 0.002, 5000)), 10**9),  # prices with small changes
        (1000 + np.arange(5000) * 1e-5, 10**9),  # a slow vehicle far out
        (START + MINUTES.repeat(5), 10**9),  # a number that rests between its changes
        (1.0 + np.tile([0.0, 1e-8], 100), 10**9),
    ],
    ids=["minutes", "days", "any day", "prices", "vehicle", "pauses", "flicker"],
)
def test_numbers_too_fine_for_float32_are_noticed(numbers: np.ndarray, episode: int) -> None:
    assert seen(numbers, episode)


@pytest.mark.parametrize(
    "numbers",
    [
        np.sin(np.arange(20_000) * 0.01),
        np.exp(-np.arange(20_000) * 0.001),  # settles
        2 + 0.5 ** np.minimum(np.arange(20_000) / 8.0, 60),  # settles at a number that is not 0
        np.concatenate([np.linspace(0, 1, 100), 1 + 1e-9 * DRAWN.normal(size=20_000)]),  # trembles where it has come to
        np.full(1000, START),
        0.1 + 1e-17 * np.arange(1000),
        0.1 * (1 + 2**-52 * DRAWN.integers(-2, 3, 1000)),  # the rounding of float64
        np.arange(20_000.0),
        100 + np.round(np.cumsum(DRAWN.normal(0, 0.05, 20_000)), 2),  # prices in cents
        DRAWN.normal(size=20_000) * 1e30,
        np.zeros(1000),
    ],
    ids=["sine", "decay", "settling", "trembling", "constant", "tiny", "rounding", "counter", "cents", "huge", "zero"],
)
def test_of_numbers_that_float32_holds_nothing_is_said(numbers: np.ndarray) -> None:
    with np.errstate(all="raise"):
        assert seen(numbers) is None


def test_the_jump_to_the_next_episode_is_no_change() -> None:
    assert seen(np.tile([START, START + 1e7], 300), episode=1) is None
    assert seen(np.tile([START, START + 60], 300), episode=1) is None


class Rests(gymnasium.Env[Any, Any]):
    """Float32 as it says, and a float64 with the same numbers."""

    observation_space = spaces.Box(-10, 10, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        return np.array([0.1, 0.2]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.array([0.1, 0.2]) + self.np_random.normal(), 0.0, False, False, {}


def test_float64_in_a_space_of_float32_is_rounded_and_no_more_is_said() -> None:
    lanes = Lanes([Rests()], 0, "Rests-v0")
    assert lanes.reset([1]).tobytes() == np.array([[0.1, 0.2]], np.float32).tobytes()
    for _ in range(400):
        done = lanes.step(np.zeros(1, np.int64), None, [2])
        assert done.obs.dtype == np.float32 and not done.notes
