"""Are real images and samples of one kind? Told by a frozen SqueezeNet and by small pictures, before anything is built on them.

Measured on eight sound pairs against their own images, those of three other sets and their own in reverse video: SqueezeNet's
means lie 0.01 to 0.57 of the real images' variance apart for a pair's own (0.16 at most but for a pair with two latents) and
0.56 to 3.6 for other sets; reverse video, which that hardly sees on garments and sprites, is 1.9 and more by `kinship` (own 1.4
at most). Together they notice 31 of 32; missed is garments against the digits of two latents.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from ..errors import LatentshiftWarning
from ..files.pictures import to_planes
from ..model import Pair
from ..train.overfit import kinship
from .eye import squeezenet
from .probe import Probe

Array = np.ndarray[Any, Any]

APART = 0.65  # of the real images' variance, squared distance of the means
FAR = 1.75  # nearest real image, as a multiple of that among real images
LEAST = 50  # real images below which nothing is said
SOME = 64  # samples and four times as many real images


def other_kind(raw: Array, reals: Array) -> str:
    """Return what speaks against `raw` and `reals`, uint8 (n, C, H, W), being of one kind; '' where nothing does."""
    if len(reals) < LEAST or raw.shape[1] not in (1, 3):
        return ""
    raw, reals = raw[:SOME], reals[:: max(1, len(reals) // (4 * SOME))][: 4 * SOME]  # from all over: a set may be sorted
    look = squeezenet(max(reals.shape[2:]))
    a, b = look(raw).astype(np.float64), look(reals).astype(np.float64)
    apart = float(((a.mean(0) - b.mean(0)) ** 2).sum() / max(b.var(0).sum(), 1e-12))
    own, _ = kinship(torch.from_numpy(raw) / 255, torch.from_numpy(reals) / 255)
    said = []
    if apart > APART:
        said.append(f"in SqueezeNet's eyes their means lie {apart:.2g} of the real variance apart (own kind: 0.6 at most)")
    if own > FAR:
        said.append(f"samples lie {own:.1f} times as far from real images as these from each other (own kind: 1.4 at most)")
    return "; ".join(said)


def warn_of_other_kind(pair: Pair, reals: torch.Tensor) -> None:
    """Warn where real images (n, C, H, W) in the pair's range look like another kind than its samples.

    Nothing for points, for few images, and for large ones (above 64 x 64 in colour), whose look costs as much as refining.
    """
    if reals.ndim != 4 or len(reals) < LEAST or int(np.prod(reals.shape[1:])) > 3 * 64 * 64:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatentshiftWarning)
        raw = Probe(pair, SOME).images
    if said := other_kind(to_planes(raw.cpu(), pair.image_range), to_planes(reals.cpu(), pair.image_range)):
        warnings.warn(f"real images of another kind? {said}. Check contents, crop, colours and range.", LatentshiftWarning, 2)
