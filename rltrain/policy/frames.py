"""Pictures from what environments return from `render()`."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

_LONGEST_SIDE = 640
"""Pixels. Larger pictures are made smaller: a film of a thousand is held in memory."""
_COLOURS = 64
_CHANNELS = (1, 3, 4)


class NoFrame(Exception):
    """Not a picture; the text says what it is instead."""


def pictures_of(rendered: Any) -> list[Image.Image]:
    """RGB pictures of what an environment rendered: a frame, or a list of frames.

    A frame is an array [H, W], [H, W, C] or [C, H, W] with C = 1, 3 or 4 (the last is opacity, which is left out), of
    numbers from 0 to 255, or, where they are not whole, from 0 to 1.

    Raises:
        NoFrame: it is something else.
    """
    if isinstance(rendered, list | tuple) and not _is_frame(rendered):
        return [_picture(frame) for frame in rendered]
    return [_picture(rendered)]


def same_size(pictures: list[Image.Image]) -> list[Image.Image]:
    """The pictures on canvases of one size, each in the upper left corner: a GIF has one size."""
    size = max(p.width for p in pictures), max(p.height for p in pictures)
    return [picture if picture.size == size else with_palette(on_canvas(picture, size)) for picture in pictures]


def on_canvas(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An RGB picture of that size with the picture in its upper left corner, cut where it is larger."""
    canvas = Image.new("RGB", size)
    canvas.paste(picture.convert("RGB"), (0, 0))
    return canvas


def with_palette(picture: Image.Image) -> Image.Image:
    """An RGB picture with few colours, as a GIF has them. The default method takes six times as long."""
    return picture.quantize(_COLOURS, method=Image.Quantize.FASTOCTREE)


def _is_frame(nested: Any) -> bool:
    """Whether nested lists are the numbers of one frame: of a list of frames the first is an array."""
    return len(nested) > 0 and isinstance(nested[0], list | tuple) and len(nested[0]) > 0


def _picture(frame: Any) -> Image.Image:
    if frame is None or isinstance(frame, str | bytes):
        raise NoFrame("render() gives None" if frame is None else "render() gives text")
    try:
        array = np.asarray(frame)
    except Exception:
        raise NoFrame(f"render() gives {type(frame).__name__}") from None
    if array.dtype.kind not in "buif":
        raise NoFrame(f"render() gives {type(frame).__name__}, no array of numbers")
    shape = array.shape
    if array.ndim == 3 and shape[-1] not in _CHANNELS and shape[0] in _CHANNELS:
        array = np.moveaxis(array, 0, -1)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in _CHANNELS) or 0 in shape:
        raise NoFrame(f"render() gives an array of shape {list(shape)}, not [height, width, 3]")
    array = _bytes(array)
    if array.ndim == 3:
        array = array[..., 0] if array.shape[-1] == 1 else array[..., :3]
    picture = Image.fromarray(np.ascontiguousarray(array)).convert("RGB")
    if max(picture.size) > _LONGEST_SIDE:
        picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return picture


def _bytes(array: np.ndarray) -> np.ndarray:
    """Numbers from 0 to 255 as uint8."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * 255
    if array.dtype.kind == "f":
        array = np.nan_to_num(array, nan=0.0)
        array = array * 255.0 if array.max() <= 1.0 else array
    return np.clip(np.round(array), 0, 255).astype(np.uint8)
