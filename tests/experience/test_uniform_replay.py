"""The ring against a list that keeps everything, and the mapping from draws to rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_runs import BOX, CPU, DISCRETE, IMAGES, VECTOR

from rltrain.experience import Batch, UniformReplay
from rltrain.seeding import RandomBlock, make_generator
from rltrain.types import ObservationSpec

SCALAR = ObservationSpec("box", (1,), "float32")


def numbered(first: int, count: int) -> tuple[np.ndarray, ...]:
    """Transitions first, first + 1, ...: each column tells the number, each in its own way."""
    n = np.arange(first, first + count)
    one = n[:, None].astype(np.float32)
    return one, n % 3, 10.0 * n.astype(np.float32), one + 0.5, 1.0 / (1.0 + n.astype(np.float32))


def sample(replay: UniformReplay, uniform: np.ndarray) -> Batch:
    """The batch of one gradient step with these draws [B], or [M, B]."""
    replay.send_counts()
    draws = torch.from_numpy(uniform).to(replay.written.device)
    ((_, batch),) = replay.batches(replay.memory, draws.unsqueeze(0))
    return batch


def contents(replay: UniformReplay, device: torch.device = CPU) -> list[int]:
    """The numbers of the stored transitions, row by row; every column must tell the same."""
    rows = sample(replay, (np.arange(replay.size) + 0.5) / replay.size)
    assert all(column.device == device for column in rows)
    numbers = rows.obs[:, 0].cpu().numpy().astype(np.int64)
    expected = [np.concatenate(columns) for columns in zip(*(numbered(int(n), 1) for n in numbers), strict=True)]
    for column, correct in zip(rows, expected, strict=True):
        assert np.array_equal(column.cpu().numpy(), correct)
    return numbers.tolist()


def small_replay(capacity: int = 5, device: torch.device = CPU) -> UniformReplay:
    return UniformReplay(capacity, SCALAR, DISCRETE, device)


@settings(max_examples=150, deadline=None)
@given(chunks=st.lists(st.integers(1, 7), min_size=1, max_size=8), capacity=st.integers(1, 6))
@example(chunks=[4, 4, 5], capacity=5)
@example(chunks=[1] * 13, capacity=5)
def test_it_holds_the_newest_transitions_each_at_its_place(chunks: list[int], capacity: int) -> None:
    replay = small_replay(capacity)
    pushed = 0
    for chunk in chunks:
        replay.add(*numbered(pushed, chunk))
        pushed += chunk
        newest = list(range(max(0, pushed - capacity), pushed))
        found = contents(replay)
        assert replay.size == len(found) == len(newest)
        assert sorted(found) == newest
        if max(chunks) <= capacity:  # then every transition lies where its number says
            assert found == sorted(newest, key=lambda n: n % capacity)


def test_thirteen_into_five_on_each_device(device: torch.device) -> None:
    replay = small_replay(5, device)
    for first, count in [(0, 3), (3, 4), (7, 1), (8, 5)]:
        replay.add(*numbered(first, count))
    assert contents(replay, device) == [10, 11, 12, 8, 9]


def test_a_draw_selects_the_row_whose_share_it_falls_in() -> None:
    replay = small_replay(5)
    replay.add(*numbered(0, 3))
    draws = np.array([0.0, 0.33, 0.34, 0.66, 0.67, np.nextafter(1.0, 0.0)])
    assert sample(replay, draws).obs[:, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_no_draw_below_one_reaches_past_the_newest_row() -> None:
    largest = np.nextafter(1.0, 0.0)
    sizes = np.concatenate([np.arange(1, 5000), 2 ** np.arange(13, 27), 2 ** np.arange(13, 27) + 1])
    assert np.array_equal((largest * sizes).astype(np.int64), sizes - 1)


def test_rows_are_drawn_uniformly_and_independently() -> None:
    replay, draws = small_replay(5), RandomBlock(make_generator(0, "replay"), block_size=1000)
    replay.add(*numbered(0, 5))
    rows = np.concatenate([sample(replay, draws.take(32)).obs[:, 0].numpy().astype(np.int64) for _ in range(1250)])
    counts = np.bincount(rows, minlength=5)
    assert ((counts - 8000) ** 2 / 8000).sum() < 18.5  # chi-square with 4 degrees of freedom, p = 0.001
    pairs = np.bincount(5 * rows[:-1] + rows[1:], minlength=25)
    assert ((pairs - 1600) ** 2 / 1600).sum() < 51.2  # 24 degrees, p = 0.001


def test_what_is_added_is_copied() -> None:
    replay, columns = small_replay(), numbered(0, 3)
    replay.add(*columns)
    for column in columns:
        column[...] = 7
    assert contents(replay) == [0, 1, 2]


def test_a_batch_is_a_copy() -> None:
    replay = small_replay()
    replay.add(*numbered(0, 5))
    batch = sample(replay, np.zeros(2))
    replay.add(*numbered(5, 5))
    assert batch.obs.tolist() == [[0.0], [0.0]]


def test_images_keep_their_bytes_and_actions_their_shape() -> None:
    replay = UniformReplay(1000, IMAGES, BOX, CPU)
    assert replay.nbytes == 1000 * (2 * 4 * 1 + 2 * 4 + 2 * 4)
    image = np.array([[[0, 127], [128, 255]]], np.uint8)
    replay.add(image, np.array([[0.5, -9.0]], np.float32), np.ones(1), image, np.ones(1))
    batch = sample(replay, np.zeros(1))
    assert batch.obs.dtype == torch.uint8
    assert batch.obs.tolist() == image.tolist()
    assert batch.action.tolist() == [[0.5, -9.0]]


@pytest.mark.parametrize("before", [0, 3, 5, 8])
def test_a_loaded_replay_continues_as_the_saved_one(before: int, device: torch.device) -> None:
    replay, loaded = small_replay(5, device), small_replay(5, device)
    for number in range(before):
        replay.add(*numbered(number, 1))
    loaded.add(*numbered(500, 4))  # what lay there is gone
    loaded.load_state_dict({name: tensor.cpu().clone() for name, tensor in replay.state_dict().items()})
    for ring in (replay, loaded):
        ring.add(*numbered(before, 4))
    assert contents(loaded, device) == contents(replay, device)
    assert {name: t.tolist() for name, t in loaded.state_dict().items()} == {
        name: t.tolist() for name, t in replay.state_dict().items()
    }


def test_a_state_that_does_not_fit_is_refused() -> None:
    full = small_replay(5)
    full.add(*numbered(0, 7))
    state = full.state_dict()
    for capacity in (4, 6):  # in a larger ring the oldest row would no longer be the next one to go
        with pytest.raises(ValueError, match=rf"replay of {capacity} cannot continue one of 5 rows"):
            small_replay(capacity).load_state_dict(state)
    other = UniformReplay(5, VECTOR, DISCRETE, CPU)
    with pytest.raises(ValueError, match=r"obs of shape \(5, 1\)"):  # copying would spread it over the row
        other.load_state_dict(state)
    assert other.size == 0
    for head in (-1, 5):
        with pytest.raises(ValueError, match=f"its head at {head}"):
            small_replay(5).load_state_dict({**state, "head": torch.tensor([head])})
