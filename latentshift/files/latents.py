"""Saved latents: the `latents.npz` of a run, or any `.npy` or `.npz` of plain arrays."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DamagedFileError, FileError, LatentshiftWarning, RequestError, ShapeError
from ..model import Pair
from .run import read_npz

Array = np.ndarray[Any, Any]


def read_latents(path: Path, pair: Pair) -> tuple[Array, list[int] | None, Array | None]:
    """Return (latents, seeds or None, labels or None) of a file. The refined ones (`z`) of a run's file are taken.

    Raises FileError for what cannot be read, RequestError for another space, ShapeError for another size; warns where the
    file was made with another model.
    """
    if path.suffix == ".npy":
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DamagedFileError(f"not a readable .npy: {error}", where=str(path)) from None
        found: dict[str, Array] = {"z": array}
    else:
        found = read_npz(path)
    key = next((k for k in ("z", "z0", "arr_0") if k in found), None)
    if key is None:
        raise FileError(
            f"no latents in this file (it holds {', '.join(found) or 'nothing'})",
            where=str(path),
            way_out="Name the array 'z'.",
        )
    space = str(found["space"]) if "space" in found else pair.space.name
    if space != pair.space.name:
        raise RequestError(f"these latents are of the space {space!r}, the model's is {pair.space.name!r}", where=str(path))
    theirs = str(found.get("model_sha256", ""))
    if theirs and pair.sha256 and theirs != pair.sha256:
        warnings.warn(
            f"{path} was made with another model (sha256 {theirs[:12]}, this one is {pair.sha256[:12]})",
            LatentshiftWarning,
            stacklevel=2,
        )
    z = found[key]
    if z.dtype.kind != "f":
        raise ShapeError(f"latents are {z.dtype}, not floating point", where=str(path))
    if z.ndim < 2 or z.shape[1:] != pair.space.shape or not len(z):
        raise ShapeError(
            f"latents have shape {z.shape}, this model takes (rows, {', '.join(map(str, pair.space.shape))})", where=str(path)
        )
    seeds = [int(s) for s in found["seeds"]] if "seeds" in found else None
    if seeds is not None and len(seeds) != len(z):
        raise DamagedFileError(f"{len(seeds)} seeds for {len(z)} latents", where=str(path))
    return z.astype(np.float32), seeds, found.get("labels")
