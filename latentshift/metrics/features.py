"""How a feature network is used: uint8 images in, brought to its size by stated rules, features and logits out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import NumericError, ShapeError


class Extracted(NamedTuple):
    """`features` (n, size) float32, `logits` (n, classes) float32 or None."""

    features: Tensor
    logits: Tensor | None


class Features(Protocol):
    """What a judge needs of a network: a name for its metrics, a call on uint8 images (n, channels, height, width)."""

    @property
    def name(self) -> str: ...

    def __call__(self, images: Tensor) -> Extracted: ...


def to_size(images: Tensor, size: int) -> Tensor:
    """Bring uint8 images (n, C, H, W) to `size` x `size`, by the first rule that fits:

    equal: untouched; smaller by at most an eighth (28 in 32): black border, as the data sets are used; an integer
    fraction (16 in 32): pixels repeated; else bilinear with antialiasing, rounded to uint8 again.
    """
    height, width = images.shape[2:]
    if (height, width) == (size, size):
        return images
    if all(size - size // 8 <= side <= size for side in (height, width)):
        top, left = (size - height) // 2, (size - width) // 2
        return F.pad(images, (left, size - width - left, top, size - height - top))
    if height == width and size % height == 0:
        return images.repeat_interleave(size // height, 2).repeat_interleave(size // width, 3)
    return bilinear(images, size)


def bilinear(images: Tensor, size: int) -> Tensor:
    """Resize uint8 images bilinearly (antialiased when shrinking, as Pillow does), rounded to uint8."""
    if images.shape[2:] == (size, size):
        return images
    big = F.interpolate(images.float(), size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    return big.round().clamp(0, 255).to(torch.uint8)


def to_channels(images: Tensor, channels: int, name: str) -> Tensor:
    """Repeat grey to colour; colour for a grey network is refused (which grey is meant is the caller's to say)."""
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 1:
        return images.expand(-1, channels, -1, -1)
    raise ShapeError(
        f"{name} takes {channels} channels, the images have {images.shape[1]}", way_out="Convert them to grey first."
    )


@dataclass(frozen=True)
class Network:
    """A network with its exact preprocessing. `net(prepare(uint8)) -> (features, logits or None)`.

    Implements `Features`. `prepare` takes uint8 of the network's channels at any size.
    """

    name: str
    net: nn.Module
    prepare: Callable[[Tensor], Tensor]
    channels: int = 3
    size: int | None = None

    def __call__(self, images: Tensor) -> Extracted:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ShapeError(
                f"{self.name} takes uint8 images (n, channels, H, W), got {images.dtype} {tuple(images.shape)}",
                way_out="Round to bytes first: clip(round((x + 1) * 127.5), 0, 255).",
            )
        x = self.prepare(to_channels(images, self.channels, self.name))
        with torch.no_grad():
            features, logits = self.net(x)
        return Extracted(features, logits)


def extract(network: Features, images: npt.NDArray[np.uint8] | Tensor, *, batch: int = 250, device: str = "cpu") -> Extracted:
    """Run `network` over all images in batches; results on the CPU.

    Raises NumericError with the first row where a feature is not finite.
    """
    if len(images) == 0:
        raise ShapeError("no images", where=network.name)
    features: list[Tensor] = []
    logits: list[Tensor] = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        # a copy per batch: a read-only or flipped array is no storage for a tensor
        x = torch.from_numpy(np.array(part, order="C")) if isinstance(part, np.ndarray) else part
        out = network(x.to(device))
        features.append(out.features.float().cpu())
        bad = ~torch.isfinite(features[-1]).all(1)
        if bad.any():
            raise NumericError(f"{network.name} gives NaN or infinite features: image {start + int(bad.int().argmax())}")
        if out.logits is not None:
            logits.append(out.logits.float().cpu())
    return Extracted(torch.cat(features), torch.cat(logits) if logits else None)


class Pixels(nn.Module):
    """The pixels themselves, 0..1, flattened: (n, C H W); no logits."""

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return x.flatten(1), None


def pixels(channels: int = 3, size: int = 32) -> Network:
    """Raw pixels as features (`FD-pixels32`): crude, but no network to be fooled with."""
    return Network(f"pixels{size}", Pixels(), lambda x: to_size(x, size).float() / 255, channels, size)
