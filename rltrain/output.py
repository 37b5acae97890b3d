"""Standard output and error of a process that may outlive its terminal, its pipe or the disk behind them."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

_warned: set[str] = set()


def warn(log: logging.Logger, message: str) -> None:
    """For the log, and once for whoever watches the terminal."""
    log.warning(message)
    if message in _warned:
        return
    _warned.add(message)
    line = f"warning   {message}"
    if (tqdm := sys.modules.get("tqdm")) is not None:  # a bar that is drawn makes room
        tqdm.tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr, flush=True)


class OutlivingStream:
    """A text stream whose first write that fails is its last: from then on it leads to /dev/null.

    Attributes:
        failure: why, or None.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        if self.failure is None:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        if self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.failure = error
        # What is still in the stream's buffer is written once more when the interpreter ends.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def outliving_output() -> Iterator[OutlivingStream]:
    """While active, sys.stdout (which is given) and sys.stderr never raise OSError, nor are they absent."""
    before = sys.stdout, sys.stderr
    out, err = (OutlivingStream(stream or _nowhere()) for stream in before)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def _nowhere() -> TextIO:
    # Of a closed descriptor 1 or 2, which the next file to be opened would have otherwise.
    return open(os.devnull, "w")
