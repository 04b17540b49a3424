"""The IDX format of the MNIST family, plain or inside gzip or xz."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DamagedFileError


def read_idx(path: str | Path) -> npt.NDArray[np.uint8]:
    """Return the array of an IDX file of unsigned bytes (images (n, h, w) or labels (n,)).

    Raises DamagedFileError for a wrong magic number or a size that contradicts the header.
    """
    path = Path(path)
    opener: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    try:
        with opener(path, "rb") as stream:
            raw = stream.read()
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise DamagedFileError(f"not a readable IDX file: {error}", where=str(path)) from None
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise DamagedFileError("not an IDX file of unsigned bytes", where=str(path))
    ndim = raw[3]
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", ndim, 4))
    if len(raw) != 4 + 4 * ndim + int(np.prod(shape)):
        raise DamagedFileError(f"the header says {shape}, the file holds {len(raw)} bytes", where=str(path))
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim).reshape(shape)
