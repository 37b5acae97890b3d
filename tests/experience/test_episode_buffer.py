"""Whole episodes against plain lists: exactly K, each environment its share, padding that holds nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import BOX, CPU, DISCRETE, VECTOR, ScriptedEnvs

from rltrain.experience.episodes import EpisodeBatch, EpisodeBuffer
from rltrain.types import ObservationSpec, Transition

OBSERVATION = ObservationSpec("box", (1,), "float32")
Step = tuple[float, int, float]


class LengthEnvs:
    """Environment i plays episodes of the given lengths in turn; obs = 100 episode + step, reward = step + 1, even
    episodes are cut. next_obs of a last step is -episode."""

    def __init__(self, lengths: list[list[int]]) -> None:
        self._lengths = lengths
        self._episode = np.zeros(len(lengths), np.int64)
        self._t = np.zeros(len(lengths), np.int64)

    def step(self, active: np.ndarray) -> Transition:
        length = np.array([own[e % len(own)] for own, e in zip(self._lengths, self._episode, strict=True)])
        obs = (100.0 * self._episode + self._t)[:, None].astype(np.float32)
        ended = self._t + 1 == length
        next_obs = np.where(ended[:, None], -self._episode[:, None], obs + 1.0).astype(np.float32)
        reward = np.where(active, self._t + 1.0, np.nan).astype(np.float32)  # nothing of an idle row may be used
        even = self._episode % 2 == 0
        done = Transition(obs, self._t % 3, reward, next_obs, ended & ~even, ended & even, active)
        self._t = np.where(active, np.where(ended, 0, self._t + 1), self._t)
        self._episode += active & ended
        return done


def take(buffer: EpisodeBuffer, device: torch.device = CPU) -> EpisodeBatch:
    """The episodes as an update sees them."""
    memory = buffer.room(buffer.padded_length(slice(1)), 1, device)
    buffer.copy(memory, slice(1))
    buffer.clear()
    ((_, batch),) = buffer.batches(memory, torch.empty(1, 0))
    return batch


def fill(buffer: EpisodeBuffer, envs: LengthEnvs, limit: int = 10_000) -> int:
    """Steps until the buffer is full; returns the environment steps."""
    taken = 0
    for _ in range(limit):
        if buffer.full:
            break
        active = buffer.active.copy()
        buffer.add(envs.step(active))
        taken += int(active.sum())
    return taken


def check_episode(batch: EpisodeBatch, row: int, episode: int, length: int) -> None:
    t = np.arange(length)
    assert batch.obs[row, :length, 0].tolist() == (100.0 * episode + t).tolist()
    assert batch.action[row, :length].tolist() == (t % 3).tolist()
    assert batch.reward[row].tolist() == [*(t + 1.0), *[0.0] * (batch.reward.shape[1] - length)]
    assert batch.mask[row].tolist() == [1.0] * length + [0.0] * (batch.mask.shape[1] - length)
    assert torch.nonzero(batch.last[row]).tolist() == [[length - 1]]
    assert batch.final_obs[row].tolist() == [-episode]
    assert batch.truncated[row].item() == float(episode % 2 == 0)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=3),
    share=st.integers(1, 3),
    rounds=st.integers(1, 3),
)
def test_each_environment_plays_exactly_its_share(lengths: list[list[int]], share: int, rounds: int) -> None:
    num_envs = len(lengths)
    buffer, envs = EpisodeBuffer(share * num_envs, num_envs, OBSERVATION, DISCRETE), LengthEnvs(lengths)
    for update in range(rounds):
        steps = fill(buffer, envs)
        batch = take(buffer)
        assert not buffer.full
        assert buffer.active.all()
        played = [
            (env * share + k, update * share + k, own[(update * share + k) % len(own)])
            for env, own in enumerate(lengths)
            for k in range(share)
        ]
        longest = max(length for _, _, length in played)
        assert steps == sum(length for _, _, length in played) == int(batch.mask.sum())
        assert batch.reward.shape == (share * num_envs, 1 << (longest - 1).bit_length())
        for row, episode, length in played:
            check_episode(batch, row, episode, length)


def test_who_is_done_idles_and_short_episodes_are_not_favoured() -> None:
    buffer, envs = EpisodeBuffer(4, 2, OBSERVATION, DISCRETE), LengthEnvs([[1], [20]])
    idle = 0
    while not buffer.full:
        active = buffer.active.copy()
        idle += int((~active).sum())
        buffer.add(envs.step(active))
    assert idle == 38
    assert take(buffer).mask.sum(1).tolist() == [1.0, 1.0, 20.0, 20.0]


def test_it_grows_with_the_longest_episode() -> None:
    buffer = EpisodeBuffer(2, 1, OBSERVATION, DISCRETE)
    before = buffer.nbytes
    envs = LengthEnvs([[50, 150]])
    fill(buffer, envs)
    batch = take(buffer)
    assert batch.reward.shape == (2, 256)
    assert buffer.nbytes == 4 * before
    check_episode(batch, 0, 0, 50)
    check_episode(batch, 1, 1, 150)


def test_an_end_of_the_mdp_wins_over_a_cut_of_the_same_step() -> None:
    buffer = EpisodeBuffer(1, 1, OBSERVATION, DISCRETE)
    one = np.ones((1, 1), np.float32)
    yes = np.array([True])
    buffer.add(Transition(one, np.array([0]), np.ones(1, np.float32), one, yes, yes, yes))
    assert take(buffer).truncated.tolist() == [0.0]


def test_what_was_taken_is_not_written_again(device: torch.device) -> None:
    buffer, envs = EpisodeBuffer(1, 1, OBSERVATION, DISCRETE), LengthEnvs([[4]])
    fill(buffer, envs)
    batch = take(buffer, device)
    assert all(column.device == device for column in batch)
    copies = [column.clone() for column in batch]
    fill(buffer, envs)
    assert all(torch.equal(a, b) for a, b in zip(batch, copies, strict=True))


def test_abandoned_episodes_begin_anew_and_idle_ones_stay() -> None:
    buffer, envs = EpisodeBuffer(2, 2, OBSERVATION, DISCRETE), LengthEnvs([[1], [5]])
    for _ in range(3):
        buffer.add(envs.step(buffer.active.copy()))
    buffer.forget(np.array([True, True]))
    fresh = LengthEnvs([[1], [2]])
    fill(buffer, fresh)
    batch = take(buffer)
    check_episode(batch, 0, 0, 1)
    check_episode(batch, 1, 0, 2)


@pytest.mark.parametrize("saved_at", [0, 1, 5, 30, 80])
def test_a_loaded_buffer_continues_as_the_saved_one(saved_at: int) -> None:
    def play(steps: int, load_at: int | None) -> EpisodeBatch:
        buffer, envs = EpisodeBuffer(6, 3, VECTOR, BOX), ScriptedEnvs(3)
        taken = None
        for k in range(steps):
            if k == load_at:
                state = {name: tensor.clone() for name, tensor in buffer.state_dict().items()}
                buffer = EpisodeBuffer(6, 3, VECTOR, BOX)
                buffer.load_state_dict(state)
            action = np.random.default_rng(k).normal(size=(3, 2)).astype(np.float32)
            buffer.add(envs.step(action, buffer.active.copy())[0])
            if buffer.full:
                taken = take(buffer)
        assert taken is not None
        return taken

    for a, b in zip(play(100, None), play(100, saved_at), strict=True):
        assert torch.equal(a, b)


def test_who_plays_and_what_is_full_follow_what_a_program_and_a_checkpoint_write() -> None:
    """Both are kept between the questions of two vector steps."""
    stepped, loaded = (EpisodeBuffer(2, 2, OBSERVATION, DISCRETE) for _ in range(2))
    for buffer in (stepped, loaded):
        assert buffer.active.tolist() == [True, True] and buffer.full.tolist() == [False]
    stepped.memory.finished.fill_(1)
    stepped.fetch()
    loaded.load_state_dict(stepped.state_dict())
    for buffer in (stepped, loaded):
        assert buffer.active.tolist() == [False, False] and buffer.full.tolist() == [True]
        buffer.clear()
        assert buffer.active.tolist() == [True, True] and buffer.full.tolist() == [False]
