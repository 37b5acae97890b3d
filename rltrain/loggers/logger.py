"""The logger's interface, one that logs nowhere, and one that logs to several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class Logger(Protocol):
    """Takes named scalars, always against environment steps."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Record the scalars of one step."""

    def result(self, step: int, scalars: Mapping[str, float]) -> None:
        """Record the evaluation that ends the run, after its last step."""

    def video(self, step: int, path: Path) -> None:
        """Take in that a greedy episode was filmed: an animated GIF."""

    def flush(self) -> None:
        """Hand everything recorded to the operating system."""

    def close(self, completed: bool | None = None) -> None:
        """Release everything; of rltrain's own, more than once does no harm.

        Args:
            completed: True where the run reached its end, False where it failed, None where it may be resumed.
        """


class NullLogger:
    """Logs nowhere; a logger that does without one of these inherits it."""

    def __init__(
        self, folder: Path | None = None, resume_step: int | None = None, config: Mapping[str, Any] | None = None
    ) -> None:
        pass

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        pass

    def result(self, step: int, scalars: Mapping[str, float]) -> None:
        pass

    def video(self, step: int, path: Path) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self, completed: bool | None = None) -> None:
        pass


class MultiLogger:
    """Hands everything to several loggers, in their order."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self._loggers = list(loggers)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        for logger in self._loggers:
            logger.log(step, scalars)

    def result(self, step: int, scalars: Mapping[str, float]) -> None:
        for logger in self._loggers:
            logger.result(step, scalars)

    def video(self, step: int, path: Path) -> None:
        for logger in self._loggers:
            logger.video(step, path)

    def flush(self) -> None:
        for logger in self._loggers:
            logger.flush()

    def close(self, completed: bool | None = None) -> None:
        """Close all, also where one raises; the first error is raised at the end."""
        first: Exception | None = None
        for logger in self._loggers:
            try:
                logger.close(completed)
            except Exception as error:
                first = first or error
        if first is not None:
            raise first


class EvaluationDisplay(Protocol):
    """Shows how far an evaluation is: `begin`, `show` whenever it is `due`, `end`."""

    def begin(self, episodes: int) -> None:
        """An evaluation of `episodes` episodes begins."""

    def due(self) -> bool:
        """Whether it is time to show something; asked at every step."""
        ...

    def show(self, ended: int, steps: int, steps_left: float, guessed: bool) -> None:
        """Episodes that have ended, environment steps made and still to come: a guess, or the most there can be."""

    def end(self) -> None:
        """The evaluation is over."""


class NoDisplay:
    """Shows nothing."""

    def begin(self, episodes: int) -> None: ...

    def due(self) -> bool:
        return False

    def show(self, ended: int, steps: int, steps_left: float, guessed: bool) -> None: ...

    def end(self) -> None: ...
