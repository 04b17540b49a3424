"""Operations of layer lists that torch has no layer for: what a frozen feature network needs to be written down as data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Fire(nn.Module):
    """Squeeze to `squeeze` channels, expand to 2 x `expand` (1x1 beside 3x3): SqueezeNet's module."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        s = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1(s)), F.relu(self.expand3(s))], 1)


class ImageInput(nn.Module):
    """Images in [low, high], grey or colour, as a pretrained network wants them: (rows, 3, size, size).

    Brought to 0..255, grey repeated, resized (bilinear, antialiased where it shrinks), in BGR order if `bgr`, then
    (x - mean) / std per channel in the order of the output. Differentiable.
    """

    def __init__(
        self, size: int, low: float = -1, high: float = 1, bgr: bool = False, mean: Sequence[float] = (0,), std: float = 1
    ) -> None:
        super().__init__()
        self.size, self.low, self.high, self.bgr, self.std = int(size), float(low), float(high), bool(bgr), float(std)
        self.mean = tuple(float(m) for m in mean)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.low) * (255 / (self.high - self.low))
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if tuple(x.shape[2:]) != (self.size, self.size):
            shrinks = max(x.shape[2:]) > self.size
            x = F.interpolate(x, (self.size, self.size), mode="bilinear", align_corners=False, antialias=shrinks)
        if self.bgr:
            x = x.flip(1)
        return (x - x.new_tensor(self.mean).view(1, -1, 1, 1)) / self.std


class ChannelScale(nn.Module):
    """(x - mean) * scale per channel, both fixed numbers of the file: (rows, C, ...) like the input."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.ndim - 2))
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.scale, Tensor)
        return (x - self.mean.view(shape)) * self.scale.view(shape)
