"""Does a critic remember its images? Nearest neighbours of refined samples among training and among held-out images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..calibration import auc


@dataclass(frozen=True)
class Overfit:
    """`memory`: AUC of the critic's score of training over held-out reals (0.5: it remembers nothing).

    `nearer`: share of refined samples whose nearest real image is a training one, among as many of either (0.5 expected);
    `nearer_raw` the same before refinement; `error` the standard error of one share; `distance`: median distance of refined
    samples to the nearest training image over that of raw samples.
    """

    memory: float
    nearer: float
    nearer_raw: float
    error: float
    distance: float
    images: int

    @property
    def copies(self) -> bool:
        """Whether refined samples move towards training images by more than three standard errors."""
        return self.nearer - self.nearer_raw > 3 * self.error * 2**0.5

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "copies": self.copies}


def small(x: Tensor, side: int = 16) -> Tensor:
    """Return images (n, C, H, W) as rows at `side` pixels: small differences of place and noise do not count."""
    if max(x.shape[2:]) > side:
        x = F.interpolate(x, (side, side), mode="bilinear", align_corners=False, antialias=True)
    return x.flatten(1).double()


def _nearest(x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([torch.cdist(x[i : i + 256], y).amin(1) for i in range(0, len(x), 256)])


def overfitting(refined: Tensor, raw: Tensor, train: Tensor, held: Tensor, score: Callable[[Tensor], Tensor]) -> Overfit:
    """Return how far a critic and what it refined lean towards the training images rather than the held-out ones."""
    count = min(len(train), len(held))
    a, b = small(train[:count]), small(held[:count])
    end, start = small(refined.cpu().float()), small(raw.cpu().float())
    near_a, near_raw = _nearest(end, a), _nearest(start, a)
    share = float((near_a < _nearest(end, b)).double().mean())
    before = float((near_raw < _nearest(start, b)).double().mean())
    return Overfit(
        memory=auc(score(train[:count]), score(held[:count])),
        nearer=share,
        nearer_raw=before,
        error=0.5 / len(end) ** 0.5,
        distance=float(near_a.median() / near_raw.median().clamp_min(1e-12)),
        images=count,
    )


def kinship(raw: Tensor, reals: Tensor) -> tuple[float, float]:
    """Return how far samples lie from real images: the median distance to the nearest one, over that among the reals
    themselves, and over the median distance of any two of them.

    Measured: at most 1.6 and 0.6 for a G and its own kind of images, 1.8 and 0.66 or more for nearly all others (digits
    against faces, black and white exchanged); garments against digits only pass the first."""
    x, y = small(reals[:1000], 8), small(raw[:200].cpu().float(), 8)
    half = len(x) // 2
    nearest = float(_nearest(y, x[half:]).median())
    own = float(_nearest(x[:half][:200], x[half:]).median())
    pairs = float(torch.cdist(x[:half][:200], x[half:]).median(1).values.median())
    return nearest / max(own, 1e-9), nearest / max(pairs, 1e-9)
