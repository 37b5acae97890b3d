"""Prioritized replay against a naive one that looks at every row, under random operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_runs import CPU, DISCRETE, VECTOR

from rltrain.config.schema import PrioritizedConfig
from rltrain.experience import PrioritizedReplay
from rltrain.experience.in_place import StepOf
from rltrain.experience.n_step import NStepWindow
from rltrain.types import Transition

CONFIG = PrioritizedConfig(alpha=0.7, beta=0.4, beta_steps=10, eps=0.01)
CAPACITY, BATCH = 13, 6


class Naive:
    """One member: a list of priorities, cumulative sums, no tree."""

    def __init__(self) -> None:
        self.priority = np.zeros(CAPACITY)
        self.tags = np.zeros(CAPACITY, np.float32)  # what the reward of each row is
        self.written, self.largest, self.updates = 0, 1.0, 0

    def add(self, tags: np.ndarray) -> None:
        for tag in tags[-CAPACITY:]:
            self.priority[self.written % CAPACITY] = self.largest
            self.tags[self.written % CAPACITY] = tag
            self.written += 1

    def sample(self, uniform: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        share = self.priority / self.priority.sum()
        rows = np.searchsorted(share.cumsum(), uniform, side="right")
        beta = 0.4 + 0.6 * min(1.0, self.updates / 10)
        weight = (min(self.written, CAPACITY) * share[rows]) ** -beta
        self.updates += 1
        return rows, weight / weight.max()

    def learn_from(self, rows: np.ndarray, error: np.ndarray) -> None:
        for row, e in zip(rows, error, strict=True):
            self.priority[row] = (abs(e) + 0.01) ** 0.7
        self.largest = max(self.largest, *((np.abs(error) + 0.01) ** 0.7))


def columns(tags: np.ndarray) -> list[np.ndarray]:
    count = len(tags)
    obs = np.zeros((count, 3), np.float32)
    return [obs, np.zeros(count, np.int64), tags, obs, np.full(count, 0.9, np.float32)]


def make(members: int) -> PrioritizedReplay:
    return PrioritizedReplay(CONFIG, CAPACITY, VECTOR, DISCRETE, CPU, members)


def sample(replay: PrioritizedReplay, uniform: np.ndarray) -> tuple[Any, Any]:
    replay.send_counts()
    (found,) = replay.batches(replay.memory, torch.from_numpy(uniform)[None])
    return found


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_naive_one_under_random_operations(members: int, seed: int) -> None:
    """Among them rows that are overwritten, batches larger than the ring, and a resume."""
    generator = np.random.default_rng(seed)
    replay, naive = make(members), [Naive() for _ in range(members)]
    tag = 0
    for _ in range(60):
        count = int(generator.integers(1, 4)) if generator.random() < 0.9 else CAPACITY + 2
        tags = np.arange(tag, tag + members * count, dtype=np.float32)
        tag += members * count
        replay.add(*columns(tags), members=np.repeat(np.arange(members), count))
        for number, one in enumerate(naive):
            one.add(tags.reshape(members, count)[number])
        if generator.random() < 0.2:
            other = make(members)
            for number in range(members):
                other.load_state_dict({k: v.clone() for k, v in replay.state_dict(number).items()}, number)
            # What the parts of a tree sum to depends on where rows lie, which may be turned: the leaves do not.
            replay = other
        uniform = generator.random((members, BATCH))
        rows, batch = sample(replay, uniform if members > 1 else uniform[0])
        error = generator.normal(size=(members, BATCH))
        # A row that is drawn twice has one error.
        for number, one in enumerate(naive):
            expected_rows, expected_weight = one.sample(uniform[number])
            for row in np.unique(expected_rows):
                error[number, expected_rows == row] = error[number, np.flatnonzero(expected_rows == row)[0]]
            weight, reward = batch.weight.view(members, -1)[number], batch.reward.view(members, -1)[number]
            assert reward.tolist() == one.tags[expected_rows].tolist()
            np.testing.assert_allclose(weight.numpy(), expected_weight, rtol=1e-5)
            one.learn_from(expected_rows, error[number])
        replay.feedback(replay.memory, rows, {"error": torch.from_numpy(error if members > 1 else error[0])})
        tree = replay.memory.tree
        inner = torch.arange(1, tree.shape[1] // 2)
        assert torch.equal(tree[:, inner], tree[:, 2 * inner] + tree[:, 2 * inner + 1])


def test_rows_are_drawn_as_often_as_their_priority_says() -> None:
    replay = make(1)
    replay.add(*columns(np.arange(4, dtype=np.float32)))
    rows = torch.arange(4)[None]
    replay.feedback(replay.memory, rows, {"error": torch.tensor([0.0, 1.0, 2.0, 4.0])})
    share = (np.array([0.0, 1.0, 2.0, 4.0]) + 0.01) ** 0.7
    share /= share.sum()
    drawn, _ = sample(replay, np.random.default_rng(0).random(100_000))
    np.testing.assert_allclose(np.bincount(drawn.flatten().numpy(), minlength=4) / 100_000, share, atol=0.005)


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("n_step", [1, 3])
def test_a_step_in_a_program_stores_what_the_host_stores(members: int, n_step: int) -> None:
    generator, envs = np.random.default_rng(0), 2 * members
    replays = [PrioritizedReplay(CONFIG, CAPACITY, VECTOR, DISCRETE, CPU, members, spare_row=True) for _ in range(2)]
    windows = [NStepWindow(n_step, 0.9, envs, VECTOR, DISCRETE) for _ in range(2)]
    for step in range(40):
        obs, next_obs = generator.normal(size=(2, envs, 3)).astype(np.float32)
        reward = generator.normal(size=envs).astype(np.float32)
        action, ended = generator.integers(0, 3, envs), generator.random(envs) < 0.3
        active, cut = np.ones(envs, bool), np.zeros(envs, bool)
        transition = Transition(obs, action, reward, next_obs, ended, cut, active)
        for whose, of_rows in windows[0].push(transition):
            replays[0].add(*of_rows, members=whose // 2)
        tensors = (torch.from_numpy(x) for x in (obs, action, reward, next_obs, ended, ended, active))
        replays[1].store(replays[1].memory, windows[1].on_device(), StepOf(*tensors))
        if step % 5 == 4:  # priorities that differ
            error = torch.from_numpy(generator.normal(size=(members, 4)) * 3)
            for replay in replays:
                rows = torch.arange(4).expand(members, -1).contiguous()
                replay.feedback(replay.memory, rows, {"error": error})
    first, second = (replay.memory for replay in replays)
    assert torch.equal(first.tree, second.tree) and torch.equal(first.written, second.written)  # type: ignore[attr-defined]


def test_a_state_whose_priorities_do_not_fit_is_refused() -> None:
    replay = make(1)
    replay.add(*columns(np.arange(4, dtype=np.float32)))
    with pytest.raises(ValueError, match="4 rows has 3 priorities"):
        make(1).load_state_dict({**replay.state_dict(), "priority": torch.ones(3, dtype=torch.float64)})
