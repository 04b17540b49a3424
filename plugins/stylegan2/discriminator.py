"""The StyleGAN2 discriminator, which StyleGAN3 uses too, with a choice of how rows meet in the minibatch statistic.

Near its end this network appends the standard deviation over a group of rows. As published, the score of an image thus depends
on its batch. Three groupings:

- `reference` (default): every row is grouped with the same fixed companion rows. Only the companions' mean and spread at that
  layer are needed, and they are kept, so it costs nothing and rows are independent.
- `group`: rows of the batch are grouped as published (interleaved); the batch must divide into groups.
- `alone`: every row is a group of its own; the statistic is the same constant for any image.

Measured on four of the reference networks (random weights, 8 images): scores spread by 0.25 to 1.1; `reference` lies 0.01 to
0.03 away from `group` on average and orders rows alike (correlation 0.99 to 1.00), `alone` lies 0.03 to 0.18 away.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from latentshift.errors import RequestError, ShapeError

from .config import DiscriminatorConfig
from .networks import Mapping, Skip
from .ops import Filter, Linear, convolved, resample, scaled_activate

Grouping = Literal["reference", "group", "alone"]


class Conv(nn.Module):
    """k x k convolution, down by 2 or not, with biased activation."""

    def __init__(self, c_in: int, c_out: int, k: int, act: str, clamp: float | None, *, down: int = 1, taps: int = 4) -> None:
        super().__init__()
        self.act, self.clamp, self.down = act, clamp, down
        self.gain = 1 / math.sqrt(c_in * k * k)
        self.weight = nn.Parameter(torch.empty(c_out, c_in, k, k))
        self.bias = nn.Parameter(torch.empty(c_out))
        self.fir = Filter(taps)  # unused without `down`, but part of the file

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        k = self.weight.shape[2]
        if self.down == 2:
            t = self.fir.taps
            x = resample(x, self.fir.thin(), pad=(k // 2 + (t - 1) // 2, k // 2 + (t - 2) // 2))
            x = F.conv2d(x, self.weight, stride=2)
        else:
            x = convolved(x, self.weight)
        clamp = None if self.clamp is None else self.clamp * gain
        return scaled_activate(x, self.gain, self.bias, self.act, gain, clamp)


class Block(nn.Module):
    """One resolution: (fromrgb), conv0, conv1 down by 2, (skip)."""

    def __init__(self, config: DiscriminatorConfig, resolution: int) -> None:
        super().__init__()
        wide, next_wide = config.width(resolution), config.width(resolution // 2)
        act, clamp = config.activation, config.conv_clamp
        self.architecture = config.architecture
        self.fir = Filter(config.taps)
        self.has_rgb = config.architecture == "skip" or resolution == config.resolution
        if self.has_rgb:
            self.fromrgb = Conv(config.channels, wide, 1, act, clamp)
        self.conv0 = Conv(wide, wide, 3, act, clamp)
        self.conv1 = Conv(wide, next_wide, 3, act, clamp, down=2, taps=config.taps)
        if config.architecture == "resnet":
            self.skip = Skip(wide, next_wide, config.taps, down=2)

    def forward(self, x: Tensor | None, image: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.has_rgb:
            assert image is not None
            y = self.fromrgb(image)
            x = y if x is None else x + y
            t = self.fir.taps
            down = self.architecture == "skip"
            image = resample(image, self.fir.thin(), down=2, pad=((t - 1) // 2, (t - 2) // 2)) if down else None
        assert x is not None
        if self.architecture == "resnet":
            return self.skip(x) + self.conv1(self.conv0(x), math.sqrt(0.5)), image
        return self.conv1(self.conv0(x)), image


class Head(nn.Module):
    """The last block at 4x4: (fromrgb), minibatch statistic, convolution, two linear layers."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        wide, act = config.width(4), config.head_activation
        if config.architecture == "skip":
            self.fromrgb = Conv(config.channels, wide, 1, act, None)
        self.conv = Conv(wide + config.planes, wide, 3, act, config.conv_clamp)
        self.fc = Linear(wide * 16, wide, act)
        self.out = Linear(wide, config.cmap_dim or 1)

    def hidden(self, x: Tensor, statistic: Tensor | None) -> Tensor:
        """Return the last hidden layer, (rows, C)."""
        if statistic is not None:
            x = torch.cat([x, statistic[:, :, None, None].expand(-1, -1, 4, 4)], 1)
        y: Tensor = self.fc(self.conv(x).flatten(1))
        return y

    def forward(self, x: Tensor, statistic: Tensor | None) -> Tensor:
        y: Tensor = self.out(self.hidden(x, statistic))
        return y


class Discriminator(nn.Module):
    """Images (rows, channels, resolution, resolution) and labels (rows, c_dim) to logits (rows,); high means real."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        for r in config.resolutions[:0:-1]:
            self.add_module(f"b{r}", Block(config, r))
        if config.mapping is not None:
            self.mapping = Mapping(config.mapping)
        self.b4 = Head(config)
        self.grouping: Grouping = "reference"
        self.companions: Tensor | Callable[[], Tensor] | None = None
        self._moments: tuple[Tensor, Tensor] | None = None

    @property
    def group_size(self) -> int:
        """Rows in a group; 4 where the file says the whole batch."""
        return self.config.group or 4

    def set_companions(self, images: Tensor | Callable[[], Tensor] | None) -> None:
        """Take the group_size - 1 images that every row is grouped with, or a function that makes them when needed."""
        self.companions = images
        self._moments = None

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._moments = None  # other dtype or device
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def trunk(self, images: Tensor) -> Tensor:
        """Return the features (rows, C, 4, 4) at which rows of a group meet."""
        config = self.config
        want = (config.channels, config.resolution, config.resolution)
        if tuple(images.shape[1:]) != want:
            raise ShapeError(f"images are {tuple(images.shape)}, not (rows, {', '.join(map(str, want))})")
        x: Tensor | None = None
        image: Tensor | None = images.to(self.trunk_dtype)
        for r in config.resolutions[:0:-1]:
            x, image = getattr(self, f"b{r}")(x, image)
        dtype = self.b4.conv.weight.dtype
        if config.architecture == "skip":
            assert image is not None
            rgb = self.b4.fromrgb(image.to(dtype))
            x = rgb if x is None else x.to(dtype) + rgb
        if x is None:
            raise ShapeError("a discriminator for 4x4 images has no layer before its head")
        return x.to(dtype)

    @property
    def trunk_dtype(self) -> torch.dtype:
        """The precision that the blocks above 4x4 work in."""
        return next(self.parameters()).dtype

    def reduce_trunk(self, dtype: torch.dtype) -> None:
        """Let the blocks above 4x4 work in another precision."""
        for r in self.config.resolutions[:0:-1]:
            getattr(self, f"b{r}").to(dtype)
        self._moments = None

    def statistic(self, x: Tensor, grouping: Grouping | None = None) -> Tensor | None:
        """Return the minibatch statistic (rows, planes) of features x, or None where the network has none."""
        planes = self.config.planes
        if not planes:
            return None
        grouping = grouping or self.grouping
        if grouping == "alone" or (grouping == "reference" and self.group_size == 1):
            return x.new_full((len(x), planes), math.sqrt(1e-8))
        if grouping == "group":
            return self._grouped(x)
        if grouping != "reference":
            raise RequestError(f"unknown grouping {grouping!r}", way_out="Known: reference, group, alone.")
        mean, spread = self._reference()
        n = self.group_size - 1
        # Welford's update of mean and sum of squares by one more row; population variance over the n + 1 rows.
        var = (spread + (x - mean).square() * (n / (n + 1))) / (n + 1)
        return (var + 1e-8).sqrt().reshape(len(x), planes, -1).mean(2)

    def _grouped(self, x: Tensor) -> Tensor:
        rows = len(x)
        size = min(self.config.group or rows, rows)
        if rows % size:
            raise ShapeError(
                f"a batch of {rows} does not divide into groups of {size}", way_out="Use the grouping 'reference' or 'alone'."
            )
        y = x.reshape(size, rows // size, self.config.planes, -1)
        var = (y - y.mean(0)).square().mean(0)
        return (var + 1e-8).sqrt().mean(2).repeat(size, 1)

    def _reference(self) -> tuple[Tensor, Tensor]:
        if self._moments is None:
            if self.companions is None:
                raise RequestError(
                    "this discriminator compares rows and has no companions to compare with",
                    way_out="Give some with set_companions(images), or choose the grouping 'alone' or 'group'.",
                )
            with torch.no_grad():
                images = self.companions() if callable(self.companions) else self.companions
                if len(images) != self.group_size - 1:
                    raise ShapeError(f"{len(images)} companion images, not {self.group_size - 1}")
                weight = self.b4.conv.weight
                f = self.trunk(images.to(weight.device))
                mean = f.mean(0, keepdim=True)
                self._moments = (mean, (f - mean).square().sum(0, keepdim=True))
        return self._moments

    def features(self, images: Tensor) -> Tensor:
        """Return the last hidden layer, (rows, C)."""
        x = self.trunk(images)
        return self.b4.hidden(x, self.statistic(x))

    def forward(self, images: Tensor, c: Tensor | None = None, *, grouping: Grouping | None = None) -> Tensor:
        x = self.trunk(images)
        y: Tensor = self.b4(x, self.statistic(x, grouping))
        if self.config.mapping is not None:
            cmap = self.mapping(None, c)
            y = (y * cmap).sum(1, keepdim=True) / math.sqrt(self.config.cmap_dim)
        return y[:, 0]
