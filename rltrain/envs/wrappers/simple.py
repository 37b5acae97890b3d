"""Wrappers that learn nothing of the environment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rltrain.config.wrappers import (
    ClipObservationConfig,
    FrameStackConfig,
    RescaleObservationConfig,
    ScaleRewardConfig,
    TimeAwareConfig,
)
from rltrain.envs.flatten import MOST_NUMBERS
from rltrain.envs.wrappers.computed import Computed, Kept, cast
from rltrain.envs.wrappers.wrapper import Fixed, Wrapper, WrapperContext, one_line_shape, refuse
from rltrain.maths.images import image_of
from rltrain.types import FLOATS, ObservationSpec, Stack

_LARGE_FRAME = 1024  # bytes; a replay that keeps smaller ones once would save little, and take longer


class FrameStack(Wrapper):
    """The last `size` observations, the newest last; Mnih et al. (2015). The first of an episode fills the stack.

    Vectors and grey images lie along a new first axis: [size, *obs]. Images with channels follow each other along the
    channels. Discrete observations are stacked as one-hot vectors.
    """

    remembers = True

    def __init__(self, config: FrameStackConfig, spec: ObservationSpec, context: WrapperContext) -> None:
        self._discrete = spec.n
        inner = (spec.n,) if spec.n else spec.shape
        dtype = "float32" if spec.n else spec.dtype
        self._zeros = config.padding == "zero"
        if (numbers := math.prod((config.size, *inner))) > MOST_NUMBERS:
            raise refuse(
                "frame_stack", f"of size {config.size} makes {numbers:,} numbers; at most {MOST_NUMBERS:,} are taken"
            )
        self._frames = np.zeros((context.lanes, config.size, *inner), dtype)
        self._channels = image_of(spec).channel_axis if len(inner) == 3 else None
        large = self._frames[0, 0].nbytes >= _LARGE_FRAME
        stack = Stack(config.size, inner, self._channels or 0) if large else None
        axis = 0 if len(inner) == 2 else self._channels
        self.spec = ObservationSpec("box", self._stacked(self._frames).shape[1:], dtype, stack=stack, channel_axis=axis)

    def begin(self, obs: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        frames = self._frames.copy()  # the array that was given away stays as it is
        first = self._encoded(obs)[lanes]
        frames[lanes] = 0 if self._zeros else first[:, None]
        frames[lanes, -1] = first
        self._frames = frames
        return self._stacked(frames)

    def step(self, obs: np.ndarray, lanes: np.ndarray) -> np.ndarray:
        frames = np.concatenate([self._frames[:, 1:], self._encoded(obs)[:, None]], axis=1)
        if not lanes.all():
            frames[~lanes] = self._frames[~lanes]
        self._frames = frames
        return self._stacked(frames)

    def commuted(self, step: Fixed, raw: ObservationSpec) -> Fixed | None:
        kind, *arrays = step
        low, high = arrays
        if self._zeros and not (kind == "clip" and (low <= 0).all() and (high >= 0).all()):
            return None  # zeros that fill the stack are not changed by what comes before it
        size, *inner = self._frames.shape[1:]
        low, high = (self._stacked(np.broadcast_to(array, (1, size, *inner)))[0] for array in arrays)
        return kind, low, high

    def memory(self) -> dict[str, np.ndarray]:
        return {"frames": self._frames}

    def load(self, arrays: Mapping[str, np.ndarray], lengths: np.ndarray | None = None) -> None:
        if "frames" in arrays:
            self._frames = arrays["frames"].copy()

    def _encoded(self, obs: np.ndarray) -> np.ndarray:
        return _one_hot(obs, self._discrete) if self._discrete else obs

    def _stacked(self, frames: np.ndarray) -> np.ndarray:
        """frames [L, size, *obs] as they are, or with channels [L, size * C, H, W] or [L, H, W, size * C]."""
        if self._channels is None:
            return frames
        lanes, _, *shape = frames.shape
        shape[self._channels] = -1
        return np.moveaxis(frames, 1, self._channels + 1).reshape(lanes, *shape)


class TimeAware(Computed):
    """The share of the time limit that is left, from 1 to 0, as a last number. Pardo et al. (2018), "Time limits in
    reinforcement learning": with it a cut episode has ended for good reason."""

    remembers = True
    in_program = True

    def __init__(self, config: TimeAwareConfig, spec: ObservationSpec, context: WrapperContext) -> None:
        if context.time_limit is None:
            why = "needs a time limit, and the environment has none: env.max_episode_steps=N sets one"
            raise refuse("time_aware", why)
        if len(spec.shape) > 1:
            why = f"appends a number to a vector, and the observation is {one_line_shape(spec)}"
            raise refuse("time_aware", why)
        self._discrete, self._bytes = spec.n, spec.dtype == "uint8"
        self._limit = context.time_limit
        self._numbers = spec.n or (spec.shape[0] if spec.shape else 1)
        super().__init__(config, ObservationSpec("box", (self._numbers + 1,), _floats(spec)), context)
        self.kept = {"time": np.zeros(context.lanes, np.int64)}  # steps of the running episode

    def begun(self, xp: Any, kept: Kept, obs: Any, lanes: Any) -> tuple[Any, Kept]:
        return self._with_time(xp, obs, xp.where(lanes, 0, kept["time"]))

    def stepped(self, xp: Any, kept: Kept, obs: Any, lanes: Any) -> tuple[Any, Kept]:
        return self._with_time(xp, obs, kept["time"] + lanes)

    def commuted(self, step: Fixed, raw: ObservationSpec) -> Fixed | None:
        if raw.dtype == "uint8":
            return None  # it would divide what `step` takes as it is by 255
        kind, *arrays = step
        alone = (0.0, 1.0) if kind == "normalize" else (-np.inf, np.inf)  # what leaves the time as it is
        numbers = (self._numbers,)
        low, high = (
            np.append(np.broadcast_to(array, numbers), array.dtype.type(end))
            for array, end in zip(arrays, alone, strict=True)
        )
        return kind, low, high

    def load(self, arrays: Mapping[str, np.ndarray], lengths: np.ndarray | None = None) -> None:
        if lengths is not None:
            self.kept = {"time": lengths.astype(np.int64)}

    def _with_time(self, xp: Any, obs: Any, time: Any) -> tuple[Any, Kept]:
        left = cast(xp, self._limit - time, "float64") / self._limit  # [L]
        if self._discrete:
            obs = _one_hot(obs, self._discrete)
        elif self._bytes:
            obs = obs / np.float32(255)
        obs = cast(xp, obs.reshape(len(left), -1), self.spec.dtype)
        return xp.concatenate([obs, cast(xp, left[:, None], self.spec.dtype)], 1), {"time": time}


class ClipObservation(Computed):
    """Each number of the observation within [low, high]."""

    in_program = True

    def __init__(self, config: ClipObservationConfig, spec: ObservationSpec, context: WrapperContext) -> None:
        if spec.dtype not in FLOATS:
            why = f"has nothing to clip: the observation is {one_line_shape(spec)}"
            raise refuse("clip_observation", why)
        low, high = (np.full(spec.shape, end) for end in (config.low, config.high))
        if spec.low is not None and spec.high is not None:
            low, high = np.clip(spec.low, low, high), np.clip(spec.high, low, high)
        super().__init__(config, replace(spec, low=low, high=high), context)
        self._low, self._high = (np.dtype(spec.dtype).type(end) for end in (config.low, config.high))

    def begun(self, xp: Any, kept: Kept, obs: Any, lanes: Any) -> tuple[Any, Kept]:
        return xp.clip(obs, float(self._low), float(self._high)), kept

    stepped = begun

    def fixed(self) -> Fixed:
        return "clip", np.array(self._low), np.array(self._high)


class RescaleObservation(Computed):
    """The bounds of each number, as the environment states them, become [low, high]; numbers beyond them stay beyond.

    Unlike running statistics it is the same for every observation of a run.
    """

    in_program = True

    def __init__(self, config: RescaleObservationConfig, spec: ObservationSpec, context: WrapperContext) -> None:
        if spec.kind == "discrete":
            raise refuse("rescale_observation", "has nothing to do: Discrete observations are one-hot")
        if spec.low is None or spec.high is None:
            why = f"needs bounds, and none are known of {one_line_shape(spec)}; the environment's are: list it first"
            raise refuse("rescale_observation", why)
        if spec.dtype not in FLOATS:
            why = f"has nothing to do: networks take {one_line_shape(spec)} as 0 to 1"
            raise refuse("rescale_observation", why)
        bounded = np.isfinite(spec.low) & np.isfinite(spec.high) & (spec.low < spec.high)
        if not bounded.all():
            place = tuple(int(i) for i in np.argwhere(~bounded)[0])
            why = f"needs bounds, and those of number {list(place)} are {spec.low[place]:g} and {spec.high[place]:g}"
            raise refuse("rescale_observation", f"{why}; normalize_observation needs none")
        deviation = (spec.high - spec.low) / (config.high - config.low)  # [*obs]
        low, high = (np.full(spec.shape, end) for end in (config.low, config.high))
        super().__init__(config, replace(spec, dtype="float32", low=low, high=high, stack=None), context)
        self.kept = {"mean": spec.low - config.low * deviation, "deviation": deviation}

    def begun(self, xp: Any, kept: Kept, obs: Any, lanes: Any) -> tuple[Any, Kept]:
        return cast(xp, (cast(xp, obs, "float64") - kept["mean"]) / kept["deviation"], "float32"), kept

    stepped = begun

    def fixed(self) -> Fixed:
        return "normalize", self.kept["mean"], self.kept["deviation"]


class ScaleReward(Computed):
    """reward * factor, for training."""

    in_program = True

    def __init__(self, config: ScaleRewardConfig, spec: ObservationSpec, context: WrapperContext) -> None:
        super().__init__(config, spec, context)
        self._factor = float(np.float32(config.factor))

    def rewarded(self, xp: Any, kept: Kept, reward: Any, lanes: Any) -> tuple[Any, Kept]:
        return reward * self._factor, kept


def _floats(spec: ObservationSpec) -> str:
    return spec.dtype if spec.dtype in FLOATS else "float32"


def _one_hot(obs: np.ndarray, n: int) -> np.ndarray:
    """obs [L] in 0..n-1 -> [L, n] float32."""
    rows = np.zeros((len(obs), n), np.float32)
    rows[np.arange(len(obs)), obs] = 1.0
    return rows
