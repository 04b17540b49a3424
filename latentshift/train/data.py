"""What a run draws from: images in memory (as bytes), or points of a named mixture. A part is held out and never trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import RequestError
from ..files.images import read_images
from ..files.imageset import ImageSet
from ..metrics.toy import DOT25, MIXTURES, Mixture

#: data sets that need no file
BUNDLED: dict[str, Mixture] = {**MIXTURES, DOT25.name: DOT25}


@dataclass(frozen=True)
class Images:
    """`pixels` uint8 (n, C, H, W) on one device, drawn with replacement; `span` is the range they are given in."""

    pixels: Tensor = field(repr=False)
    labels: Tensor | None = field(default=None, repr=False)
    span: tuple[float, float] = (-1.0, 1.0)
    noise: float = 0.0  # uniform noise added to what is drawn, in units of [-1, 1]
    sha256: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.pixels.shape[1:])

    @property
    def classes(self) -> int | None:
        return None if self.labels is None else int(self.labels.max()) + 1

    def _floats(self, x: Tensor) -> Tensor:
        low, high = self.span
        return low + x.float() * ((high - low) / 255)

    def __call__(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        index = torch.randint(0, len(self.pixels), (rows,), generator=generator)
        x = self._floats(self.pixels[index.to(self.pixels.device)])
        if self.noise:
            half = (self.span[1] - self.span[0]) / 2
            x = x + self.noise * half * torch.rand(x.shape, generator=generator).to(x)
        return x, None if self.labels is None else self.labels[index]

    def first(self, rows: int) -> tuple[Tensor, Tensor | None]:
        """Return the first images as they are, without noise."""
        return self._floats(self.pixels[:rows]), None if self.labels is None else self.labels[:rows]


@dataclass(frozen=True)
class Points:
    """Points of a mixture, drawn afresh in every step."""

    mixture: Mixture
    seed: int = 0
    labels: None = None
    classes: None = None
    span: tuple[float, float] = (-1.0, 1.0)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(repr(self.mixture).encode()).hexdigest()

    @property
    def shape(self) -> tuple[int, ...]:
        return (2,)

    def __call__(self, rows: int, generator: torch.Generator) -> tuple[Tensor, None]:
        return self.mixture.sample(rows, generator), None

    def first(self, rows: int) -> tuple[Tensor, None]:
        """Return the same points every time."""
        return self.mixture.sample(rows, torch.Generator().manual_seed(10_000 + self.seed)), None


Data = Images | Points


def read_data(
    reference: str,
    *,
    size: int | None = None,
    channels: int | None = None,
    held_out: str | None = None,
    labels: bool = False,
    span: tuple[float, float] = (-1.0, 1.0),
    noise: float = 0.0,
    device: Any = "cpu",
    note: Callable[[str], None] = lambda text: None,
) -> tuple[Data, Data]:
    """Return training data and held-out data of a reference: a bundled set's name, a folder, a zip, an npz, an idx file.

    `held_out` is another reference; left out, every tenth image (at least one, at most 2,000) is held out. Every picture is
    used or the set is refused. Raises FileError with the name of what cannot be used, RequestError where labels are wanted and
    absent.
    """
    if reference in BUNDLED and not Path(reference).exists():
        if labels:
            raise RequestError(f"{reference} has no labels", way_out="Use a recipe without labels.")
        return Points(BUNDLED[reference]), Points(BUNDLED[reference], seed=1)
    whole = read_images(reference, size=size, channels=channels, least=2)
    for text in whole.notes:
        note(text)
    side = whole.images.shape[2]
    other = read_images(held_out, size=side, channels=whole.images.shape[1]) if held_out else None
    if labels and (whole.labels is None or (other is not None and other.labels is None)):
        raise RequestError(
            "this recipe needs labels, and the data have none",
            where=reference,
            way_out="Give dataset.json, an npz with 'labels', or an idx file with its labels beside it.",
        )

    def made(images: Any, numbers: Any, sha256: str) -> Images:
        kept = torch.from_numpy(numbers.copy()) if labels and numbers is not None else None
        return Images(torch.from_numpy(images.copy()).to(device), kept, span, noise, sha256)

    sha = whole.sha256()
    if other is not None:
        return made(whole.images, whole.labels, sha), made(other.images, other.labels, other.sha256())
    apart = _apart(whole)
    train, test = [i for i in range(len(whole.images)) if i not in apart], sorted(apart)
    numbers = whole.labels
    return (
        made(whole.images[train], None if numbers is None else numbers[train], sha),
        made(whole.images[test], None if numbers is None else numbers[test], sha),
    )


def _apart(data: ImageSet) -> set[int]:
    every = max(10, -(-len(data.images) // 2000))
    return set(range(every - 1, len(data.images), every)) or {len(data.images) - 1}
