"""One greedy episode as a moving picture."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rltrain.config.schema import EnvConfig
from rltrain.envs.make import find_environment
from rltrain.errors import RequestError, RunFailed, missing_extra, one_line
from rltrain.policy.frames import NoFrame, on_canvas, pictures_of, same_size, with_palette
from rltrain.policy.load import TrainedPolicy
from rltrain.seeding import derive_seed
from rltrain.training.evaluator import REPORT_KEY

_MOST_FRAMES_GIF, _MOST_FRAMES_MP4 = 1_000, 20_000  # a GIF is held in memory, with all its pictures
_DEFAULT_FPS = 30.0
_FASTEST_MILLISECONDS = 20  # browsers slow down what is faster


def check_drawing(config: EnvConfig, asked: str) -> None:
    """Draws the beginning of an episode and throws it away.

    Args:
        asked: the words that asked for a film.

    Raises:
        RequestError: the environment cannot draw itself.
    """
    with _film(config, asked) as film:
        film.reset(0)
        if not film.draw():  # some have drawn nothing before the first step
            film.step_at_random()
            if not film.draw():
                raise film.refusal("render() gives no frames")


def record_episode(policy: TrainedPolicy, folder: Path, seed: int) -> Path:
    """Plays the first episode of a reported evaluation and writes it into `folder`: `evaluation.mp4` where the extra
    `video` is installed, else `evaluation.gif`.

    Raises:
        RequestError: the environment cannot draw itself.
        RunFailed: it failed.
        OSError: the file cannot be written.
    """
    with _film(policy.config.env, "video=true") as film:
        if importlib.util.find_spec("imageio_ffmpeg") is None:
            return _write_gif(folder / "evaluation.gif", film, policy, seed)
        return _write_mp4(folder / "evaluation.mp4", film, policy, seed)


def record_gif(policy: TrainedPolicy, path: Path, asked: str) -> Path:
    """Plays the first episode of a reported evaluation and writes it to `path`; raises as `record_episode`."""
    with _film(policy.config.env, asked) as film:
        return _write_gif(path, film, policy, policy.config.seed)


def _write_gif(path: Path, film: _Film, policy: TrainedPolicy, seed: int) -> Path:
    pictures = [with_palette(picture) for picture in islice(film.episode(policy, seed), _MOST_FRAMES_GIF)]
    first, *others = same_size(pictures)
    path.unlink(missing_ok=True)  # a link would be followed
    first.save(path, save_all=True, append_images=others, duration=film.frame_milliseconds, loop=0)
    return path


def _write_mp4(path: Path, film: _Film, policy: TrainedPolicy, seed: int) -> Path:
    """H.264 as browsers play it, written while the episode is played."""
    from imageio_ffmpeg import write_frames

    pictures = film.episode(policy, seed)
    first = next(pictures)
    size = first.width + first.width % 2, first.height + first.height % 2  # the codec halves the colours' resolution
    path.unlink(missing_ok=True)  # a link would be followed
    fps = 1000 / film.frame_milliseconds
    writer = write_frames(str(path), size, fps=fps, macro_block_size=2, ffmpeg_log_level="error")
    writer.send(None)
    try:
        for picture in chain([first], islice(pictures, _MOST_FRAMES_MP4 - 1)):
            writer.send(np.asarray(on_canvas(picture, size)))
    finally:
        writer.close()
    return path


class _Film:
    """An environment that draws itself."""

    def __init__(self, id: str, env: Any, asked: str) -> None:
        self._id, self._env, self._asked = id, env, asked

    def reset(self, seed: int) -> Any:
        """The first observation of the first episode of the evaluation of that seed."""
        obs, _ = self._carefully(lambda: self._env.reset(seed=derive_seed(seed, "evaluation", REPORT_KEY, 0)))
        return obs

    def step_at_random(self) -> None:
        space = self._env.action_space
        space.seed(0)
        self._carefully(lambda: self._env.step(space.sample()))

    def episode(self, policy: TrainedPolicy, seed: int) -> Iterator[Image.Image]:
        """RGB pictures of the first episode of the evaluation of that seed, one at least.

        Raises:
            RequestError: the environment draws none.
        """
        policy.reset()
        obs = self.reset(seed)
        drawn, ended = 0, False
        while not ended:
            for picture in self.draw():
                drawn += 1
                yield picture
            action = policy.act(obs)
            obs, _, terminated, truncated, _ = self._carefully(partial(self._env.step, action))
            ended = bool(terminated or truncated)
        if not drawn and not (pictures := self.draw()):
            raise self.refusal("render() gives no frames")
        elif not drawn:
            yield from pictures

    def draw(self) -> list[Image.Image]:
        """Pictures of the environment as it is now: one, several of one that renders lists, or none."""
        try:
            frames = self._env.render()
        except Exception as error:
            raise self.refusal(missing_extra(error) or one_line(error)) from error
        try:
            return pictures_of(frames)
        except NoFrame as error:
            raise self.refusal(str(error)) from None

    def refusal(self, why: str) -> RequestError:
        return RequestError(f"{self._asked}: {self._id} draws no pictures: {why}")

    @property
    def frame_milliseconds(self) -> int:
        """How long a picture is shown, by the environment's `render_fps`."""
        fps = (self._env.metadata or {}).get("render_fps")
        if not isinstance(fps, int | float) or not 0 < fps < float("inf"):
            fps = _DEFAULT_FPS
        return min(max(_FASTEST_MILLISECONDS, round(1000 / fps)), 10_000)

    def _carefully(self, call: Any) -> Any:
        try:
            return call()
        except (Exception, SystemExit) as error:
            raise RunFailed(f"{self._id}: failed while it was filmed: {one_line(error)}") from error


@contextmanager
def _film(config: EnvConfig, asked: str) -> Iterator[_Film]:
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame else complains of a machine without a screen
    # ale-py's vector environment draws nothing; its numbers are those of an environment stepped by itself.
    make = find_environment(replace(config, vectorization="sync", kwargs={**config.kwargs, "render_mode": "rgb_array"}))
    try:
        env = make()
    except RequestError as error:
        unknown = isinstance(error.__cause__, TypeError) and "render_mode" in str(error)
        why = f"{config.id} draws no pictures: it takes no render_mode" if unknown else str(error)
        raise RequestError(f"{asked}: {why}") from error
    try:
        yield _Film(config.id, env, asked)
    finally:
        env.close()
