"""Arrays that the host writes or reads, and that the device computes with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

Fields = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""name -> (shape, dtype)"""


class StagingBuffers:
    """Arrays in two places: `on_device`, tensors whose memory stays, and the host's side, NumPy arrays.

    On the CPU both are one memory, and nothing is copied. Elsewhere the host's side is pinned, so that sending does not
    wait. Each field has memory of its own: the compiler refuses a program that writes into views of one buffer with
    different types.

    Attributes:
        on_device: the tensors, by name; zero at first.
    """

    def __init__(self, fields: Fields, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self._host = {name: np.zeros(shape, _in_numpy(dtype)) for name, (shape, dtype) in fields.items()}
        here = {name: torch.from_numpy(array) for name, array in self._host.items()}
        if on_gpu:
            here = {name: tensor.pin_memory() for name, tensor in here.items()}
            self._host = {name: tensor.numpy() for name, tensor in here.items()}
        shared = self.is_shared(device)
        self.on_device = here if shared else {name: torch.zeros_like(here[name], device=device) for name in here}
        self._pairs = [] if shared else [(self.on_device[name], here[name]) for name in here]
        self._device = device
        self._moved = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]

    @staticmethod
    def is_shared(device: torch.device) -> bool:
        """Whether both sides are one memory there."""
        return device.type == "cpu"

    @property
    def host(self) -> dict[str, np.ndarray]:
        """The arrays, by name, once the last transfer has left them."""
        if self._moved is not None:
            self._moved.synchronize()
        return self._host

    def send(self) -> None:
        """Copies the host's side to the device, in the order of its stream, without waiting."""
        for there, here in self._pairs:
            there.copy_(here, non_blocking=True)
        self._note_moving()

    def fetch(self) -> dict[str, np.ndarray]:
        """The host's arrays, copied from the device in the order of its stream. Waits for it."""
        for there, here in self._pairs:
            here.copy_(there, non_blocking=True)
        self._note_moving()
        return self.host

    def _note_moving(self) -> None:
        if self._moved is not None:
            # The stream that transfers are on is that of the arrays' device, which need not be the current one.
            self._moved.record(torch.cuda.current_stream(self._device))


def _in_numpy(dtype: torch.dtype) -> np.dtype:
    return np.dtype(str(dtype).removeprefix("torch."))
