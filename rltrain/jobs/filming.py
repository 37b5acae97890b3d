"""Films of a run that trains: greedy episodes of its network of the moment."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from rltrain.config.schema import RunConfig
from rltrain.errors import RequestError, RunFailed
from rltrain.loggers.logger import Logger
from rltrain.storage.checkpoint import Checkpoint
from rltrain.terminal.output import warn
from rltrain.terminal.shell import unusable

_log = logging.getLogger(__name__)


def check_filming(config: RunConfig) -> None:
    """Does nothing where no film is asked for.

    Raises:
        RequestError: the environment cannot draw itself.
    """
    if config.video.period is not None:
        from rltrain.policy.video import check_drawing

        check_drawing(config.env, _asked(config))


def film_episode(source: Checkpoint, path: Path, logger: Logger) -> None:
    """Films the first episode that `rltrain evaluate` would play with this network. A film that cannot be made is
    reported, and training goes on.

    Raises:
        RunFailed: a logger does not take it.
    """
    from rltrain.policy.load import TrainedPolicy
    from rltrain.policy.video import record_gif

    policy = TrainedPolicy(source, torch.device("cpu"))
    try:
        path.parent.mkdir(exist_ok=True)
        film = record_gif(policy, path, _asked(policy.config))
    except (RequestError, RunFailed) as error:
        warn(_log, str(error))
        return
    except OSError as error:
        warn(_log, unusable(path, error, "written"))
        return
    logger.video(source.step, film)


def _asked(config: RunConfig) -> str:
    return f"video.period={config.video.period}"
