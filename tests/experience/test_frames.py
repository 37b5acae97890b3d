"""Replay that keeps each frame once against replay that keeps observations whole, under random operations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import CPU, DISCRETE, assert_same_state, dqn_config, make_agent, network_of, run_config

from rltrain.agents import Agent
from rltrain.config.algorithms import card_of
from rltrain.config.schema import PrioritizedConfig
from rltrain.config.wrappers import FrameStackConfig
from rltrain.envs.wrappers import WrapperContext, make_wrappers
from rltrain.errors import RunFailed
from rltrain.experience import PrioritizedReplay, UniformReplay
from rltrain.experience.frames import Frames
from rltrain.experience.n_step import NStepWindow
from rltrain.types import Episode, ObservationSpec, Stack, Transition

CAPACITY, SIZE = 23, 3
PRIORITIES = PrioritizedConfig(alpha=0.7, beta=0.4, beta_steps=10, eps=0.01)
SHAPES = {"grey": ((2, 2), 0), "channels first": ((1, 2, 3), 0), "channels last": ((3, 2, 1), 2)}


def spec_of(layout: str) -> ObservationSpec:
    shape, axis = SHAPES[layout]
    stacked = {"grey": (SIZE, 2, 2), "channels first": (SIZE, 2, 3), "channels last": (3, 2, SIZE)}[layout]
    return ObservationSpec("box", stacked, "uint8", stack=Stack(SIZE, shape, axis))


class Play:
    """Steps of L environments: episodes that end and are cut, lives that are lost, environments that idle."""

    def __init__(self, layout: str, lanes: int, zeros: bool = False, idle: float = 0.2) -> None:
        self.spec, self.rng = spec_of(layout), np.random.default_rng(0)
        self.zeros, self.layout, self.idle = zeros, layout, idle
        self.stacks = [self.first() for _ in range(lanes)]

    def frame(self) -> np.ndarray:
        return self.rng.integers(0, 3, self.spec.stack.shape).astype(np.uint8)  # type: ignore[union-attr]

    def first(self) -> list[np.ndarray]:
        frame = self.frame()
        return [np.zeros_like(frame) if self.zeros else frame] * (SIZE - 1) + [frame]

    def shown(self) -> np.ndarray:
        join = np.stack if self.layout == "grey" else np.concatenate
        axis = 2 if self.layout == "channels last" else 0
        return np.stack([join(stack, axis) for stack in self.stacks])

    def step(self) -> tuple[Transition, list[int]]:
        lanes = len(self.stacks)
        obs, active = self.shown(), self.rng.random(lanes) >= self.idle
        for lane in np.flatnonzero(active):
            self.stacks[lane] = [*self.stacks[lane][1:], self.frame()]
        next_obs = self.shown()
        ended, cut, life = (active & (self.rng.random(lanes) < share) for share in (0.1, 0.05, 0.1))
        over = np.flatnonzero(ended | cut).tolist()
        for lane in over:
            self.stacks[lane] = self.first()
        reward = self.rng.normal(size=lanes).astype(np.float32)
        return Transition(
            obs, self.rng.integers(0, 3, lanes), reward, next_obs, ended | life, cut & ~ended, active
        ), over


class Kept:
    """A replay behind an n-step window, as an agent has them."""

    def __init__(
        self, spec: ObservationSpec, n: int, members: int, num_envs: int, prioritized: bool, once: bool
    ) -> None:
        self.members = np.repeat(np.arange(members), num_envs)
        self.frames = Frames(spec, CAPACITY, num_envs, n, CPU, members) if once else None
        own: Any = spec if self.frames is None else self.frames.spec
        self.window = NStepWindow(n, 0.9, len(self.members), own, DISCRETE)
        args = (CAPACITY, spec, DISCRETE, CPU, members, False, self.frames)
        self.replay = PrioritizedReplay(PRIORITIES, *args) if prioritized else UniformReplay(*args)

    def add(self, step: Transition, ended: list[int]) -> None:
        if self.frames is not None:
            step = self.frames.numbered(step, ended)
        for envs, columns in self.window.push(step):
            self.replay.add(*columns, members=self.members[envs])

    def forget(self, envs: np.ndarray) -> None:
        self.window.forget(envs)
        if self.frames is not None:
            self.frames.forget(envs)

    def sample(self, draws: np.ndarray) -> list[torch.Tensor]:
        self.replay.send_counts()
        memory, tensors = self.replay.memory, []
        for rows, batch in self.replay.batches(memory, torch.from_numpy(draws)):
            tensors += [x for x in batch if x is not None]
            self.replay.feedback(memory, rows, {"error": batch.reward})
        return tensors

    def state(self, member: int, envs: slice) -> list[dict[str, torch.Tensor]]:
        states = [self.replay.state_dict(member), self.window.state_dict(envs)]
        states += [] if self.frames is None else [self.frames.state_dict(member)]
        return [{name: tensor.clone() for name, tensor in state.items()} for state in states]

    def load(self, states: list[dict[str, torch.Tensor]], member: int, envs: slice) -> None:
        if self.frames is not None:
            self.frames.load_state_dict(states[2], member)
        self.replay.load_state_dict(states[0], member)
        self.window.load_state_dict(states[1], envs)


@pytest.mark.parametrize(
    ("layout", "n", "members", "num_envs", "prioritized", "zeros"),
    [
        ("grey", 1, 1, 1, False, False),
        ("grey", 3, 2, 3, True, False),
        ("channels last", 2, 1, 3, False, True),
        ("channels first", 4, 2, 1, False, True),
    ],
)
def test_batches_are_those_of_whole_observations(
    layout: str, n: int, members: int, num_envs: int, prioritized: bool, zeros: bool
) -> None:
    """Across ends, cuts, lost lives, the rings' heads, abandoned episodes, and what a checkpoint holds."""
    play, rng = Play(layout, members * num_envs, zeros), np.random.default_rng(1)
    args = play.spec, n, members, num_envs, prioritized
    once, whole = Kept(*args, once=True), Kept(*args, once=False)
    for step in range(150):
        transition, over = play.step()
        once.add(transition, over), whole.add(transition, over)
        if rng.random() < 0.05:
            abandoned = rng.random(members * num_envs) < 0.5
            once.forget(abandoned), whole.forget(abandoned)
            for lane in np.flatnonzero(abandoned):
                play.stacks[lane] = play.first()
        if rng.random() < 0.05:
            fresh = Kept(*args, once=True)
            for member in range(members):
                envs = slice(member * num_envs, (member + 1) * num_envs)
                fresh.load(once.state(member, envs), member, envs)
            once = fresh
        if step > 10:
            draws = rng.random((2, members, 6) if members > 1 else (2, 6))
            for found, expected in zip(once.sample(draws), whole.sample(draws), strict=True):
                assert torch.equal(found, expected)
    frames = once.frames
    assert frames is not None and frames._written.min() > frames.capacity, "the ring has come round"


def test_a_checkpoint_with_whole_observations_goes_on() -> None:
    play = Play("grey", 2, zeros=True)
    once, whole = (Kept(play.spec, 3, 1, 2, False, once) for once in (True, False))
    for _ in range(40):
        whole.add(*play.step())
    replay, window = whole.state(0, slice(None))
    assert once.frames is not None
    replay, window = once.frames.adopt(replay, window)
    once.replay.load_state_dict(replay), once.window.load_state_dict(window)
    for _ in range(40):
        step = play.step()
        once.add(*step), whole.add(*step)
        draws = play.rng.random((1, 8))
        assert all(map(torch.equal, once.sample(draws), whole.sample(draws)))


def test_a_million_transitions_of_atari_take_seven_and_a_half_gigabytes() -> None:
    """Counted on a thousandth of them: all that a replay allocates, with the frames of the sizes it has."""
    context = WrapperContext("id", 1, 1, None, frozen=False)
    bare = ObservationSpec("box", (84, 84), "uint8")
    spec = make_wrappers([FrameStackConfig("frame_stack")], bare, context).spec
    assert spec.stack == Stack(4, (84, 84), 0)
    kept = spec.stack.kept(spec, 1_000_000)
    small = replace(spec, stack=Stack(4, (84, 84), 0))
    frames = Frames(small, 1000, 1, 1, CPU)
    replay = UniformReplay(1000, small, DISCRETE, CPU, frames=frames)
    per_frame, per_row = frames.nbytes / frames.capacity, (replay.nbytes - frames.nbytes) / 1000
    assert kept * per_frame + 1_000_000 * per_row < 7.5e9


def test_the_estimate_is_what_is_allocated() -> None:
    spec = replace(spec_of("grey"), shape=(4, 84, 84), stack=Stack(4, (84, 84), 0))
    config = dqn_config(buffer_size=2000)
    frames = Frames(spec, 2000, 1, 1, CPU)
    replay = UniformReplay(2000, spec, DISCRETE, CPU, frames=frames)
    assert card_of(config).experience_bytes(config, 1, spec, DISCRETE) == pytest.approx(replay.nbytes, rel=0.01)


def test_an_agent_learns_the_same_and_goes_on_from_its_checkpoint() -> None:
    """On stacks of frames that are kept once, and on the same observations kept whole."""
    play = Play("grey", 2, idle=0.0)
    config = run_config(dqn_config(n_step=2, buffer_size=40, learning_starts=20), num_envs=2)
    once, whole = make_agent(config, play.spec), make_agent(config, replace(play.spec, stack=None))

    def go_on(agents: list[Agent], steps: int) -> None:
        for _ in range(steps):
            obs = play.shown()
            actions = [agent.act(obs) for agent in agents]
            step, over = play.step()
            for agent, action in zip(agents, actions, strict=True):
                agent.observe(replace(step, action=action), [Episode(env, 0, 0.0, 1) for env in over])
                agent.update()

    go_on([once, whole], 50)
    resumed = make_agent(config, play.spec)
    resumed.load_state_dict(once.state_dict())
    earlier = make_agent(config, play.spec)
    earlier.load_state_dict(whole.state_dict())
    agents = [once, whole, resumed, earlier]
    go_on(agents, 20)
    assert once.state_dict()["state"]["gradient_steps"] > 50
    for agent in agents[1:]:
        assert all(map(torch.equal, network_of(once).values(), network_of(agent).values()))
    assert_same_state(once, resumed)


def test_small_frames_are_kept_whole() -> None:
    context = WrapperContext("id", 1, 1, None, frozen=False)
    small = make_wrappers([FrameStackConfig("frame_stack")], ObservationSpec("box", (4,), "float32"), context).spec
    assert small.stack is None


def test_episodes_that_are_too_short_for_the_frames_fail_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rltrain.types._LARGE", 0)
    play = Play("grey", 1, idle=0.0)
    kept = Kept(play.spec, 1, 1, 1, False, once=True)

    def play_on() -> None:
        for _ in range(200):
            step, _ = play.step()
            kept.add(step, [0])
            play.stacks[0] = play.first()

    with pytest.raises(RunFailed, match=r"algo\.buffer_size=23: the replay has no room for another frame"):
        play_on()


def test_numbers_of_no_frame_are_refused() -> None:
    play = Play("grey", 1)
    kept, other = (Kept(play.spec, 1, 1, 1, False, once=True) for _ in range(2))
    for _ in range(9):
        kept.add(*play.step())
    states = kept.state(0, slice(None))
    states[0]["obs"][0, 0] = 10_000
    with pytest.raises(ValueError, match=r"frames are numbered 0\.\."):
        other.load(states, 0, slice(None))
    states[2]["data"] = states[2]["data"][1:]
    with pytest.raises(ValueError, match="frames are"):
        other.load(states, 0, slice(None))


def test_the_last_row_that_has_a_frame_counts() -> None:
    """Row 5 has the frames 0, 1, 2 and their successor 3; row 6 has 1, 2, 3 and 4."""
    frames = Frames(spec_of("grey"), CAPACITY, 1, 1, CPU)
    obs, members = np.array([[0, 1, 2], [1, 2, 3]]), np.zeros(2, np.int64)
    frames.kept_in(members, np.array([5, 6]), obs, obs + 1)
    assert frames._last_row[0, :5].tolist() == [5, 6, 6, 6, 6]
