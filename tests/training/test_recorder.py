"""The means of a log period."""

from __future__ import annotations

import json

import pytest
import torch

from rltrain.errors import RunFailed
from rltrain.training.recorder import Recorder
from rltrain.types import Episode

CPU = torch.device("cpu")
ELSEWHERE = torch.device("meta")  # only its kind is looked at


def metrics(loss: float) -> dict[str, torch.Tensor]:
    return {"train/td_loss": torch.tensor(loss), "train/grad_norm": torch.tensor(10.0 * loss)}


def test_a_row_holds_means_since_the_last_one_and_nothing_of_which_nothing_came() -> None:
    recorder = Recorder(CPU)
    assert recorder.flush(0) == {}
    recorder.add(metrics(1.0), [], 1)
    recorder.add({}, [Episode(0, 0, 10.0, 4), Episode(1, 0, -3.0, 8)], 2)
    recorder.add(metrics(4.0), [], 3)
    assert recorder.flush(3) == {
        "train/td_loss": 2.5, "train/grad_norm": 25.0, "rollout/episode_return": 3.5, "rollout/episode_length": 6.0
    }  # fmt: skip
    assert recorder.flush(4) == {}
    recorder.add(metrics(7.0), [], 5)
    assert recorder.flush(5) == {"train/td_loss": 7.0, "train/grad_norm": 70.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_on_the_cpu_a_number_that_is_not_finite_stops_the_run_before_the_next_update(value: float) -> None:
    recorder = Recorder(CPU)
    recorder.add(metrics(1.0), [], 1)
    with pytest.raises(RunFailed, match=rf"train/grad_norm is {value} at environment step 7; try a smaller"):
        recorder.add({"train/td_loss": torch.tensor(1.0), "train/grad_norm": torch.tensor(value)}, [], 7)


@pytest.mark.parametrize("values", [[float("nan")], [float("inf"), 1.0], [float("inf"), -float("inf")]])
def test_on_a_device_it_is_found_at_the_end_of_the_period(values: list[float]) -> None:
    recorder = Recorder(ELSEWHERE)
    for step, value in enumerate(values):
        recorder.add({"train/td_loss": torch.tensor(value)}, [], step)
    for look in (recorder.check, recorder.flush):
        with pytest.raises(RunFailed, match=r"train/td_loss is .* at environment step 9"):
            look(9)


def test_a_loaded_recorder_continues_bit_for_bit(device: torch.device) -> None:
    recorder, loaded = Recorder(device), Recorder(device)
    for step in range(5):
        recorder.add({"train/td_loss": torch.tensor(0.1 * step, device=device)}, [Episode(0, step, 1.0, 2)], step)
    loaded.add(metrics(500.0), [], 0)
    loaded.load_state_dict(json.loads(json.dumps(recorder.state_dict())))
    rows = []
    for each in (recorder, loaded):
        each.add({"train/td_loss": torch.tensor(1.0 / 3.0, device=device)}, [Episode(0, 9, 7.0, 3)], 6)
        rows.append(each.flush(6))
    assert rows[0] == rows[1]
    assert rows[0]["rollout/episode_return"] == 2.0
