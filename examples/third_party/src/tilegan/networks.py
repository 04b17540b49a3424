"""The networks of a tile GAN, plain torch: every row by itself."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """All that a tile GAN's shapes tell: size of z, channels inside, side of the tile; and how often it is repeated."""

    z: int
    width: int
    tile: int
    repeats: int = 2

    @property
    def side(self) -> int:
        """Side of the image in pixels."""
        return self.tile * self.repeats


class Painter(nn.Module):
    """z (rows, z) to images (rows, 3, side, side) in [-1, 1]."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.plan = nn.Linear(sizes.z, sizes.width * sizes.tile**2)
        self.brush = nn.Conv2d(sizes.width, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        tile = self.plan(z).relu().reshape(-1, self.sizes.width, self.sizes.tile, self.sizes.tile)
        image: Tensor = self.brush(tile).tanh().tile(1, 1, self.sizes.repeats, self.sizes.repeats)
        return image


class Judge(nn.Module):
    """Images to logits (rows,): the higher the more real."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, sizes.width, 4, stride=4)
        self.verdict = nn.Linear(sizes.width, 1)

    def features(self, images: Tensor) -> Tensor:
        """Return (rows, width): what the verdict is made from."""
        out: Tensor = nn.functional.leaky_relu(self.look(images), 0.2).mean((2, 3))
        return out

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.verdict(self.features(images))[:, 0]
        return out
