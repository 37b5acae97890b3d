"""The means of a log period."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from rltrain.errors import RunFailed
from rltrain.training.recorder import Recorder
from rltrain.types import Episode

CPU = torch.device("cpu")
ALONE = np.ones(1, np.bool_)


def metrics(loss: float) -> dict[str, torch.Tensor]:
    return {"train/td_loss": torch.tensor(loss), "train/grad_norm": torch.tensor(10.0 * loss)}


def test_a_row_holds_means_since_the_last_one_and_nothing_of_which_nothing_came() -> None:
    recorder = Recorder(1, 2, CPU)
    assert recorder.flush(0, 0) == {}
    recorder.add(metrics(1.0), ALONE)
    recorder.add({}, ALONE)
    recorder.add_episodes([Episode(0, 0, 10.0, 4), Episode(1, 0, -3.0, 8)])
    recorder.add(metrics(4.0), ALONE)
    assert recorder.flush(0, 3) == {
        "train/td_loss": 2.5, "train/grad_norm": 25.0, "rollout/episode_return": 3.5, "rollout/episode_length": 6.0
    }  # fmt: skip
    assert recorder.flush(0, 4) == {}
    recorder.add({"train/td_loss": torch.tensor(7.0)}, ALONE)
    assert recorder.flush(0, 5) == {"train/td_loss": 7.0}, "no tag of which nothing came"


def test_each_member_has_its_own_sums_and_rows() -> None:
    recorder, both = Recorder(2, 3, CPU), np.ones(2, np.bool_)
    recorder.add({"train/td_loss": torch.tensor([1.0, 10.0])}, both)
    recorder.add_episodes([Episode(2, 0, 5.0, 1), Episode(3, 0, 7.0, 2)])
    assert recorder.flush(0, 1) == {
        "train/td_loss": 1.0, "rollout/episode_return": 5.0, "rollout/episode_length": 1.0
    }  # fmt: skip
    recorder.add({"train/td_loss": torch.tensor([7.0, 20.0])}, both)
    assert recorder.flush(0, 2) == {"train/td_loss": 7.0}, "since its own last row"
    recorder.add({"train/td_loss": torch.tensor([3.0, 30.0])}, np.array([False, True]))  # the first has ended
    assert recorder.flush(0, 3) == {}
    assert recorder.flush(1, 3) == {
        "train/td_loss": 20.0, "rollout/episode_return": 7.0, "rollout/episode_length": 2.0
    }  # fmt: skip


def test_a_block_is_the_sum_of_its_updates_one_by_one() -> None:
    values = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    block, steps, both = Recorder(2, 1, CPU), Recorder(2, 1, CPU), np.ones(2, np.bool_)
    for part in (values[:1], values[1:40], values[40:]):
        assert block.add_block({"train/td_loss": part}, len(part), both) == {}
    for row in values:
        steps.add({"train/td_loss": torch.from_numpy(row)}, both)
    for member in range(2):
        assert block.state_dict(member) == steps.state_dict(member)
        assert block.flush(member, 1) == steps.flush(member, 1)


def test_the_first_update_that_is_not_finite_is_named() -> None:
    recorder, both = Recorder(2, 1, CPU), np.ones(2, np.bool_)
    values = np.ones((6, 2), np.float32)
    values[3:, 1] = np.nan
    grad_norm = values.copy()
    grad_norm[2:, 1] = np.inf
    blocks = {"train/td_loss": values, "train/grad_norm": grad_norm}
    assert recorder.add_block(blocks, 6, both) == {1: 2}
    recorder.check(0, 6)
    assert recorder.add_block(blocks, 6, np.array([True, False])) == {}, "who has failed is not asked again"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_on_the_cpu_a_number_that_is_not_finite_is_known_before_the_next_update(value: float) -> None:
    recorder = Recorder(1, 1, CPU, ("a", "b=1"))
    assert recorder.add(metrics(1.0), ALONE) == {}
    broken = {"train/td_loss": torch.tensor(1.0), "train/grad_norm": torch.tensor(value)}
    assert recorder.add(broken, ALONE) == {0: 0}
    with pytest.raises(RunFailed, match=rf"train/grad_norm is {value} at environment step 7; try a or b=1$"):
        recorder.check(0, 7)


@pytest.mark.parametrize("values", [[float("nan")], [float("inf"), 1.0], [float("inf"), -float("inf")]])
def test_on_a_device_it_is_found_at_the_end_of_the_period(values: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(1, 1, torch.device("meta"))  # only its kind is looked at
    monkeypatch.setattr(recorder, "_zeros", torch.zeros(1))
    for value in values:
        assert recorder.add({"train/td_loss": torch.tensor(value)}, ALONE) == {}
    for look in (recorder.check, recorder.flush):
        with pytest.raises(RunFailed, match=r"train/td_loss is .* at environment step 9"):
            look(0, 9)


def test_a_loaded_recorder_continues_bit_for_bit(device: torch.device) -> None:
    recorder, loaded = Recorder(1, 1, device), Recorder(1, 1, device)
    for step in range(5):
        recorder.add({"train/td_loss": torch.tensor(0.1 * step, device=device)}, ALONE)
        recorder.add_episodes([Episode(0, step, 1.0, 2)])
    loaded.add({tag: value.to(device) for tag, value in metrics(500.0).items()}, ALONE)
    loaded.load_state_dict(json.loads(json.dumps(recorder.state_dict(0))), 0)
    rows = []
    for each in (recorder, loaded):
        each.add({"train/td_loss": torch.tensor(1.0 / 3.0, device=device)}, ALONE)
        each.add_episodes([Episode(0, 9, 7.0, 3)])
        rows.append(each.flush(0, 6))
    assert rows[0] == rows[1]
    assert rows[0]["rollout/episode_return"] == 2.0
