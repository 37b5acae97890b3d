"""A procedure on a GPU as one launch: CUDA graphs, by capture."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from rltrain.terminal.output import warn

_log = logging.getLogger(__name__)


class Graph:
    """`procedure()`, which works on memory that stays and waits for nothing.

    The first call runs it as it is: what its libraries set up once must not be captured. The second captures it; from
    then on a call is one launch, which reads and writes the same memory. Where capturing fails the procedure goes on
    running as it is, with one line in the log.
    """

    def __init__(self, procedure: Callable[[], None], device: torch.device) -> None:
        self._procedure = procedure
        self._device = device
        self._ready = False
        self._replay: Callable[[], None] | None = None

    @property
    def captured(self) -> bool:
        """Whether a call is one launch of a captured graph."""
        return self._replay is not None and self._replay != self._procedure

    def __call__(self) -> None:
        if self._replay is not None:
            self._replay()
        elif self._ready:
            self._replay = self._capture()
            self._replay()
        else:
            self._run_aside()
            self._ready = True

    def _run_aside(self) -> None:
        """Runs it on a stream of its own: on the default one memory would be kept for other uses than a capture's."""
        ours = torch.cuda.current_stream(self._device)
        theirs = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        theirs.wait_stream(ours)
        with torch.cuda.stream(theirs):
            self._procedure()
        ours.wait_stream(theirs)

    def _capture(self) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.device(self._device), torch.cuda.graph(graph):
                self._procedure()
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0][:200]
            warn(_log, f"capturing a CUDA graph failed, it runs without: {reason}")
            return self._procedure
        return graph.replay
