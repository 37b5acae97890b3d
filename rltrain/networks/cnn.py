"""Convolutional networks for images."""

from __future__ import annotations

from torch import Tensor, nn

from rltrain.config.schema import CNNConfig
from rltrain.maths.images import convolutions
from rltrain.networks.dueling import DuelingHead
from rltrain.networks.encoder import as_float
from rltrain.networks.mlp import ACTIVATIONS, dense
from rltrain.networks.orthogonal import init_orthogonal
from rltrain.types import ObservationSpec


class CNN(nn.Module):
    """Convolutions without padding, then fully connected layers, or dueling streams, of `hidden` units.

    What `auto` stands for: Mnih et al. 2015 for large images, Young & Tian 2019 for small ones (see `images`).

    Raises:
        RequestError: the observation is no image, or too small for the layers.
    """

    def __init__(self, config: CNNConfig, observation: ObservationSpec, outputs: int, per_action: int = 1) -> None:
        super().__init__()
        shape = convolutions(config, observation)
        self._image = shape.image
        self._rank = len(observation.shape)
        self.feature_width = shape.out_features
        self._channels_last = config.memory_format == "channels_last"
        layers: list[nn.Module] = []
        planes = shape.image.channels
        for channels, kernel, stride in zip(shape.channels, shape.kernels, shape.strides, strict=True):
            # In one group it normalises each image over channels and pixels, whatever the image's size.
            norm = [nn.GroupNorm(1, channels)] if config.layer_norm else []
            layers += [nn.Conv2d(planes, channels, kernel, stride), *norm, ACTIVATIONS[config.activation]()]
            planes = channels
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        width, hidden, norms, scale = shape.out_features, shape.hidden, bool(config.layer_norm), config.output_scale
        self.head: nn.Module = (
            DuelingHead(width, hidden, config.activation, outputs, scale, norms, per_action)
            if config.dueling
            else nn.Sequential(*dense(width, hidden, config.activation, outputs, scale, norms))
        )

        if config.init == "orthogonal":
            init_orthogonal(self.convolutions)
            for stack in self.head.stacks if isinstance(self.head, DuelingHead) else [self.head]:
                init_orthogonal(stack.children(), scale)

    def forward(self, obs: Tensor) -> Tensor:
        """obs [..., *obs] -> [..., outputs]."""
        return self.values(self.features(obs))

    def values(self, features: Tensor) -> Tensor:
        """[..., feature_width] -> [..., outputs]."""
        output: Tensor = self.head(features)
        return output

    def features(self, obs: Tensor) -> Tensor:
        """The output of the convolutions, [..., feature_width]."""
        lead = obs.shape[: obs.dim() - self._rank]
        pixels = as_float(obs)
        if self._image.channel_axis == 2:
            pixels = pixels.movedim(-1, -3)  # [..., C, H, W]
        pixels = pixels.reshape(-1, self._image.channels, self._image.height, self._image.width)
        if self._channels_last:
            pixels = pixels.movedim(1, -1).contiguous().movedim(-1, 1)  # as `memory_format`, which vmap does not know
        features: Tensor = self.convolutions(pixels)  # [prod(lead), F]
        return features.view(*lead, features.shape[-1])
