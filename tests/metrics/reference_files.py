"""The reference files beside the checkout and real images from them; without them a test is skipped."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image


def shared(*parts: str) -> Path:
    """Return a path below the reference files, or skip the test."""
    named = os.environ.get("LATENTSHIFT_SHARED")
    roots = [Path(named)] if named else [p / "shared" for p in Path(__file__).resolve().parents]
    for root in roots:
        if root.joinpath(*parts).exists():
            return root.joinpath(*parts)
    pytest.skip(f"the reference file shared/{'/'.join(parts)} is absent")


def cifar(part: str, count: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the first `count` images (n, 3, 32, 32) and labels of `part` ('test' or 'train')."""
    folder = shared("data", "cifar10")
    tiles = []
    for f in range(-(-count // 1000)):
        sheet = np.asarray(Image.open(folder / f"{part}_{f:02d}.webp").convert("RGB"))
        tiles.append(sheet.reshape(40, 32, 25, 32, 3).transpose(0, 2, 4, 1, 3).reshape(1000, 3, 32, 32))
    labels = [int(line.split()[0]) for line in (folder / f"{part}_names.txt").read_text().splitlines()]
    return np.concatenate(tiles)[:count], np.array(labels[:count])
