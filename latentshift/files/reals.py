"""Real images for a pair: any set of images, brought to the pair's size, channels and range; points for a 2-D pair."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DamagedFileError, FileError, NumericError, RequestError
from ..model import Pair
from .images import read_images
from .npz import Npz, read_npy


@dataclass(frozen=True, eq=False)
class Reals:
    """Real samples as a pair's G would make them.

    `images` (n, *image_shape) float32 in the pair's range, `labels` (n,) int64 or None, `sha256` of the content whatever it was
    stored in, `source` what was read, `notes` what was converted, one line each, to be shown to the user.
    """

    images: Tensor
    labels: Tensor | None = None
    sha256: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def for_critic(self, pair: Pair) -> Any:
        """Return what a strategy's `fit` takes: the images, with their labels where the critic asks for some."""
        if not pair.need_critic().labels or not pair.classes:
            return self.images
        if self.labels is None:
            raise RequestError(
                f"the critic of {pair.name!r} is conditional, and these images have no labels",
                where=self.source,
                way_out="Give a zip or a folder with dataset.json, an npz with 'labels', or idx files.",
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= pair.classes:
            raise RequestError(
                f"labels run from {low} to {high}, {pair.name!r} has {pair.classes} classes",
                where=self.source,
            )
        return self.images, self.labels


def read_reals(data: str | Path, pair: Pair, *, least: int = 2) -> Reals:
    """Read real samples for `pair`: a folder or zip of pictures, an npz, npy or idx file; for a pair of points an npz or npy of
    floats (n, size).

    Raises FileError where a file cannot be used or fewer than `least` samples are there, RequestError where they do not fit.
    """
    if pair.image_shape is None:
        pair = pair.probed()
    shape = pair.image_shape
    assert shape is not None
    if len(shape) == 1:
        return _points(Path(data), shape[0], least)
    channels, height, width = shape
    if height != width or channels not in (1, 3):
        raise RequestError(
            f"{pair.name!r} makes images of {channels}x{height}x{width}: sets of images are read as squares of 1 or 3 channels",
            way_out="Give reals= in Python, as a tensor of that shape.",
        )
    found = read_images(data, size=height, channels=channels, least=least)
    low, high = pair.image_range
    images = torch.from_numpy(np.array(found.images)).float() * ((high - low) / 255) + low
    labels = None if found.labels is None else torch.from_numpy(found.labels)
    return Reals(images, labels, found.sha256(), str(data), found.notes)


def _points(path: Path, size: int, least: int) -> Reals:
    if not path.exists():
        raise FileError("no such file", where=str(path))
    x: Any = None
    if path.suffix == ".npy":
        x = read_npy(path)
    elif path.suffix == ".npz":
        with Npz(path) as npz:
            name = next((k for k in ("points", "x", "arr_0") if k in npz), None) or (next(iter(npz)) if len(npz) == 1 else None)
            if name is None:
                raise FileError(f"which array holds the points? ({', '.join(sorted(npz))})", where=str(path))
            x = npz[name]
    if x is None:
        raise FileError("not a set of points", where=str(path), way_out="Give an npy or npz of floats (n, size).")
    if x.ndim != 2 or x.shape[1] != size or x.dtype.kind not in "fiu":
        raise DamagedFileError(f"points are {x.shape} {x.dtype}, where (n, {size}) numbers are needed", where=str(path))
    if len(x) < least:
        raise FileError(f"{len(x)} points where {least} are needed", where=str(path))
    x = np.ascontiguousarray(x, np.float32)
    if not np.isfinite(x).all():
        raise NumericError("points are NaN or infinite", where=str(path))
    return Reals(torch.from_numpy(x), None, hashlib.sha256(repr(x.shape).encode() + x.tobytes()).hexdigest(), str(path))
