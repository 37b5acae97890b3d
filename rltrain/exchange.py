"""Arrays that the host writes or reads, and that the device computes with."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, pairwise
from math import prod

import numpy as np
import torch

Fields = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""name -> (shape, dtype)"""
_ALIGNMENT = 64  # bytes


class Exchange:
    """Arrays in two places: `on_device`, tensors whose memory stays, and the host's side, NumPy arrays.

    On the CPU both are one memory, and nothing is copied. Elsewhere all fields lie in one buffer, so that each way is
    one transfer; the host's side is pinned, so that sending does not wait.

    Attributes:
        on_device: the tensors, by name; zero at first.
    """

    def __init__(self, fields: Fields, device: torch.device) -> None:
        self._bytes: np.ndarray | None = None
        self._sent: torch.cuda.Event | None = None
        if self.is_shared(device):
            self._host = {name: np.zeros(shape, _in_numpy(dtype)) for name, (shape, dtype) in fields.items()}
            self.on_device = {name: torch.from_numpy(array) for name, array in self._host.items()}
            return
        sizes = [prod(shape) * dtype.itemsize for shape, dtype in fields.values()]
        ends = list(accumulate((-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes), initial=0))
        self._packed = torch.zeros(ends[-1], dtype=torch.uint8, device=device)
        self._bytes = np.zeros(ends[-1], np.uint8)
        self._staging = torch.from_numpy(self._bytes)
        if device.type == "cuda":
            self._staging = self._staging.pin_memory()
            self._bytes = self._staging.numpy()
            self._sent = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.on_device, self._host = {}, {}
        for (name, (shape, dtype)), size, (start, _) in zip(fields.items(), sizes, pairwise(ends), strict=True):
            self.on_device[name] = self._packed[start : start + size].view(dtype).view(shape)
            self._host[name] = self._bytes[start : start + size].view(_in_numpy(dtype)).reshape(shape)

    @staticmethod
    def is_shared(device: torch.device) -> bool:
        """Whether both sides are one memory there."""
        return device.type == "cpu"

    @property
    def host(self) -> dict[str, np.ndarray]:
        """The arrays, by name, once the last transfer has left them."""
        if self._sent is not None:
            self._sent.synchronize()
        return self._host

    def send(self) -> None:
        """The device gets what the host's side holds, after all that it was asked to do before."""
        if self._bytes is None:
            return
        self._packed.copy_(self._staging, non_blocking=True)
        if self._sent is not None:
            self._sent.record()

    def fetch(self) -> dict[str, np.ndarray]:
        """The host's side with what the device holds once it has done all that it was asked to. Waits for it."""
        if self._sent is not None:
            self._staging.copy_(self._packed)
        elif self._bytes is not None:
            self._bytes[:] = self._packed.cpu().numpy()
        return self._host


def _in_numpy(dtype: torch.dtype) -> np.dtype:
    return np.dtype(str(dtype).removeprefix("torch."))
