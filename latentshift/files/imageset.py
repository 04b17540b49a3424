"""Sets of images that lie in arrays: npz, npy and idx, brought to (n, channels, height, width) by stated rules."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import DamagedFileError, FileError
from .decode import Pixels, fit
from .idx import read_idx
from .npz import Npz, read_npy

_KEYS = ("images", "x", "arr_0", "data", "samples")
_LABELS = ("labels", "label", "y", "arr_1")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """`images` uint8 (n, channels, height, width); `labels` int64 (n,) or None; `names` (n,) or empty; `notes`."""

    images: Pixels
    labels: npt.NDArray[np.int64] | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    source: str = ""

    def sha256(self) -> str:
        """Hash of pixels, shape and labels: equal sets have equal hashes whatever they were stored in."""
        h = hashlib.sha256(repr(self.images.shape).encode())
        h.update(np.ascontiguousarray(self.images).data)
        if self.labels is not None:
            h.update(self.labels.astype("<i8").tobytes())
        return h.hexdigest()


def to_channels(picture: Pixels, channels: int) -> Pixels:
    """(H, W) or (H, W, 3) to (channels, H, W)."""
    if picture.ndim == 2:
        return np.broadcast_to(picture, (channels, *picture.shape))
    if channels == 3:
        return picture.transpose(2, 0, 1)
    # Pillow's fixed-point luma, so that a file converted beforehand gives the same bytes
    r, g, b = (picture[:, :, i].astype(np.uint32) for i in range(3))
    return ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16).astype(np.uint8)[None]


def _arrange(x: npt.NDArray[Any], where: str) -> Pixels:
    """An array of images to (n, C, H, W). Only uint8: whether floats run over 0..1 or -1..1 would be a guess."""
    if x.dtype != np.uint8:
        raise FileError(
            f"images of {x.dtype}, where uint8 (0 to 255) is needed",
            where=where,
            way_out="Convert them: clip(round((x + 1) * 127.5), 0, 255) for -1..1, round(x * 255) for 0..1.",
        )
    if x.ndim == 3:
        return x[:, None]
    if x.ndim != 4 or 0 in x.shape:
        raise FileError(f"an array of {x.shape} is no set of images", where=where, way_out="Give (n, H, W, C) or (n, C, H, W).")
    last, first = x.shape[3] in (1, 3), x.shape[1] in (1, 3)
    if last == first:
        kind = "could be read both ways" if last else "has no axis of 1 or 3 channels"
        raise FileError(
            f"an array of {x.shape} {kind}", where=where, way_out="Give (n, H, W, C) or (n, C, H, W) with C 1 or 3."
        )
    return x.transpose(0, 3, 1, 2) if last else x


def array_set(
    x: npt.NDArray[Any], labels: npt.NDArray[Any] | None, source: str, size: int | None, channels: int | None
) -> ImageSet:
    images = _arrange(x, source)
    if len(images) == 0:
        raise FileError("a set of no images", where=source)
    notes: list[str] = []
    height, width = images.shape[2:]
    if size is not None and (height, width) != (size, size):
        images, note = _resize(images, size, source)
        notes.append(f"all {len(images)} images ({width}x{height}): {note}")
    have = images.shape[1]
    if channels == 3 and have == 1:
        images = np.repeat(images, 3, 1)
        notes.append("grey repeated to colour")
    if channels == 1 and have == 3:
        images = np.stack([to_channels(i.transpose(1, 2, 0), 1) for i in images])
        notes.append("colour turned to grey (0.299 R + 0.587 G + 0.114 B)")
    if labels is not None:
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
            raise DamagedFileError(f"labels {labels.shape} {labels.dtype} do not fit {len(images)} images", where=source)
        labels = labels.astype(np.int64)
    return ImageSet(np.ascontiguousarray(images), labels, (), tuple(notes), source)


def _resize(images: Pixels, size: int, where: str) -> tuple[Pixels, str]:
    """Arrays of the MNIST family are used with a black border (28 in 32); all else as pictures are."""
    height, width = images.shape[2:]
    if images.shape[1] == 1 and (height, width, size) == (28, 28, 32):
        return np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2))), "a black border of 2 pixels"
    notes: set[str] = set()
    out = np.empty((len(images), images.shape[1], size, size), np.uint8)
    for i, image in enumerate(images):
        for c, plane in enumerate(image):
            out[i, c] = np.asarray(fit(Image.fromarray(plane), size, where, notes))
    return out, ", ".join(sorted(notes))


def read_npz(path: Path, key: str | None, size: int | None, channels: int | None) -> ImageSet:
    with Npz(path) as npz:
        if key is None:
            named = [k for k in _KEYS if k in npz]
            if "mu" in npz and "sigma" in npz and not named:
                raise FileError("saved statistics hold no images", where=str(path), way_out="Use them as the reference.")
            others = [k for k in npz if k not in _LABELS]
            if not named and len(others) != 1:
                raise FileError(
                    f"which array holds the images? ({', '.join(sorted(npz)) or 'there is none'})",
                    where=str(path),
                    way_out=f"Name it 'images', or give {path.name}:KEY.",
                )
            key = named[0] if named else others[0]
        x = npz[key]
        labels = next((npz[k] for k in _LABELS if k in npz and k != key), None)
    if labels is not None and labels.shape != (len(x),):
        labels = None
    return array_set(x, labels, str(path), size, channels)


def read_idx_set(path: Path, size: int | None, channels: int | None) -> ImageSet:
    x = read_idx(path)
    if x.ndim != 3:
        raise FileError(f"an idx file of {x.shape} holds no images", where=str(path), way_out="Give the images-idx3 file.")
    beside = path.with_name(path.name.replace("images-idx3", "labels-idx1").replace("images.idx3", "labels.idx1"))
    labels = read_idx(beside) if beside != path and beside.is_file() else None
    return array_set(x, labels, str(path), size, channels)


def read_npy_set(path: Path, size: int | None, channels: int | None) -> ImageSet:
    """Return the images of an npy file."""
    return array_set(read_npy(path), None, str(path), size, channels)
