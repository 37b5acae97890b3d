"""Which numbers of an observation are an image's channels, rows and columns, and what convolutions make of them.

Torch-free: a request for layers that do not fit the image is refused before anything is built.
"""

from __future__ import annotations

from typing import NamedTuple

from rltrain.config.schema import CNNConfig
from rltrain.errors import RequestError
from rltrain.types import ObservationSpec


class Image(NamedTuple):
    """An observation's layout; `channel_axis` is 0 or 2 in its shape, None for (height, width) alone."""

    channels: int
    height: int
    width: int
    channel_axis: int | None


class Convolutions(NamedTuple):
    """The layers of a convolutional network, `auto` resolved, and what comes out of them."""

    image: Image
    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    hidden: tuple[int, ...]
    out_features: int


# Mnih et al. 2015, methods ("Model architecture"), which needs 36 pixels each way; and Young & Tian 2019, section 3.
_LARGE = ((32, 64, 64), (8, 4, 3), (4, 2, 1), (512,))
_SMALL = ((16,), (3,), (1,), (128,))
_LARGE_PIXELS = 36


def image_of(observation: ObservationSpec, channel_axis: str = "auto") -> Image:
    """The layout of an image observation.

    Args:
        channel_axis: `first` (C, H, W), `last` (H, W, C), or `auto`: the end that is beside a square, else the smaller
            of the two, the last where they are equal. So (210, 160, 3), (10, 10, 10) and (10, 10, 16) have their
            channels last, and (4, 84, 84) first. Of stacked frames it is the axis along which they lie.

    Raises:
        RequestError: the observation is no box of two or three axes, or its frames lie along the other axis.
    """
    shape = observation.shape
    if observation.kind != "box" or len(shape) not in (2, 3):
        what = f"Box{list(shape)}" if observation.kind == "box" else "Discrete"
        raise RequestError(f"network=cnn: needs images of shape (H, W, C), (C, H, W) or (H, W), not {what}")
    if len(shape) == 2:
        return Image(1, shape[0], shape[1], None)
    own = observation.channel_axis
    guess = (0 if _channels_first(*shape) else 2) if own is None else own
    axis = {"auto": guess, "first": 0, "last": 2}[channel_axis]
    if own is not None and axis != own:
        where = "first" if own == 0 else "last"
        raise RequestError(f"network.channel_axis={channel_axis}: frame_stack made images {shape}, channels {where}")
    return Image(shape[0], shape[1], shape[2], 0) if axis == 0 else Image(shape[2], shape[0], shape[1], 2)


def _channels_first(a: int, b: int, c: int) -> bool:
    if (a == b) != (b == c):
        return b == c
    return a < c


def convolutions(config: CNNConfig, observation: ObservationSpec) -> Convolutions:
    """The layers that `config` means for this observation.

    Raises:
        RequestError: no image, or a kernel that is larger than what the layer before it gives.
    """
    image = image_of(observation, config.channel_axis)
    automatic = _LARGE if min(image.height, image.width) >= _LARGE_PIXELS else _SMALL
    channels, kernels, strides, hidden = (
        default if isinstance(given, str) else given
        for given, default in zip(
            (config.channels, config.kernels, config.strides, config.hidden), automatic, strict=True
        )
    )
    height, width = image.height, image.width
    for layer, (kernel, stride) in enumerate(zip(kernels, strides, strict=True)):
        if kernel > min(height, width):
            raise RequestError(
                f"network.kernels[{layer}]={kernel}: is larger than the {height}x{width} pixels that it is applied to"
            )
        height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
    planes = channels[-1] if channels else image.channels
    return Convolutions(image, channels, kernels, strides, hidden, planes * height * width)
