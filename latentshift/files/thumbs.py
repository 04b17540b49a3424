"""`thumbs.npz`: small pictures of a run, before and after, so that its page can be made from the record alone.

    index  (n,) int64            which lines of samples.jsonl these are
    seeds  (n,) int64            their seeds, to check that file and record belong together
    before (n, H, W, C) uint8    the unrefined pictures (absent where they were not made)
    after  (n, H, W, C) uint8    the refined ones, made smaller in the same way

A run of fewer than `FEW` samples keeps all of them; a larger one an even spread and both tails of the gain.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import FileError
from .pictures import Bytes, picture
from .run import npz_bytes, read_npz
from .write import write_whole

Array = np.ndarray[Any, Any]

NAME = "thumbs.npz"
FEW = 2000  # below this many samples all are kept
SPREAD, TAIL = 600, 100  # of a larger run: so many evenly spread, so many of the best and of the worst gains
_RAW = 48 * 2**20  # bytes of all thumbnails before compression
_NEAR = 2  # best and worst rows that each chunk keeps, since nobody knows the tails before the end


def side_of(rows: int, height: int, width: int, channels: int) -> int:
    """Return the longest side of a thumbnail: the picture's own up to 256, smaller where there are many.

    >>> side_of(64, 32, 32, 1), side_of(64, 512, 512, 3), side_of(1999, 512, 512, 3)
    (32, 256, 64)
    """
    kept = max(1, rows if rows < FEW else SPREAD + 2 * TAIL)
    room = int((_RAW / (2 * kept * min(channels, 4))) ** 0.5)
    return min(max(height, width), 256, max(32, room))


def shrink(images: Bytes, side: int) -> Bytes:
    """Return pictures (rows, H, W, C) with no side longer than `side`."""
    height, width = images.shape[1:3]
    images = images[..., :1] if images.shape[3] == 2 else images[..., :4]
    if max(height, width) <= side or not len(images):
        return np.ascontiguousarray(images)
    share = side / max(height, width)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    small = [np.asarray(picture(row).resize(size, Image.Resampling.LANCZOS)) for row in images]
    return np.stack(small).reshape(len(small), size[1], size[0], -1)


def wanted(rows: Array, gain: Array, total: int) -> Array:
    """Return which of a chunk's rows keep a thumbnail, as places in the chunk."""
    if total < FEW:
        return np.arange(len(rows))
    order = np.argsort(np.nan_to_num(gain), kind="stable")
    spread = np.flatnonzero(rows % -(-total // SPREAD) == 0)
    return np.unique(np.concatenate([spread, order[:_NEAR], order[-_NEAR:]]))


def choose(gain: Array, among: Array | None = None) -> Array:
    """Return which samples a page shows, as places in `gain`: all of a small run, else a spread and both tails.

    >>> len(choose(np.arange(50.0))), len(choose(np.arange(1e5)))
    (50, 798)
    """
    every = np.arange(len(gain)) if among is None else np.asarray(among)
    if len(gain) < FEW:
        return every
    step = -(-len(gain) // SPREAD)
    order = every[np.argsort(np.nan_to_num(gain[every]), kind="stable")]
    return np.unique(np.concatenate([every[every % step == 0], order[:TAIL], order[-TAIL:]]))


def write_thumbs(folder: Path, index: Array, seeds: Array, after: Bytes, before: Bytes | None) -> None:
    """Write `thumbs.npz` whole or not at all."""
    arrays: dict[str, Array] = {"index": index.astype(np.int64), "seeds": seeds.astype(np.int64)}
    arrays |= {"after": after} if before is None else {"before": before, "after": after}
    data = npz_bytes(arrays, compress=True)
    write_whole(folder / NAME, lambda stream: stream.write(data))


def read_thumbs(folder: Path) -> dict[str, Array] | None:
    """Return the arrays of a run's `thumbs.npz`, or None where there is none; raises FileError for one that is damaged."""
    path = folder / NAME
    if not path.is_file():
        return None
    found = read_npz(path)
    rows = len(found.get("index", ()))
    for key in ("index", "seeds", "before", "after"):
        array = found.get(key)
        if array is None and key in ("index", "after"):
            raise FileError(f"thumbs.npz lacks {key!r}", where=str(path))
        if array is not None and (array.shape[0] != rows or (key in ("before", "after")) != (array.ndim == 4)):
            raise FileError(f"{key!r} in thumbs.npz has shape {array.shape}", where=str(path))
    return found
