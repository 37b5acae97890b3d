"""Standard output and error of a process that may outlive its terminal, its pipe or the disk behind them.

Standard output holds what rltrain says, through `say`, and nothing else: whatever environments, plug-ins and libraries
print, from Python or from C, goes to standard error.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

_warned: set[str] = set()
_answers: OutlivingStream | None = None
"""Where `say` goes while a command runs."""
_errors: OutlivingStream | None = None
"""Standard error while a command runs."""


def say(text: str) -> None:
    """Prints a line of rltrain's own on standard output, at once."""
    print(text, file=answers(), flush=True)


def answers() -> TextIO:
    """The stream of `say`: standard output as the command found it."""
    return sys.stdout if _answers is None else cast(TextIO, _answers)


def errors() -> TextIO:
    """Standard error as the command found it, for progress and warnings; environments may replace sys.stderr."""
    return sys.stderr if _errors is None else cast(TextIO, _errors)


def warn(log: logging.Logger, message: str) -> None:
    """Logs a message, and shows it once on the terminal."""
    if log.hasHandlers():  # where there is no log, Python would print it too
        log.warning(message)
    if message in _warned:
        return
    _warned.add(message)
    line = f"warning   {message}"
    if (tqdm := sys.modules.get("tqdm")) is not None:  # a bar that is drawn makes room
        tqdm.tqdm.write(line, file=errors())
    else:
        print(line, file=errors(), flush=True)


class OutlivingStream:
    """A text stream whose first write that fails is its last: from then on it leads to /dev/null. Letters that it
    cannot show are written as escapes. Closing it does nothing: other code writes to it too.

    Attributes:
        failure: why, or None.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Returns the number of characters, also where none could be written."""
        if self.failure is None:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._stream.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
            except (OSError, ValueError) as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        if self.failure is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._give_up(error)

    def close(self) -> None:
        self.flush()

    def _give_up(self, error: OSError | ValueError) -> None:
        closed = OSError(errno.EBADF, "it has been closed")  # by its own name, sys.__stderr__
        self.failure = error if isinstance(error, OSError) else closed
        # What is still in the stream's buffer is written once more when the interpreter ends.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def answers_file() -> int | None:
    """The descriptor of `answers`, for a process that says something in our place; None where it has none."""
    try:
        return answers().fileno()
    except (OSError, ValueError):
        return None


@contextmanager
def own_output(whole_process: bool = False) -> Iterator[OutlivingStream]:
    """While active, `say` writes to standard output (which is given), and all else to standard error: sys.stdout is
    sys.stderr. Neither ever raises OSError or UnicodeEncodeError, nor are they absent.

    Args:
        whole_process: the process is ours and ends soon after. Then descriptor 1 leads to standard error too, for C
            code and for processes that are started, and all stays so: what is printed while the interpreter ends is not
            rltrain's either.
    """
    global _answers, _errors
    _warned.clear()  # a second run, in a notebook, says it again
    before = sys.stdout, sys.stderr, _answers, _errors
    stdout, stderr = (stream or _nowhere() for stream in before[:2])
    out, err = OutlivingStream(_moved(stdout, stderr) if whole_process else stdout), OutlivingStream(stderr)
    _answers, _errors = out, err
    sys.stdout = sys.stderr = cast(TextIO, err)
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        if not whole_process:
            sys.stdout, sys.stderr, _answers, _errors = before


@contextmanager
def printing_answers() -> Iterator[None]:
    """While active, `print` writes to the stream of `say`: for code of others that prints what the user asked for."""
    before, sys.stdout = sys.stdout, answers()
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout = before


def _moved(stdout: TextIO, stderr: TextIO) -> TextIO:
    """A stream to what `stdout` leads to, by another descriptor; descriptor 1 leads to standard error from now on."""
    stdout.flush()
    moved = open(  # noqa: SIM115
        os.dup(stdout.fileno()), "w", encoding=stdout.encoding, errors=stdout.errors, buffering=_buffering(stdout)
    )
    os.dup2(stderr.fileno(), 1)
    return moved


def _buffering(stream: TextIO) -> int:
    return 1 if stream.isatty() else -1  # by lines on a terminal


def _nowhere() -> TextIO:
    # Of a closed descriptor 1 or 2, which the next file to be opened would have otherwise.
    return open(os.open(os.devnull, os.O_WRONLY), "w", closefd=False)
