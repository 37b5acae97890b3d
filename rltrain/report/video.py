"""One greedy episode as a moving picture."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rltrain.envs.make import find_environment
from rltrain.errors import RequestError, missing_extra, one_line
from rltrain.policy import TrainedPolicy
from rltrain.seeding import derive_seed
from rltrain.training.evaluator import REPORT_KEY

_MOST_FRAMES = 1_000
_FRAME_MILLISECONDS = 33


def record_episode(policy: TrainedPolicy, folder: Path, seed: int) -> Path:
    """Plays the first episode of a reported evaluation and writes `evaluation.gif` into `folder`.

    Raises:
        RequestError: the environment cannot draw itself.
    """
    from PIL import Image

    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame else complains of a machine without a screen
    config = policy.config.env
    env = find_environment(replace(config, kwargs={**config.kwargs, "render_mode": "rgb_array"}))()
    policy.reset()
    try:
        obs, _ = env.reset(seed=derive_seed(seed, "evaluation", REPORT_KEY, 0))
        frames: list[Image.Image] = []
        ended = False
        while not ended and len(frames) < _MOST_FRAMES:
            frames.append(Image.fromarray(_frame(env, config.id)).quantize(64))
            obs, _, terminated, truncated, _ = env.step(policy.act(obs))
            ended = bool(terminated or truncated)
    finally:
        env.close()
    path = folder / "evaluation.gif"
    path.unlink(missing_ok=True)  # a link would be followed
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=_FRAME_MILLISECONDS, loop=0)
    return path


def _frame(env: Any, id: str) -> np.ndarray:
    try:
        frame = env.render()
    except Exception as error:
        raise RequestError(f"video=true: {id} draws no frames: {missing_extra(error) or one_line(error)}") from error
    if not isinstance(frame, np.ndarray):
        raise RequestError(f"video=true: {id} draws no frames")
    return frame
