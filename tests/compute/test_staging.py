"""What host and device write into one exchange, the other finds there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rltrain.compute.staging import StagingBuffers

FIELDS = {
    "flags": ((3,), torch.bool),
    "numbers": ((2, 3), torch.float64),
    "counts": ((1,), torch.int64),
    "small": ((5,), torch.float32),
}


def test_each_side_sees_what_the_other_wrote(device: torch.device) -> None:
    exchange = StagingBuffers(FIELDS, device)
    there = exchange.on_device
    for turn in range(3):
        host = exchange.host
        host["flags"][:] = [True, False, turn == 1]
        host["numbers"][:] = np.arange(6).reshape(2, 3) + turn
        host["counts"][:] = turn - 2**40
        exchange.send()
        assert there["flags"].tolist() == [True, False, turn == 1]
        assert there["numbers"].tolist() == (np.arange(6).reshape(2, 3) + turn).tolist()
        assert there["counts"].item() == turn - 2**40
        there["numbers"].mul_(2)
        there["small"].fill_(turn + 0.5)
        found = exchange.fetch()
        assert found["numbers"].tolist() == (2 * (np.arange(6).reshape(2, 3) + turn)).tolist()
        assert found["small"].tolist() == [turn + 0.5] * 5
        assert found["counts"].item() == turn - 2**40


def test_both_sides_are_one_memory_on_the_cpu() -> None:
    exchange = StagingBuffers(FIELDS, torch.device("cpu"))
    exchange.host["numbers"][1, 2] = 7.0
    assert exchange.on_device["numbers"][1, 2].item() == 7.0
    exchange.on_device["counts"].fill_(3)
    assert exchange.host["counts"].tolist() == [3]


def test_arrays_elsewhere_have_memory_of_their_own(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    """The compiler refuses a program that writes into views of one buffer with different types."""
    monkeypatch.setattr(StagingBuffers, "is_shared", staticmethod(lambda device: False))
    there = StagingBuffers(FIELDS, device).on_device
    assert len({tensor.untyped_storage().data_ptr() for tensor in there.values()}) == len(FIELDS)
